//! One exchange with an authorization server. It knows no sessions.

pub mod assertion;
pub mod client_auth;
mod connect;
pub mod discovery;
pub mod endpoints;
pub mod http;
pub mod introspect;
pub mod profiles;
pub mod proxy;
pub mod refresh;
pub mod revoke;
pub mod salesforce;
mod server_error;
pub mod sign_in;

pub use http::Http;
pub use introspect::introspect;
pub use refresh::refresh;
pub use revoke::revoke;
pub use salesforce::is_rejection;

use crate::config::Registration;
use crate::error::{Error, Status};
use crate::session::record::Binds;
use crate::sync::Instant;
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

impl Outcome {
    /// Why there is no token.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Outcome::Done(_) => None,
            Outcome::NotSent(failure)
            | Outcome::Busy(failure)
            | Outcome::Refused(failure)
            | Outcome::InvalidGrant(failure)
            | Outcome::Unknown(failure) => Some(failure),
        }
    }

    /// The failure as an error with the message that `tell` makes of it.
    pub(crate) fn error(&self, tell: impl FnOnce(&Failure) -> String) -> Error {
        let (status, name) = match self {
            Outcome::InvalidGrant(_) => (Status::SignInRequired, "refused"),
            Outcome::Refused(failure) if failure.binds != Binds::All => (Status::Refused, "refused"),
            Outcome::Refused(_) => (Status::Unavailable, "refused"),
            Outcome::NotSent(Failure { binds: Binds::Configuration(_), .. }) => (Status::Refused, "not_sent"),
            Outcome::NotSent(_) => (Status::Unavailable, "not_sent"),
            _ => (Status::Unavailable, "unknown"),
        };
        let Some(failure) = self.failure() else { return Error::new(Status::Internal, "an answer is no failure") };
        let mut error = failure.error(status, tell(failure));
        error.outcome = Some(name);
        error
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

impl Failure {
    /// The same as an error, with this message.
    pub(crate) fn error(&self, status: Status, message: String) -> Error {
        let mut error = Error::new(status, message).because(self.reason);
        error.error.clone_from(&self.error);
        error.error_description.clone_from(&self.error_description);
        error.error_uri.clone_from(&self.error_uri);
        error.http_status = self.http_status;
        error.retry_after_ms = self.retry_after_ms;
        error
    }
}

/// The reason of a failure that is nobody's: this party went back on its claim before anything was sent.
pub const WITHDRAWN: &str = "withdrawn";

/// The two moments of clock rule C.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// The first byte goes out before this, or not at all.
    pub first_byte: Instant,
    /// The answer is awaited until this.
    pub answer: Instant,
}

impl Deadline {
    /// That of an exchange that begins now.
    pub fn from_now(registration: &Registration) -> Self {
        Self::from(Instant::now(), registration)
    }

    /// That of an exchange that began with a look at a clock.
    pub fn from(start: Instant, registration: &Registration) -> Self {
        let first_byte = start + registration.connect_timeout;
        Self { first_byte, answer: first_byte + registration.exchange_timeout }
    }
}
