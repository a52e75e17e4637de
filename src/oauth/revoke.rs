//! Token revocation (RFC 7009).

use super::discovery::{self, Endpoint};
use super::http::{Failed, Http, Method, Request, form};
use super::salesforce::{self, Verdict};
use super::server_error::{Scrub, ServerError, failure, said};
use super::{Deadline, Failure, client_auth, endpoints};
use crate::config::Registration;
use crate::secret::Secret;
use crate::session::record::Binds;

/// [`Failure::reason`] if the server has no revocation endpoint that we know: there is nothing to wait for.
pub const NO_REVOCATION_ENDPOINT: &str = "no_revocation_endpoint";

/// Has the server revoke `token`. A token that it does not know, or that is dead already, counts as revoked (§2.2).
///
/// `hint`: `refresh_token` or `access_token` (§2.1), or empty.
pub fn revoke(
    http: &Http,
    registration: &Registration,
    token: &Secret,
    hint: &str,
    deadline: Deadline,
) -> Result<(), Failure> {
    let registration = &*discovery::resolve(http, registration, &[Endpoint::Revocation], deadline)?;
    let Some(endpoint) = &registration.revocation_endpoint else {
        let message = "the server has no revocation endpoint that we know: set revocation_endpoint".to_owned();
        return Err(Failure { binds: Binds::All, ..Failure::new(NO_REVOCATION_ENDPOINT, message) });
    };
    let authentication = client_auth::authenticate(registration, deadline)?;
    let mut parameters = vec![("token", token.expose())];
    parameters.extend((!hint.is_empty()).then_some(("token_type_hint", hint)));
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
    let error = ServerError::read(&response.body);
    let description = error.as_ref().and_then(|error| error.description.as_deref()).unwrap_or_default();
    let code = error.as_ref().map(|error| error.error.as_str());
    let why = match (response.status, code, code.and_then(|code| salesforce::verdict(code, description, false))) {
        (200..=299, ..) => return Ok(()),
        (429 | 500..=599, ..)
        | (400..=499, Some("server_error" | "temporarily_unavailable"), _)
        | (400..=499, _, Some(Verdict::Busy | Verdict::Throttled)) => ("server_unavailable", Binds::All),
        // It may live again.
        (400..=499, _, Some(Verdict::Dead(reason))) => (reason, Binds::All),
        // Salesforce says either of the first two of a token that it does not know.
        (400..=499, Some("invalid_token" | "invalid_grant" | "unsupported_token_type"), None) => return Ok(()),
        (400..=499, Some(_), _) => ("client_refused", Binds::Configuration(registration.fingerprint.clone())),
        _ => ("bad_answer", Binds::All),
    };
    let scrub = Scrub::new(registration, token);
    let said = said(&response, error.as_ref(), &scrub);
    let message = format!("{} did not revoke the token: {said}", endpoints::host(endpoint));
    Err(failure(&response, error.as_ref(), &scrub, why, message))
}

#[cfg(test)]
#[path = "revoke_tests.rs"]
mod tests;
