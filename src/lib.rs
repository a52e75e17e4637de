//! Sign in once; stay signed in: keeps OAuth 2.0 sessions renewed.
//!
//! See the README for the C, Python and Node faces, and `docs/` for the renewal protocol and its guarantees.

// Much of the library is not simulated.
#![cfg_attr(feature = "shuttle", allow(missing_docs, unreachable_code, unused))]

mod browser;
pub mod client;
pub mod config;
pub mod error;
pub mod oauth;
pub mod queue;
pub mod secret;
pub mod session;
pub mod store;
pub mod token;

mod clock;
mod host;
mod sync;
mod tls;
// There is no fork where there is no Unix.
#[cfg_attr(not(unix), allow(dead_code))]
mod process;

#[cfg(feature = "capi")]
pub mod capi;

#[cfg(feature = "shuttle")]
#[path = "../tests/concurrency/mod.rs"]
mod concurrency;
#[cfg(all(feature = "shuttle", not(test)))]
compile_error!("the feature \"shuttle\" is for tests/concurrency.sh alone");

pub use client::{Client, is_rejection, json_member, refresh};
pub use error::{Error, Result, Status};
pub use secret::Secret;

/// The version of this library.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
