//! Shuttle's threads and locks, and what it lacks: a clock, waits that end by it, and `arc_swap`.
//!
//! The timer of a wait is one more task, which moves the clock when it is run. A wait beyond the [`HORIZON`] has none: if
//! its wake-up is lost, that is a deadlock, which Shuttle reports.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::ops::{Add, Deref, Sub};
use std::sync::{Arc, LockResult, PoisonError};
use std::time::Duration;

use arc_swap::Guard;
use shuttle::current;
use shuttle::scheduler::Task;
pub use shuttle::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic};
use shuttle::{future, sync};
pub use shuttle::{thread, thread_local};

use self::atomic::{AtomicBool, Ordering};

/// When a timer is run.
#[derive(Clone, Copy, Debug)]
pub enum Timers {
    /// At any step, as if the other threads had been slow.
    AnyTime,
    /// When nothing else can be run, the earliest first: who did not have to wait finds the clock where it was.
    AtRest,
}

/// The first day.
pub const HORIZON: Duration = Duration::from_secs(86_400);

// Shuttle runs all tasks of an execution on one thread of the system.
std::thread_local! {
    static SINCE_START: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static TIMERS: RefCell<BTreeMap<usize, Duration>> = const { RefCell::new(BTreeMap::new()) };
    static LAZY: RefCell<HashMap<usize, &'static dyn Any>> = RefCell::default();
}

/// Begins an execution: nothing is left of the one before.
pub fn begin() {
    SINCE_START.set(Duration::ZERO);
    TIMERS.take();
    LAZY.take();
}

/// Those of the tasks that may be run now.
pub fn may_run<'a>(timers: Timers, runnable: &[&'a Task]) -> Vec<&'a Task> {
    let until = |task: &Task| TIMERS.with_borrow(|timers| timers.get(&usize::from(task.id())).copied());
    let threads = || runnable.iter().copied().filter(|task| until(task).is_none());
    match timers {
        Timers::AtRest if threads().next().is_some() => threads().collect(),
        Timers::AtRest => runnable.iter().copied().min_by_key(|task| until(task)).into_iter().collect(),
        Timers::AnyTime => runnable.to_vec(),
    }
}

/// A moment on the simulated clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

impl Instant {
    pub fn now() -> Self {
        Self(SINCE_START.get())
    }

    pub fn elapsed(&self) -> Duration {
        Self::now() - *self
    }

    pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

/// In place of the system's clocks.
pub mod clock {
    const START_MS: i64 = 1_800_000_000_000;

    pub fn monotonic_ms() -> i64 {
        super::SINCE_START.get().as_millis() as i64
    }

    pub fn wall_ms() -> i64 {
        START_MS + monotonic_ms()
    }

    pub use monotonic_ms as boot_ms;
    pub use monotonic_ms as monotonic_coarse_ms;
    pub use wall_ms as wall_coarse_ms;
}

#[derive(Default)]
pub struct Condvar(Arc<sync::Condvar>);

impl Condvar {
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.0.wait(guard)
    }

    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, ())> {
        let until = SINCE_START.get() + timeout;
        let over = Arc::new(AtomicBool::new(false));
        if until < HORIZON {
            let (bell, over) = (Arc::clone(&self.0), Arc::clone(&over));
            // Detached: the end of the test does not wait for it.
            drop(future::spawn(async move {
                TIMERS.with_borrow_mut(|timers| timers.insert(usize::from(current::me()), until));
                future::yield_now().await;
                while !over.load(Ordering::SeqCst) {
                    SINCE_START.set(SINCE_START.get().max(until));
                    // Wakes others, too, as a real condition variable may; and again, if the wait has yet to begin.
                    bell.notify_all();
                    future::yield_now().await;
                }
            }));
        }
        let waited = self.0.wait(guard);
        over.store(true, Ordering::SeqCst);
        waited.map(|guard| (guard, ())).map_err(|error| PoisonError::new((error.into_inner(), ())))
    }
}

/// Once in every execution.
pub struct LazyLock<T: 'static>(fn() -> T);

impl<T> LazyLock<T> {
    pub const fn new(make: fn() -> T) -> Self {
        Self(make)
    }
}

impl<T: Any> Deref for LazyLock<T> {
    type Target = T;

    fn deref(&self) -> &T {
        let place = std::ptr::from_ref(self).addr();
        let made = LAZY.with_borrow(|lazy| lazy.get(&place).copied());
        let value = made.unwrap_or_else(|| {
            let made: &'static T = Box::leak(Box::new((self.0)()));
            LAZY.with_borrow_mut(|lazy| lazy.insert(place, made));
            made
        });
        value.downcast_ref().expect("one type in one place")
    }
}

/// Each call is one step, and others may come in before it.
pub struct ArcSwapOption<T> {
    inner: arc_swap::ArcSwapOption<T>,
    step: AtomicBool,
}

impl<T> ArcSwapOption<T> {
    pub fn empty() -> Self {
        Self { inner: arc_swap::ArcSwapOption::empty(), step: AtomicBool::new(false) }
    }

    fn step(&self) -> &arc_swap::ArcSwapOption<T> {
        self.step.load(Ordering::SeqCst);
        &self.inner
    }

    pub fn load(&self) -> Guard<Option<Arc<T>>> {
        self.step().load()
    }

    pub fn load_full(&self) -> Option<Arc<T>> {
        self.step().load_full()
    }

    pub fn store(&self, value: Option<Arc<T>>) {
        self.step().store(value);
    }
}
