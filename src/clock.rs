//! The four clocks, each for one purpose.
//!
//! | clock | for |
//! |---|---|
//! | wall | the end of a token's life, times that people read |
//! | boot time (goes on in suspend) | the end of a token's life, so that a wall clock set back never serves a dead token |
//! | monotonic (stops in suspend) | attempts and back-offs of a local store: comparable between processes of one boot |
//! | [`std::time::Instant`] | waits inside one process |

#[cfg(feature = "shuttle")]
pub use crate::sync::clock::{boot_ms, monotonic_coarse_ms, monotonic_ms, wall_coarse_ms, wall_ms};

#[cfg(all(unix, not(feature = "shuttle")))]
pub use unix::{boot_ms, monotonic_coarse_ms, monotonic_ms, wall_coarse_ms, wall_ms};

#[cfg(not(any(unix, feature = "shuttle")))]
pub use other::{boot_ms, monotonic_coarse_ms, monotonic_ms, wall_coarse_ms, wall_ms};

#[cfg(all(unix, not(feature = "shuttle")))]
mod unix {
    use std::sync::OnceLock;

    use rustix::time::{ClockId, clock_gettime};

    fn ms(clock: ClockId) -> i64 {
        let t = clock_gettime(clock);
        t.tv_sec * 1000 + t.tv_nsec / 1_000_000
    }

    /// Unix time in milliseconds.
    pub fn wall_ms() -> i64 {
        ms(ClockId::Realtime)
    }

    /// Unix time in milliseconds, a tick (at most 10 ms) behind: cheap enough for the hot path.
    pub fn wall_coarse_ms() -> i64 {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        return ms(ClockId::RealtimeCoarse);
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        wall_ms()
    }

    /// Milliseconds since boot, time in suspend included.
    pub fn boot_ms() -> i64 {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        return ms(ClockId::Boottime);
        // Apple's CLOCK_MONOTONIC goes on in suspend.
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        ms(ClockId::Monotonic)
    }

    /// Milliseconds since boot, time in suspend not included: in all processes of a machine the same, whatever time
    /// namespace a container has.
    pub fn monotonic_ms() -> i64 {
        static AHEAD_MS: OnceLock<i64> = OnceLock::new();
        ms(ClockId::Monotonic) - AHEAD_MS.get_or_init(|| namespace_ahead_ms().unwrap_or_default())
    }

    /// How far this process's monotonic clock is ahead of the machine's: seconds and nanoseconds in a line of that name.
    fn namespace_ahead_ms() -> Option<i64> {
        let offsets = std::fs::read_to_string("/proc/self/timens_offsets").ok()?;
        let mut numbers = offsets.lines().find_map(|line| line.strip_prefix("monotonic "))?.split_whitespace();
        let (seconds, nanoseconds): (i64, i64) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        Some(seconds * 1000 + nanoseconds / 1_000_000)
    }

    /// The same, a tick (at most 10 ms) behind.
    pub fn monotonic_coarse_ms() -> i64 {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        return ms(ClockId::MonotonicCoarse);
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        monotonic_ms()
    }
}

/// Only what the standard library has: good within one process.
#[cfg(not(any(unix, feature = "shuttle")))]
mod other {
    use std::sync::OnceLock;
    use std::time::{Instant, SystemTime, UNIX_EPOCH};

    pub fn wall_ms() -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64)
    }

    pub fn wall_coarse_ms() -> i64 {
        wall_ms()
    }

    pub fn boot_ms() -> i64 {
        monotonic_ms()
    }

    pub fn monotonic_coarse_ms() -> i64 {
        monotonic_ms()
    }

    pub fn monotonic_ms() -> i64 {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_millis() as i64
    }
}
