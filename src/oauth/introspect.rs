//! Token introspection (RFC 7662).

use serde::Deserialize;

use super::discovery::{self, Endpoint};
use super::http::{Failed, Http, Method, Request, form};
use super::server_error::{Scrub, ServerError, failure, said};
use super::{Deadline, Failure, client_auth, endpoints};
use crate::config::Registration;
use crate::secret::Secret;
use crate::session::record::Binds;
use crate::token::{Age, Members, Times};

/// [`Failure::reason`] if the server has no introspection endpoint that we know.
pub const NO_INTROSPECTION_ENDPOINT: &str = "no_introspection_endpoint";

/// What a server says of a token (RFC 7662 §2.2).
#[derive(Debug)]
pub struct Introspection {
    /// The whole answer, a JSON object.
    pub json: Secret,
    /// The token can be used.
    pub active: bool,
}

#[derive(Deserialize)]
struct Active {
    active: bool,
}

impl Introspection {
    /// The life of the token in seconds, counted from this Unix time.
    pub fn life_s(&self, from_s: f64, age: Age) -> Option<i64> {
        let times: Times = serde_json::from_str(self.json.expose()).ok()?;
        times.life_s(from_s, age).filter(|_| self.active)
    }
}

/// Asks the server about an access token.
pub fn introspect(
    http: &Http,
    registration: &Registration,
    access_token: &Secret,
    deadline: Deadline,
) -> Result<Introspection, Failure> {
    let registration = &*discovery::resolve(http, registration, &[Endpoint::Introspection], deadline)?;
    let Some(endpoint) = &registration.introspection_endpoint else {
        let message = "the server has no introspection endpoint that we know: set introspection_endpoint".to_owned();
        return Err(Failure { binds: Binds::All, ..Failure::new(NO_INTROSPECTION_ENDPOINT, message) });
    };
    let authentication = client_auth::authenticate(registration, deadline)?;
    let mut parameters = vec![("token", access_token.expose()), ("token_type_hint", "access_token")];
    parameters.extend(authentication.parameters());
    let request = Request {
        method: Method::Post,
        endpoint,
        user_agent: &registration.user_agent,
        authorization: authentication.authorization(),
        headers: Vec::new(),
        form: Some(form(parameters.iter().copied())),
    };
    let response = http.send(&request, deadline, &|| Ok(())).map_err(|failed| match failed {
        Failed::NotSent(failure) | Failed::Unknown(failure) => failure,
    })?;
    let scrub = Scrub::new(registration, access_token);
    let host = endpoints::host(endpoint);
    if response.status == 200 {
        let text = std::str::from_utf8(&response.body).ok();
        let json = text.filter(|text| Members::parse(text).is_ok());
        if let Some((json, Active { active })) = json.and_then(|json| Some((json, serde_json::from_str(json).ok()?))) {
            return Ok(Introspection { json: Secret::new(json.trim()), active });
        }
    }
    let error = ServerError::read(&response.body);
    let code = error.as_ref().map(|error| error.error.as_str());
    let (why, advice) = match (response.status, code) {
        (200, None) => (("bad_answer", Binds::All), "expected a JSON object with active: true or false"),
        (429 | 500..=599, _) | (_, Some("server_error" | "temporarily_unavailable")) => {
            (("server_unavailable", Binds::All), "try again later")
        }
        (200..=299 | 400..=499, Some(_)) => (
            ("client_refused", Binds::Configuration(registration.fingerprint.clone())),
            "check that this client authenticates, and may introspect",
        ),
        _ => (("bad_answer", Binds::All), "check introspection_endpoint"),
    };
    let said = said(&response, error.as_ref(), &scrub);
    let message = format!("{host} did not say anything of the access token ({said}): {advice}");
    Err(failure(&response, error.as_ref(), &scrub, why, message))
}

#[cfg(test)]
#[path = "introspect_tests.rs"]
mod tests;
