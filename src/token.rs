//! Tokens: what a token endpoint answers (RFC 6749 §5.1), and what a session hands out.

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// What is known of an access token's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    /// The server said it: `expires_in`, or a JWT's `exp`.
    Known,
    /// The configuration says it (`session_lifetime_s`).
    Assumed,
    /// Nobody said it: only a rejection renews.
    Unknown,
}

impl Expiry {
    /// As it stands in token JSON.
    pub fn name(self) -> &'static str {
        match self {
            Expiry::Known => "known",
            Expiry::Assumed => "assumed",
            Expiry::Unknown => "unknown",
        }
    }
}

/// The life of an access token. It starts when the request for it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Unix time in milliseconds.
    pub from_ms: i64,
    /// Unix time in milliseconds; `None` if unknown.
    pub until_ms: Option<i64>,
    /// How the end is known.
    pub expiry: Expiry,
}

/// A success answer of the token endpoint, or one given to `save`, taken apart.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The (rotated) refresh token, if there is one.
    pub refresh_token: Option<Secret>,
    /// The access token, if it is usable as a bearer token.
    pub access_token: Option<Secret>,
    /// The whole answer less `refresh_token`: a JSON object, its members unchanged.
    pub members: Secret,
    /// `expires_in`, or what is left of a JWT's `exp`, in seconds.
    pub expires_in_s: Option<i64>,
    /// Why `access_token` is `None`.
    pub unusable: Option<String>,
    /// Salesforce's `signature` did not verify.
    pub signature_mismatch: bool,
}
