//! The refresh token grant (RFC 6749 §6): one request, and what its answer means.

use std::borrow::Cow;

use super::client_auth::Authentication;
use super::discovery::{self, Endpoint};
use super::http::{Failed, Http, Method, Request, Response, form};
use super::salesforce::Verdict;
use super::server_error::{Scrub, ServerError, failure, said};
use super::{Deadline, Failure, Outcome, client_auth, endpoints, salesforce};
use crate::config::{BasicEncoding, ClientAuth, ParametersIn, Registration};
use crate::secret::Secret;
use crate::session::record::Binds;
use crate::token::{self, Age};

/// Too many logins: nobody tries again sooner.
const THROTTLED_MS: u64 = 60_000;

/// Presents `refresh_token` once.
///
/// `gate` is asked right before the first byte leaves; an error there, and lateness, are [`Outcome::NotSent`].
pub fn refresh(
    http: &Http,
    registration: &Registration,
    refresh_token: &Secret,
    deadline: Deadline,
    gate: &dyn Fn() -> Result<(), String>,
) -> Outcome {
    let registration = match discovery::resolve(http, registration, &[Endpoint::Token], deadline) {
        Ok(registration) => registration,
        Err(failure) => return Outcome::NotSent(failure),
    };
    let registration = &*registration;
    let authentication = match client_auth::authenticate(registration, deadline) {
        Ok(authentication) => authentication,
        Err(failure) => return Outcome::NotSent(failure),
    };
    match http.send(&request(registration, refresh_token, &authentication), deadline, gate) {
        Ok(response) => {
            let endpoint = &registration.token_endpoint;
            let presented = Presented::RefreshToken;
            Reading { registration, endpoint, token: refresh_token, presented, response }.outcome()
        }
        Err(Failed::NotSent(failure)) => Outcome::NotSent(failure),
        Err(Failed::Unknown(failure)) => Outcome::Unknown(failure),
    }
}

fn request<'a>(
    registration: &'a Registration,
    refresh_token: &'a Secret,
    authentication: &'a Authentication<'_>,
) -> Request<'a> {
    let mut parameters = vec![("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose())];
    parameters.extend(authentication.parameters());
    parameters.extend(registration.scope.as_deref().map(|scope| ("scope", scope)));
    parameters.extend(registration.refresh_parameters.iter().map(|(name, value)| (name.as_str(), value.expose())));
    let (headers, form) = match registration.parameters_in {
        ParametersIn::Body => (Vec::new(), Some(form(parameters.iter().copied()))),
        ParametersIn::Headers => {
            let header = |(name, value): (&'a str, &str)| (Cow::Borrowed(name), Secret::new(value));
            (parameters.into_iter().map(header).collect(), None)
        }
    };
    Request {
        method: Method::Post,
        endpoint: &registration.token_endpoint,
        user_agent: &registration.user_agent,
        authorization: authentication.authorization(),
        headers,
        form,
    }
}

/// The grant that a request for tokens is made with.
#[derive(Clone, Copy)]
pub(super) enum Presented<'a> {
    /// RFC 6749 §6.
    RefreshToken,
    /// RFC 6749 §4.1.3, RFC 7636 §4.5.
    Code { verifier: &'a Secret },
}

/// A token endpoint's answer being understood.
pub(super) struct Reading<'a> {
    pub registration: &'a Registration,
    pub endpoint: &'a str,
    /// The refresh token or the code.
    pub token: &'a Secret,
    pub presented: Presented<'a>,
    pub response: Response,
}

impl Reading<'_> {
    pub fn outcome(&self) -> Outcome {
        if matches!(self.response.status, 200..=299) {
            return self.success();
        }
        let error = ServerError::read(&self.response.body);
        match (self.response.status, &error) {
            (429, _) => Outcome::NotSent(self.unavailable(error.as_ref(), "it asks to wait")),
            (500..=599, _) => {
                Outcome::Unknown(self.unavailable(error.as_ref(), "whether it carried out the request is not known"))
            }
            (300..=399, _) => Outcome::Unknown(self.redirect()),
            (400..=499, Some(error)) if self.response.status != 408 => self.refusal(error),
            _ => Outcome::Unknown(self.bad_answer("there is no OAuth error in it: check the URL")),
        }
    }

    fn success(&self) -> Outcome {
        let Ok(text) = std::str::from_utf8(&self.response.body) else {
            return Outcome::Unknown(self.bad_answer("it is not UTF-8"));
        };
        let token::Parsed { mut answer, not_bearer, .. } = match token::parse(text, Age::New) {
            Ok(parsed) => parsed,
            Err(problem) => return Outcome::Unknown(self.bad_answer(&format!("it is {problem}"))),
        };
        if answer.refresh_token.is_some() || answer.access_token.is_some() {
            answer.signature_mismatch = client_auth::secret(self.registration)
                .is_some_and(|secret| salesforce::signature_mismatch(answer.members.expose(), secret));
            return Outcome::Done(Box::new(answer));
        }
        let problem = answer.unusable.unwrap_or_default();
        match ServerError::read(&self.response.body) {
            // Some servers say no with HTTP 200.
            Some(error) => self.refusal(&error),
            None if not_bearer => {
                let mut failure = self.bad_answer(&format!("{problem}: this library sends bearer tokens only"));
                failure.binds = self.binds_configuration();
                Outcome::Refused(failure)
            }
            None => Outcome::Unknown(self.bad_answer(&problem)),
        }
    }

    fn refusal(&self, error: &ServerError) -> Outcome {
        let code = error.error.to_ascii_lowercase();
        let description = error.description.as_deref().unwrap_or_default();
        let at_refresh = matches!(self.presented, Presented::RefreshToken);
        let what = if at_refresh { "refresh token" } else { "code" };
        let verdict = salesforce::verdict(&code, description, at_refresh).or(match code.as_str() {
            // The latter two are GitHub's and Slack's words for it; so are those below.
            "invalid_grant" | "bad_refresh_token" | "invalid_refresh_token" if at_refresh => {
                Some(Verdict::Dead(death(description)))
            }
            "invalid_grant" | "bad_verification_code" | "invalid_code" if !at_refresh => {
                Some(Verdict::Dead("code_refused"))
            }
            "server_error" | "temporarily_unavailable" => None,
            _ => Some(Verdict::Refused),
        });
        match verdict {
            Some(Verdict::Dead(reason)) => {
                let no_longer = if at_refresh { "no longer accepts" } else { "does not accept" };
                let message = format!("{} {no_longer} the {what}: {}", self.host(), self.said(Some(error)));
                Outcome::InvalidGrant(self.failure(Some(error), (reason, Binds::All), message))
            }
            Some(Verdict::Busy) => Outcome::Busy(
                self.unavailable(Some(error), &format!("another request with the same {what} is under way there")),
            ),
            Some(Verdict::Throttled) => {
                let mut failure = self.unavailable(Some(error), "too many logins: wait, and share access tokens");
                failure.retry_after_ms = Some(failure.retry_after_ms.unwrap_or(0).max(THROTTLED_MS));
                Outcome::Refused(failure)
            }
            Some(Verdict::Refused) => {
                let message =
                    format!("{} refuses this client: {}; {}", self.host(), self.said(Some(error)), self.advice(&code));
                let why = ("client_refused", self.binds_configuration());
                Outcome::Refused(self.failure(Some(error), why, message))
            }
            None => Outcome::Unknown(self.unavailable(Some(error), "whether it carried out the request is not known")),
        }
    }

    /// What to do about a refusal: it names the keys.
    fn advice(&self, code: &str) -> String {
        match (code, &self.registration.client_auth) {
            ("invalid_client" | "invalid_client_id" | "invalid_client_credentials", ClientAuth::Basic { encoding, .. }) => {
                let (is, other) = match encoding {
                    BasicEncoding::Raw => ("raw", "form"),
                    BasicEncoding::Form => ("form", "raw"),
                };
                format!("check client_id and client_secret; if they are right, basic_encoding is \"{is}\" here: try \"{other}\"")
            }
            ("invalid_client" | "invalid_client_id" | "invalid_client_credentials", ClientAuth::Post { .. }) => {
                "check client_id and client_secret; if they are right, try client_auth \"client_secret_basic\" (its key \
                 basic_encoding says what is encoded)"
                    .into()
            }
            ("invalid_client" | "invalid_client_id" | "invalid_client_credentials", ClientAuth::None) => {
                "check client_id; if it is right, this server may want a client_secret (sent as basic_encoding says)".into()
            }
            ("invalid_client" | "invalid_client_id" | "invalid_client_credentials", ClientAuth::PrivateKeyJwt { .. }) => {
                "check client_id, key_id and private_key_file, and that the server has the public key; if they are right, \
                 it may want another assertion_algorithm or assertion_audience, or this machine's clock is wrong"
                    .into()
            }
            ("unsupported_grant_type", _) if self.registration.parameters_in == ParametersIn::Headers => {
                "parameters_in is \"headers\", which this server does not seem to read: leave that key out".into()
            }
            ("unsupported_grant_type", _) => "check that site_url or token_endpoint is the right URL".into(),
            ("invalid_scope", _) => "check scope".into(),
            ("redirect_uri_mismatch", _) => "register redirect_uri with the client there".into(),
            _ => "check the configuration and the client's registration there".into(),
        }
    }

    fn redirect(&self) -> Failure {
        let to = match &self.response.redirects_to {
            // A path is on the same host.
            Some(location) if location.contains("//") => endpoints::host(location),
            _ => self.host(),
        };
        let to = self.scrub().clean(&to, 100);
        let message = format!(
            "{} answered with a redirect to {to} (HTTP {}); redirects are not followed, they would carry secrets: correct \
             site_url or token_endpoint",
            self.host(),
            self.response.status
        );
        self.failure(None, ("bad_answer", self.binds_configuration()), message)
    }

    fn bad_answer(&self, problem: &str) -> Failure {
        let message = format!("{} gave an answer that is of no use ({}): {problem}", self.host(), self.said(None));
        self.failure(None, ("bad_answer", Binds::All), message)
    }

    fn unavailable(&self, error: Option<&ServerError>, what: &str) -> Failure {
        let message = format!("{} cannot answer now ({}): {what}", self.host(), self.said(error));
        self.failure(error, ("server_unavailable", Binds::All), message)
    }

    fn failure(&self, error: Option<&ServerError>, why: (&'static str, Binds), message: String) -> Failure {
        failure(&self.response, error, &self.scrub(), why, message)
    }

    fn said(&self, error: Option<&ServerError>) -> String {
        said(&self.response, error, &self.scrub())
    }

    fn scrub(&self) -> Scrub {
        let scrub = Scrub::new(self.registration, self.token);
        match self.presented {
            Presented::RefreshToken => scrub,
            Presented::Code { verifier } => scrub.and(verifier),
        }
    }

    fn host(&self) -> String {
        endpoints::host(self.endpoint)
    }

    fn binds_configuration(&self) -> Binds {
        Binds::Configuration(self.registration.fingerprint.clone())
    }
}

/// Why a refresh token is dead, as far as the server says it. Most say the same for one that has expired, was revoked or
/// was used by somebody else; only plain words of expiry rule out the last.
fn death(description: &str) -> &'static str {
    let description = description.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| description.contains(word));
    let expired = says(&["expire", "inactivity", "not active"]);
    let or_else = says(&["revoke", "invalid", "used", "access/refresh"]);
    if expired && !or_else { "expired_or_revoked" } else { "used_elsewhere_or_revoked" }
}

#[cfg(test)]
#[path = "refresh_tests.rs"]
pub(super) mod tests;
