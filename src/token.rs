//! Tokens: what a token endpoint answers (RFC 6749 §5.1), and what a session hands out.

mod members;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::error::{Error, Result, Status};
use crate::secret::Secret;

pub(crate) use members::Members;

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

/// Longer lives than this mean "no end", or nonsense: ten years.
const ABSURD_S: f64 = 315_360_000.0;

/// A JSON object that may be a token, before anybody has judged it.
pub(crate) struct Parsed {
    pub answer: Answer,
    /// What is wrong with a `refresh_token` that is there and cannot be used.
    pub bad_refresh_token: Option<&'static str>,
    /// `token_type` is there and is not Bearer.
    pub not_bearer: bool,
}

impl Answer {
    /// Reads a token that an application has: a token endpoint's answer (RFC 6749 §5.1), or at least a `refresh_token`
    /// or an `access_token` of one.
    ///
    /// The error names the problem and shows no value.
    pub fn from_json(text: &str) -> Result<Self> {
        let Parsed { answer, bad_refresh_token, .. } = parse(text, Age::Unknown).map_err(invalid)?;
        if let Some(problem) = bad_refresh_token {
            return Err(invalid(format!("refresh_token {problem}")));
        }
        match (&answer.refresh_token, &answer.unusable) {
            (None, Some(problem)) => Err(invalid(format!("there is no refresh_token, and {problem}"))),
            _ => Ok(answer),
        }
    }
}

impl Answer {
    /// The whole answer again, `refresh_token` included.
    pub fn whole(&self) -> Result<Secret> {
        let unreadable = || Error::new(Status::Internal, "an answer that was read cannot be written again");
        let token = self.refresh_token.as_ref().map(Secret::expose);
        let raw = to_raw_value(&token).map_err(|_| unreadable())?;
        let mut members = Members::parse(self.members.expose()).map_err(|_| unreadable())?;
        if token.is_some() {
            members.set("refresh_token", &raw);
        }
        Ok(members.without(""))
    }

    /// Salesforce's `issued_at`: milliseconds of Unix time, as a string.
    pub fn issued_at_ms(&self) -> Option<i64> {
        Members::parse(self.members.expose()).ok()?.text("issued_at")?.parse().ok().filter(|ms| *ms > 1_000_000_000_000)
    }
}

fn invalid(problem: impl std::fmt::Display) -> Error {
    Error::invalid(format!("token: {problem}"))
}

/// Whether a token was issued right now, so that its `iat` says what this machine's clock should read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    /// It is the answer to a request of a moment ago.
    New,
    /// Anybody's guess.
    Unknown,
}

/// Takes a JSON object apart. Only what is no JSON object is an error.
pub(crate) fn parse(text: &str, age: Age) -> std::result::Result<Parsed, String> {
    let members = Members::parse(text)?;
    let (refresh_token, bad_refresh_token) = match string_member(&members, "refresh_token", b' ') {
        Ok(token) => (token, None),
        Err(problem) => (None, Some(problem)),
    };
    let not_bearer = members.get("token_type").is_some_and(|raw| raw.get() != "null" && !is_bearer(raw));
    let (access_token, unusable) = match string_member(&members, "access_token", b'!') {
        _ if not_bearer => (None, Some("token_type is not Bearer".to_owned())),
        Ok(Some(token)) => (Some(token), None),
        Ok(None) => (None, Some("there is no access_token".to_owned())),
        Err(problem) => (None, Some(format!("access_token {problem}"))),
    };
    let expires_in = members.get("expires_in").and_then(seconds);
    let jwt = access_token.as_ref().and_then(|token| jwt_life(token.expose(), now_s(), age));
    let answer = Answer {
        refresh_token,
        expires_in_s: [expires_in, jwt].into_iter().flatten().min(),
        access_token,
        members: members.without("refresh_token"),
        unusable,
        signature_mismatch: false,
    };
    Ok(Parsed { answer, bad_refresh_token, not_bearer })
}

/// A string of ASCII from `first` to `~`; `None` if it is absent or null.
///
/// `first`: RFC 6749 appendix A.17 allows a space in a refresh token; no bearer token has one (RFC 6750 §2.1).
fn string_member(members: &Members<'_>, name: &str, first: u8) -> std::result::Result<Option<Secret>, &'static str> {
    let Some(raw) = members.get(name).filter(|raw| raw.get() != "null") else { return Ok(None) };
    let text: String = serde_json::from_str(raw.get()).map_err(|_| "is not a string")?;
    let text = Secret::new(text);
    match text.expose() {
        "" => Err("is empty"),
        token if token.bytes().all(|byte| (first..=b'~').contains(&byte)) => Ok(Some(text)),
        _ => Err("contains characters that no token may have"),
    }
}

fn is_bearer(raw: &RawValue) -> bool {
    serde_json::from_str::<String>(raw.get()).is_ok_and(|kind| kind.eq_ignore_ascii_case("bearer"))
}

/// `expires_in` as servers write it: a number or a string of one. `None` for what cannot be a life.
fn seconds(raw: &RawValue) -> Option<i64> {
    let text = raw.get().trim_matches('"').trim();
    text.parse().ok().filter(|life: &f64| *life >= 1.0 && *life <= ABSURD_S).map(|life| life as i64)
}

#[derive(Deserialize)]
struct Claims {
    exp: Option<f64>,
    iat: Option<f64>,
}

/// What is left of a JWT's life (RFC 9068 §2.2), in seconds.
///
/// A new token cannot have ended: if its `exp` says so, this machine's clock is wrong, and the distance from `iat` counts.
fn jwt_life(token: &str, now_s: f64, age: Age) -> Option<i64> {
    let mut parts = token.split('.');
    let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else { return None };
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    let left = claims.exp? - now_s;
    let whole = claims.iat.map(|iat| claims.exp.unwrap_or(iat) - iat).filter(|whole| *whole >= 1.0);
    let life = match age {
        Age::Unknown => left.max(0.0),
        Age::New => [Some(left).filter(|left| *left >= 1.0), whole].into_iter().flatten().reduce(f64::min)?,
    };
    (life <= ABSURD_S).then_some(life as i64)
}

fn now_s() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0.0, |now| now.as_secs_f64())
}
