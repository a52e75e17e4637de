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
    /// The configuration says it (`session_lifetime_s`), or an introspection: a server may end a token sooner.
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
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    Error::invalid(format!("token_json: {problem}"))
}

/// Whether a token was issued right now, so that its `iat` says what this machine's clock should read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
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

/// When a token was issued and when it ends, Unix time, as a JWT (RFC 7519 §4.1) or an introspection (RFC 7662 §2.2) says it.
#[derive(Deserialize)]
pub(crate) struct Times {
    exp: Option<f64>,
    iat: Option<f64>,
}

impl Times {
    /// The life in seconds, counted from this time.
    ///
    /// A new token cannot have ended: if its `exp` says so, this machine's clock is wrong, and the distance from `iat`
    /// counts.
    pub fn life_s(&self, from_s: f64, age: Age) -> Option<i64> {
        let left = self.exp? - from_s;
        let whole = self.iat.map(|iat| self.exp.unwrap_or(iat) - iat).filter(|whole| *whole >= 1.0);
        let life = match age {
            Age::Unknown => left.max(0.0),
            Age::New => [Some(left).filter(|left| *left >= 1.0), whole].into_iter().flatten().reduce(f64::min)?,
        };
        (life <= ABSURD_S).then_some(life as i64)
    }
}

/// What is left of a JWT's life (RFC 9068 §2.2), in seconds.
fn jwt_life(token: &str, now_s: f64, age: Age) -> Option<i64> {
    let mut parts = token.split('.');
    let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else { return None };
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let times: Times = serde_json::from_slice(&payload).ok()?;
    times.life_s(now_s, age)
}

fn now_s() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0.0, |now| now.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("eyJhbGciOiJub25lIn0.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_whole_answer() {
        let text =
            r#"{"access_token":"00D!a.b","refresh_token":"5Aep==","token_type":"bearer","n":1e400,"expires_in":7200}"#;
        let answer = Answer::from_json(text).unwrap();
        assert_eq!(answer.refresh_token.unwrap().expose(), "5Aep==");
        assert_eq!(answer.access_token.unwrap().expose(), "00D!a.b");
        let rest = r#"{"access_token":"00D!a.b","token_type":"bearer","n":1e400,"expires_in":7200}"#;
        assert_eq!(answer.members.expose(), rest);
        assert_eq!((answer.expires_in_s, answer.unusable), (Some(7200), None));
    }

    #[test]
    fn a_refresh_token_alone_is_enough() {
        for (rest, word) in [
            ("", "no access_token"),
            (r#","access_token":null"#, "no access_token"),
            (r#","access_token":5"#, "not a string"),
            (r#","access_token":"""#, "empty"),
            (r#","access_token":"a b""#, "characters"),
            (r#","access_token":"a\u0000""#, "characters"),
            (r#","access_token":"a","token_type":"DPoP""#, "token_type"),
            (r#","access_token":"a","token_type":5"#, "token_type"),
        ] {
            let answer = Answer::from_json(&format!(r#"{{"refresh_token":"r"{rest}}}"#)).unwrap();
            assert!(answer.refresh_token.is_some() && answer.access_token.is_none(), "{rest}");
            assert!(answer.unusable.unwrap().contains(word), "{rest}");
        }
    }

    #[test]
    fn errors_name_the_problem_and_show_no_value() {
        for (text, word) in [
            ("canary", "not valid JSON"),
            ("[]", "JSON object"),
            ("{}", "no refresh_token"),
            (r#"{"refresh_token":["canary"],"access_token":"a"}"#, "refresh_token is not a string"),
            (r#"{"refresh_token":"","access_token":"a"}"#, "refresh_token is empty"),
            (r#"{"refresh_token":"canary\n","access_token":"a"}"#, "refresh_token contains"),
            (r#"{"access_token":"canary "}"#, "access_token contains"),
            (r#"{"access_token":"canary","token_type":"mac"}"#, "token_type is not Bearer"),
        ] {
            let error = Answer::from_json(text).unwrap_err();
            assert_eq!(error.status, crate::Status::InvalidArgument);
            assert!(error.message.contains(word) && !error.message.contains("canary"), "{text}: {error}");
        }
    }

    #[test]
    fn expires_in_as_servers_write_it() {
        for (written, expected) in [
            ("7200", Some(7200)),
            ("7200.9", Some(7200)),
            ("\"3600\"", Some(3600)),
            ("\" 3600 \"", Some(3600)),
            ("3.6e3", Some(3600)),
            ("315360000", Some(315_360_000)),
            ("315360001", None),
            ("1e400", None),
            ("0", None),
            ("-1", None),
            ("\"NaN\"", None),
            ("\"soon\"", None),
            ("null", None),
            ("{}", None),
        ] {
            let answer = Answer::from_json(&format!(r#"{{"access_token":"a","expires_in":{written}}}"#)).unwrap();
            assert_eq!(answer.expires_in_s, expected, "{written}");
        }
    }

    #[test]
    fn a_jwt_says_its_end() {
        const NOW: f64 = 1_000_000.0;
        for (claims, new, unknown) in [
            (r#"{"exp":1000600,"iat":1000000}"#, Some(600), Some(600)),
            (r#"{"exp":1000600.5}"#, Some(600), Some(600)),
            // This machine's clock is an hour behind; then an hour ahead.
            (r#"{"exp":1004200,"iat":1003600}"#, Some(600), Some(4200)),
            (r#"{"exp":997000,"iat":996400}"#, Some(600), Some(0)),
            (r#"{"exp":997000}"#, None, Some(0)),
            (r#"{"exp":1e300}"#, None, None),
            (r#"{"iat":1000000}"#, None, None),
            (r#"{"exp":"soon"}"#, None, None),
            ("[]", None, None),
        ] {
            assert_eq!(jwt_life(&jwt(claims), NOW, Age::New), new, "new {claims}");
            assert_eq!(jwt_life(&jwt(claims), NOW, Age::Unknown), unknown, "{claims}");
        }
        for opaque in ["00D!a.b", "a.b.c", "a..c", "a.e30.c.d.e", ""] {
            assert_eq!(jwt_life(opaque, NOW, Age::New), None, "{opaque}");
        }
    }

    #[test]
    fn the_earlier_end_counts() {
        let token = jwt(&format!(r#"{{"exp":{}}}"#, now_s() as i64 + 600));
        let life = |expires_in: u32| {
            let text = format!(r#"{{"access_token":"{token}","expires_in":{expires_in}}}"#);
            Answer::from_json(&text).unwrap().expires_in_s.unwrap()
        };
        assert_eq!(life(300), 300);
        assert!((598..=600).contains(&life(3600)));
    }
}
