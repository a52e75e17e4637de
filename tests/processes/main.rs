//! The process model, through the built library: threads, processes, forks, signals, crashes, disks.
//!
//! Each test has a [`stage::Stage`]: a test server, a directory and worker processes (`tests/c/worker.c`), and judges by
//! what the workers were told and by the server's own log. Everything that is waited for has a limit. Random numbers
//! come from a seed that is printed; `EVERGRANT_SEED=… cargo test --test processes` repeats it.
//!
//! Some tests mount file systems: they must run as root. A stepped wall clock is not tested here: these tests share
//! their machine.

#![cfg(target_os = "linux")]

mod crash;
mod disk;
mod fork;
mod host;
mod owner;
mod renewal;
#[path = "../common/servers.rs"]
mod servers;
mod shared;
mod stage;
mod syscalls;
