//! One exchange with an authorization server. It knows no sessions.

pub mod client_auth;
mod connect;
pub mod endpoints;
pub mod http;
pub mod introspect;
pub mod refresh;
pub mod revoke;
pub mod salesforce;
mod server_error;
pub mod sign_in;

use std::time::Instant;

pub use http::Http;
pub use refresh::refresh;
pub use revoke::revoke;
pub use salesforce::is_rejection;

use crate::session::record::Binds;
use crate::token::Answer;

/// How an exchange ended: exactly what the renewal protocol needs to know.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Any 2xx answer from which a refresh token or a usable access token was read.
    Done(Box<Answer>),
    /// Failed before the first byte of the request, or 429: the refresh token is certainly unspent.
    NotSent(Failure),
    /// Salesforce's "token request is already being processed": somebody else is spending the token right now.
    Busy(Failure),
    /// An OAuth error other than invalid_grant, server_error and temporarily_unavailable.
    Refused(Failure),
    /// RFC 6749 §5.2 `invalid_grant`: the refresh token is dead.
    InvalidGrant(Failure),
    /// Everything else after the first byte, every 5xx included.
    Unknown(Failure),
}

impl Outcome {
    /// As it stands in history, events and stats.
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Done(_) => "done",
            Outcome::NotSent(_) => "not_sent",
            Outcome::Busy(_) => "busy",
            Outcome::Refused(_) => "refused",
            Outcome::InvalidGrant(_) => "invalid_grant",
            Outcome::Unknown(_) => "unknown",
        }
    }
}

/// Why there is no token.
#[derive(Clone, Debug)]
pub struct Failure {
    /// One line: what happened and what to do about it. It says nothing of sessions and contains no secret.
    pub message: String,
    /// `expired_or_revoked`, `inactive_user`, `client_refused`, `server_unavailable`, `network`, `bad_answer`, …
    pub reason: &'static str,
    /// The server's `error`.
    pub error: Option<String>,
    /// The server's `error_description`, secrets scrubbed.
    pub error_description: Option<String>,
    /// The server's `error_uri`.
    pub error_uri: Option<String>,
    /// The answer's HTTP status.
    pub http_status: Option<u16>,
    /// The answer's `Retry-After`.
    pub retry_after_ms: Option<u64>,
    /// Whom a back-off binds.
    pub binds: Binds,
}

/// The two moments of clock rule C.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// The first byte goes out before this, or not at all.
    pub first_byte: Instant,
    /// The answer is awaited until this.
    pub answer: Instant,
}
