//! The process model, through the built library: threads, processes, forks, signals, crashes, disks.
//!
//! Each test has a [`stage::Stage`]: a test server, a directory and worker processes (`tests/c/worker.c`), and judges by
//! what the workers were told and by the server's own log. Everything that is waited for has a limit. Random numbers
//! come from a seed that is printed; `EVERGRANT_SEED=… cargo test --test processes` repeats it.
//!
//! Some tests mount file systems or make time namespaces: they must run as root. These tests share their machine: clocks
//! are stepped for single processes only.

#![cfg(target_os = "linux")]

mod clocks;
mod crash;
mod disk;
mod fork;
mod host;
mod owner;
mod renewal;
mod restored;
mod stage;
mod syscalls;
