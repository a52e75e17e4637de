//! The endpoints of a server that is named by its issuer (RFC 8414, OpenID Connect Discovery 1.0).
//!
//! They are asked for when an exchange needs them first, and kept for a while. A server that does not tell them has seen
//! no refresh token: the exchange is not sent.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::endpoints::{self, Endpoints};
use super::http::{Failed, Http, Method, Request, Response};
use super::server_error::Scrub;
use super::{Deadline, Failure};
use crate::config::{ClientAuth, Registration};
use crate::process::lock;
use crate::secret::Secret;
use crate::session::record::Binds;
use crate::sync::{Instant, Mutex};
use crate::token::Members;

/// For how long metadata counts where the server does not say it, the least and the most.
const LIFE_S: u64 = 3_600;
const SHORTEST_LIFE_S: u64 = 300;
const LONGEST_LIFE_S: u64 = 86_400;
/// For so long older metadata goes on to count when the server did not answer.
const GRACE: Duration = Duration::from_secs(60);
/// The server is waited for at most this long, and for half of the time in which the exchange must begin.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

const NO_TOKEN_ENDPOINT: &str = "there is no token_endpoint in its metadata";

/// One of a server's endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// RFC 6749 §3.2.
    Token,
    /// RFC 6749 §3.1.
    Authorization,
    /// RFC 7662 §2.
    Introspection,
    /// RFC 7009 §2.
    Revocation,
}

/// What servers have told of themselves, by issuer.
#[derive(Debug, Default)]
pub struct Cache(Mutex<HashMap<String, Arc<Mutex<Option<Kept>>>>>);

#[derive(Debug)]
struct Kept {
    metadata: Arc<Metadata>,
    until: Instant,
}

/// What a server tells of itself (RFC 8414 §2), as far as it matters here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Metadata {
    /// `token` may be empty.
    endpoints: Endpoints,
    /// It takes a client secret in the body, and not in `Authorization`.
    wants_post: bool,
    /// RFC 9207 §3.
    iss_in_answers: bool,
}

/// The registration with those of these endpoints that its server has. It is the same where `issuer` is not set, or all
/// are configured.
pub fn resolve<'a>(
    http: &Http,
    registration: &'a Registration,
    needed: &[Endpoint],
    deadline: Deadline,
) -> Result<Cow<'a, Registration>, Failure> {
    let Some(issuer) = &registration.issuer else { return Ok(Cow::Borrowed(registration)) };
    if needed.iter().all(|endpoint| registration.knows(*endpoint)) {
        return Ok(Cow::Borrowed(registration));
    }
    let metadata = metadata(http, registration, issuer, deadline)?;
    let resolved = metadata.lay_under(registration);
    if resolved.token_endpoint.is_empty() && needed.contains(&Endpoint::Token) {
        return Err(of_no_use(registration, issuer, NO_TOKEN_ENDPOINT));
    }
    Ok(Cow::Owned(resolved))
}

/// From memory, or from the server. One asks, those who need it as well wait for the answer, or use an older one.
fn metadata(
    http: &Http,
    registration: &Registration,
    issuer: &str,
    deadline: Deadline,
) -> Result<Arc<Metadata>, Failure> {
    let entry = Arc::clone(lock(&http.servers.0).entry(issuer.to_owned()).or_default());
    let mut kept = lock(&entry);
    if let Some(kept) = kept.as_ref().filter(|kept| Instant::now() < kept.until) {
        return Ok(Arc::clone(&kept.metadata));
    }
    let Some(old) = kept.as_mut() else {
        let fresh = ask(http, registration, issuer, deadline)?;
        return Ok(Arc::clone(&kept.insert(fresh).metadata));
    };
    old.until = Instant::now() + GRACE;
    let old = Arc::clone(&old.metadata);
    drop(kept);
    let Ok(fresh) = ask(http, registration, issuer, deadline) else { return Ok(old) };
    Ok(Arc::clone(&lock(&entry).insert(fresh).metadata))
}

/// Asks at both places; one that is of no use says nothing of the other.
fn ask(http: &Http, registration: &Registration, issuer: &str, deadline: Deadline) -> Result<Kept, Failure> {
    let now = Instant::now();
    let until = now + (deadline.first_byte.saturating_duration_since(now) / 2).min(LONGEST_WAIT);
    let mut problems = Vec::new();
    let mut unavailable: Option<Response> = None;
    for (name, url) in places(issuer) {
        let request = Request {
            method: Method::Get,
            endpoint: &url,
            user_agent: &registration.user_agent,
            authorization: None,
            headers: Vec::new(),
            form: None,
        };
        let deadline = Deadline { first_byte: until, answer: until };
        let response = match http.send(&request, deadline, &|| Ok(())) {
            Ok(response) => response,
            Err(Failed::Unknown(failure)) if failure.reason == "bad_answer" => {
                problems.push(format!("{name}: the answer is not HTTP, or larger than 1 MiB"));
                continue;
            }
            Err(failed) => return Err(not_reached(issuer, failed)),
        };
        match read(registration, issuer, &response) {
            Ok(metadata) => {
                let life_s = response.max_age_s.unwrap_or(LIFE_S).clamp(SHORTEST_LIFE_S, LONGEST_LIFE_S);
                return Ok(Kept { metadata: Arc::new(metadata), until: now + Duration::from_secs(life_s) });
            }
            Err(problem) => problems.push(format!("{name}: {problem}")),
        }
        if matches!(response.status, 429 | 500..=599) {
            unavailable = Some(response);
        }
    }
    let mut failure = of_no_use(registration, issuer, &problems.join(", "));
    if let Some(response) = unavailable {
        failure.reason = "server_unavailable";
        failure.http_status = Some(response.status);
        failure.retry_after_ms = response.retry_after_ms;
        failure.binds = Binds::All;
    }
    Err(failure)
}

/// Where metadata stands: RFC 8414 §3.1 puts the name before the issuer's path, OpenID Connect Discovery §4 behind it.
fn places(issuer: &str) -> [(&'static str, String); 2] {
    let issuer = issuer.strip_suffix('/').unwrap_or(issuer);
    let host = issuer.find("://").map_or(0, |at| at + 3);
    let (origin, path) = issuer.split_at(issuer[host..].find('/').map_or(issuer.len(), |at| host + at));
    [
        ("oauth-authorization-server", format!("{origin}/.well-known/oauth-authorization-server{path}")),
        ("openid-configuration", format!("{issuer}/.well-known/openid-configuration")),
    ]
}

/// What is wrong with it otherwise, in a few words.
fn read(registration: &Registration, issuer: &str, response: &Response) -> Result<Metadata, String> {
    match response.status {
        200 => {}
        status @ 300..=399 => return Err(format!("HTTP {status}, and redirects are not followed")),
        status => return Err(format!("HTTP {status}")),
    }
    let text = std::str::from_utf8(&response.body).map_err(|_| "it is not UTF-8")?;
    let members = Members::parse(text).map_err(|problem| format!("it is {problem}"))?;
    match members.text("issuer") {
        Some(named) if named == issuer => {}
        Some(named) => {
            let named = Scrub::new(registration, &Secret::new("")).clean(&named, 200);
            return Err(format!("it is that of the issuer \"{named}\""));
        }
        None => return Err("there is no issuer in it".to_owned()),
    }
    let endpoint = |name: &str| {
        let Some(raw) = members.get(name).filter(|raw| raw.get() != "null") else { return Ok(None) };
        let url: String = serde_json::from_str(raw.get()).map_err(|_| format!("its {name} is not a string"))?;
        let url = endpoints::check_endpoint(&url).map_err(|problem| format!("its {name} is of no use: {problem}"))?;
        match endpoints::is_https(issuer) && !endpoints::is_https(&url) {
            true => Err(format!("its {name} is not https")),
            false => Ok(Some(url)),
        }
    };
    let token = endpoint("token_endpoint")?.unwrap_or_default();
    if token.is_empty() && registration.token_endpoint.is_empty() {
        return Err(NO_TOKEN_ENDPOINT.to_owned());
    }
    let methods: Vec<String> = members
        .get("token_endpoint_auth_methods_supported")
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default();
    let takes = |method: &str| methods.iter().any(|other| other == method);
    Ok(Metadata {
        endpoints: Endpoints {
            token,
            authorization: endpoint("authorization_endpoint")?,
            introspection: endpoint("introspection_endpoint")?,
            revocation: endpoint("revocation_endpoint")?,
        },
        wants_post: takes("client_secret_post") && !takes("client_secret_basic"),
        iss_in_answers: members
            .get("authorization_response_iss_parameter_supported")
            .is_some_and(|raw| raw.get() == "true"),
    })
}

impl Metadata {
    /// What is configured wins.
    fn lay_under(&self, registration: &Registration) -> Registration {
        let mut resolved = registration.clone();
        let Endpoints { token, authorization, introspection, revocation } = &self.endpoints;
        if resolved.token_endpoint.is_empty() {
            resolved.token_endpoint.clone_from(token);
        }
        for (known, told) in [
            (&mut resolved.authorization_endpoint, authorization),
            (&mut resolved.introspection_endpoint, introspection),
            (&mut resolved.revocation_endpoint, revocation),
        ] {
            if known.is_none() {
                known.clone_from(told);
            }
        }
        if let ClientAuth::Basic { secret, .. } = &registration.client_auth
            && !registration.client_auth_given
            && self.wants_post
        {
            resolved.client_auth = ClientAuth::Post { secret: secret.clone() };
        }
        resolved.iss_in_answers = self.iss_in_answers;
        resolved
    }
}

impl Registration {
    fn knows(&self, endpoint: Endpoint) -> bool {
        match endpoint {
            Endpoint::Token => !self.token_endpoint.is_empty(),
            Endpoint::Authorization => self.authorization_endpoint.is_some(),
            Endpoint::Introspection => self.introspection_endpoint.is_some(),
            Endpoint::Revocation => self.revocation_endpoint.is_some(),
        }
    }
}

fn of_no_use(registration: &Registration, issuer: &str, problem: &str) -> Failure {
    let message = format!(
        "the endpoints of {issuer} cannot be discovered ({problem}): correct issuer, or set token_endpoint; no token was sent"
    );
    Failure { binds: Binds::Configuration(registration.fingerprint.clone()), ..Failure::new("bad_answer", message) }
}

fn not_reached(issuer: &str, failed: Failed) -> Failure {
    let (failure, what) = match failed {
        Failed::NotSent(failure) => {
            let what = failure.message.clone();
            (failure, what)
        }
        Failed::Unknown(failure) => (failure, "the server gave no answer in time, or the connection broke".to_owned()),
    };
    let message = format!("the endpoints of {issuer} cannot be discovered: {what}; no token was sent");
    Failure { message, ..failure }
}

#[cfg(test)]
#[path = "discovery_tests.rs"]
mod tests;
