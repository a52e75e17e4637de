//! The face of the core: what the C functions, the Rust API and the examples call.

use std::sync::atomic::AtomicU32;

use crate::error::{Error, Result, Status};
use crate::secret::Secret;

/// One OAuth client registration at one authorization server, with one store.
///
/// All functions may be called from any thread at any time.
#[derive(Debug)]
pub struct Client(());

fn not_built() -> Error {
    Error::new(Status::Internal, "not built yet")
}

/// The refresh-token flow itself, once; nothing is stored (RFC 6749 §6).
///
/// `request_json` is a configuration plus `refresh_token`. Returns the token endpoint's answer, a rotated
/// `refresh_token` included.
pub fn refresh(_request_json: &str) -> Result<String> {
    Err(not_built())
}

/// Whether a resource server's answer means "this access token is dead".
pub fn is_rejection(_http_status: i32, _body: Option<&str>) -> bool {
    false
}

/// One top-level member of a JSON object, as text: a string's content, anything else as JSON.
pub fn json_member(_json: &str, _name: &str) -> Result<String> {
    Err(not_built())
}

impl Client {
    /// Opens a client from its JSON configuration.
    pub fn open(_config_json: &str) -> Result<Self> {
        Err(not_built())
    }

    /// Counters since open, as JSON.
    pub fn stats(&self) -> Result<String> {
        Err(not_built())
    }

    /// Events after the number `after`, as JSON; waits at most `max_wait_ms` for the first.
    pub fn events(&self, _after: u64, _max_wait_ms: u32) -> Result<String> {
        Err(not_built())
    }

    /// Lets open exchanges settle for at most `max_wait_ms`. [`Status::TimedOut`] if one is still open then.
    pub fn close(&self, _max_wait_ms: u32) -> Status {
        Status::Internal
    }

    /// Keeps a token endpoint's answer as the session's token.
    pub fn save(&self, _session: &str, _token_json: &str) -> Result<()> {
        Err(not_built())
    }

    /// A token that is valid now, as JSON.
    pub fn token(&self, _session: &str, _options_json: Option<&str>) -> Result<Secret> {
        Err(not_built())
    }

    /// An access token that is valid now.
    pub fn access_token(&self, _session: &str, _options_json: Option<&str>) -> Result<Secret> {
        Err(not_built())
    }

    /// A token newer than the rejected one, or than now.
    pub fn renew(&self, _session: &str, _rejected: Option<&str>, _options_json: Option<&str>) -> Result<Secret> {
        Err(not_built())
    }

    /// The access token in memory and the Unix time in milliseconds until which memory answers: no I/O, no wait.
    /// `read` is called with the token, if memory has one that is valid now.
    pub fn peek<T>(&self, _session: &str, _read: impl FnOnce(&str) -> T) -> std::result::Result<(T, i64), Status> {
        Err(Status::Stale)
    }

    /// A word that changes when anything in this process changes what [`Client::peek`] would answer.
    pub fn stamp(&self, _session: &str) -> Result<&'static AtomicU32> {
        Err(not_built())
    }

    /// What the store knows of a session, as JSON without secrets.
    pub fn describe(&self, _session: &str) -> Result<String> {
        Err(not_built())
    }

    /// One page of sessions, as JSON.
    pub fn list(&self, _after: Option<&str>, _limit: u32) -> Result<String> {
        Err(not_built())
    }

    /// RFC 7662, of the access token.
    pub fn introspect(&self, _session: &str) -> Result<String> {
        Err(not_built())
    }

    /// Ends the session here and at the server (RFC 7009).
    pub fn sign_out(&self, _session: &str) -> Result<()> {
        Err(not_built())
    }

    /// Erases the session here only.
    pub fn forget(&self, _session: &str) -> Result<()> {
        Err(not_built())
    }

    /// Starts an authorization code sign-in.
    pub fn sign_in_start(&self, _request_json: &str) -> Result<Secret> {
        Err(not_built())
    }

    /// Finishes it.
    pub fn sign_in_finish(&self, _session: &str, _sign_in_json: &str, _redirect_url: &str) -> Result<Secret> {
        Err(not_built())
    }

    /// Signs a user in with a name and a password.
    pub fn sign_in_with_password(&self, _session: &str, _request_json: &str) -> Result<Secret> {
        Err(not_built())
    }
}
