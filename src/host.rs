//! This machine: its name, and its boot.

use std::sync::OnceLock;

use crate::clock;

/// What people call this machine. It identifies nothing: machines made from one image share it.
pub fn name() -> String {
    #[cfg(unix)]
    return rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    std::env::var("COMPUTERNAME").unwrap_or_default()
}

/// A name for this boot of this machine: [`clock::monotonic_ms`] values of two boots cannot be compared.
pub fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|id| id.trim().to_owned())
            .unwrap_or_else(|_| format!("{ESTIMATED}{}", (clock::wall_ms() - clock::boot_ms()) / 60_000))
    })
}

/// How the name of a boot begins where the system has none and it is estimated.
pub const ESTIMATED: &str = "booted-at-";
