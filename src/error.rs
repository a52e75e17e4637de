//! What went wrong, what it means for the session, and what to do next.

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::Serialize;

/// The answer of every fallible function.
#[allow(non_camel_case_types, missing_docs)]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum evergrant_status {
    /// Done.
    Ok = 0,
    /// An argument or a configuration key is wrong; the message names it. Nothing was done.
    InvalidArgument = 1,
    /// There is no such session, or it has ended; `reason` says why. Only a new sign-in helps.
    SignInRequired = 2,
    /// The authorization server refuses this client or request: correct the configuration. The session is kept.
    Refused = 3,
    /// The authorization server cannot answer now; try again after `retry_after_ms`. The session is kept.
    Unavailable = 4,
    /// Your wait has ended; the renewal goes on without you.
    TimedOut = 5,
    /// The store cannot be used; the message says what to do. If it came before a renewal, no refresh token was spent.
    Store = 6,
    /// evergrant_session_peek() only: memory has no answer, ask evergrant_session_access_token().
    Stale = 7,
    /// The client has been closed.
    Closed = 8,
    /// A defect of this library.
    Internal = 9,
}

pub use evergrant_status as Status;

impl Status {
    /// Every status, in order of its number.
    pub const ALL: [Status; 10] = [
        Status::Ok,
        Status::InvalidArgument,
        Status::SignInRequired,
        Status::Refused,
        Status::Unavailable,
        Status::TimedOut,
        Status::Store,
        Status::Stale,
        Status::Closed,
        Status::Internal,
    ];

    /// The name, without the C prefix, NUL-terminated so that C can borrow it.
    pub fn c_name(self) -> &'static std::ffi::CStr {
        match self {
            Status::Ok => c"OK",
            Status::InvalidArgument => c"INVALID_ARGUMENT",
            Status::SignInRequired => c"SIGN_IN_REQUIRED",
            Status::Refused => c"REFUSED",
            Status::Unavailable => c"UNAVAILABLE",
            Status::TimedOut => c"TIMED_OUT",
            Status::Store => c"STORE",
            Status::Stale => c"STALE",
            Status::Closed => c"CLOSED",
            Status::Internal => c"INTERNAL",
        }
    }

    /// The name, without the C prefix.
    pub fn name(self) -> &'static str {
        self.c_name().to_str().unwrap_or("INTERNAL")
    }
}

impl Serialize for Status {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// An error as users see it: one line that is complete by itself, and the same in parts ([`Details`]).
///
/// It never contains a secret.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Error(Box<Details>);

/// The parts of an [`Error`].
#[derive(Clone, Debug, Serialize)]
pub struct Details {
    /// The class, for programs.
    pub status: Status,
    /// One line for people: what happened, what it means for the session, what to do next.
    pub message: String,
    /// Why, from an open set of names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The server's `error` (RFC 6749 §5.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The server's `error_description`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_description: Option<String>,
    /// The server's `error_uri`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_uri: Option<String>,
    /// The HTTP status of the server's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// When trying again makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// `not_sent`, `refused` or `unknown`, wherever an exchange was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<&'static str>,
    /// The session that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// The result of a fallible function.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with this class and message, all other parts absent.
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            status,
            message: message.into(),
            reason: None,
            error: None,
            error_description: None,
            error_uri: None,
            http_status: None,
            retry_after_ms: None,
            outcome: None,
            session: None,
        }))
    }

    /// An [`Status::InvalidArgument`]; `message` names the argument or key.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Status::InvalidArgument, message)
    }

    /// A [`Status::Store`]; `message` says what to do.
    pub fn store(message: impl Into<String>) -> Self {
        Self::new(Status::Store, message)
    }

    /// The same with a reason.
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// The same, about this session.
    pub fn about(mut self, session: &str) -> Self {
        self.session = Some(session.to_owned());
        self
    }
}

impl Deref for Error {
    type Target = Details;

    fn deref(&self) -> &Details {
        &self.0
    }
}

impl DerefMut for Error {
    fn deref_mut(&mut self) -> &mut Details {
        &mut self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_numbered_without_gaps() {
        for (number, status) in Status::ALL.into_iter().enumerate() {
            assert_eq!(status as usize, number);
        }
    }
}
