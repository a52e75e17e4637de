//! Sign in once; stay signed in: keeps OAuth 2.0 sessions renewed.
//!
//! See the README for the C, Python and Node faces, and `docs/` for the renewal protocol and its guarantees.

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
// There is no fork where there is no Unix.
#[cfg_attr(not(unix), allow(dead_code))]
mod process;

#[cfg(feature = "capi")]
pub mod capi;

pub use client::{Client, is_rejection, json_member, refresh};
pub use error::{Error, Result, Status};
pub use secret::Secret;

/// The version of this library.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
