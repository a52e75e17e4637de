//! Sign-in: the authorization code flow with PKCE (RFC 6749 §4.1, RFC 7636, RFC 9207), and Salesforce's Authorization
//! Code and Credentials flow, which has no browser in it.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use percent_encoding::percent_decode_str;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac};

use super::discovery::{self, Endpoint};
use super::http::{Failed, Http, Method, Request, Response, form};
use super::refresh::{Presented, Reading};
use super::server_error::{Scrub, ServerError, failure, said};
use super::{Deadline, Failure, Outcome, client_auth, endpoints, salesforce};
use crate::config::Registration;
use crate::error::{Error, Result, Status};
use crate::secret::Secret;
use crate::session::record::Binds;
use crate::token::Answer;

/// What an authorization request asks for.
pub struct Wish {
    /// RFC 6749 §3.1.2, checked by [`check_redirect_uri`].
    pub redirect_uri: String,
    /// RFC 6749 §3.3.
    pub scope: Option<String>,
    /// Further parameters, instead of configured ones of the same name.
    pub extra: Vec<(String, Secret)>,
}

/// An authorization request that waits for its answer.
#[derive(Clone, Debug)]
pub struct SignIn {
    /// Comes back with the answer (RFC 6749 §10.12).
    pub state: Secret,
    /// RFC 7636 §4.1.
    pub code_verifier: Secret,
    /// Where the answer goes.
    pub redirect_uri: String,
    /// Which server the answer must be of (RFC 9207 §2.4), if that is known.
    pub issuer: Option<String>,
}

/// A user of a Salesforce site.
pub struct Credentials {
    /// The name.
    pub username: Secret,
    /// The password.
    pub password: Secret,
    /// They are sent as parameters, not in `Authorization`.
    pub in_body: bool,
}

/// An authorization code, and where it is exchanged.
#[derive(Debug)]
pub struct Code {
    code: Secret,
    /// Salesforce's `sfdc_community_url`.
    site: Option<String>,
}

/// May an authorization answer go there? (RFC 6749 §3.1.2, RFC 8252 §7)
pub fn check_redirect_uri(uri: &str) -> std::result::Result<(), String> {
    let scheme = uri.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase()).unwrap_or_default();
    if matches!(scheme.as_str(), "http" | "https") {
        return endpoints::check_endpoint(uri).and_then(|kept| match kept == uri {
            true => Ok(()),
            false => Err("it begins or ends with a space".to_owned()),
        });
    }
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !is_scheme || uri.len() == scheme.len() + 1 || !uri.bytes().all(|byte| matches!(byte, b'!'..=b'~')) {
        return Err("not a complete URL: expected https://host/…, http://127.0.0.1/… or your-scheme:/…".to_owned());
    }
    if uri.contains('#') {
        return Err("a fragment (#…) does not belong there".to_owned());
    }
    Ok(())
}

impl SignIn {
    /// Begins one: the URL that the user's browser is to open, and what the answer will be checked against.
    pub fn begin(registration: &Registration, wish: &Wish) -> Result<(Secret, Self)> {
        let endpoint = registration.authorization_endpoint.as_deref().ok_or_else(|| {
            Error::invalid(
                "configuration key \"authorization_endpoint\": it is missing, and users sign in there: set it, site_url \
                 or issuer",
            )
        })?;
        let sign_in = Self { issuer: registration.issuer.clone(), ..Self::new(&wish.redirect_uri)? };
        let query = form(sign_in.parameters(registration, "code", wish).iter().map(|(name, value)| (*name, &**value)));
        let separator = if endpoint.contains('?') { '&' } else { '?' };
        Ok((Secret::new(format!("{endpoint}{separator}{}", query.expose())), sign_in))
    }

    fn new(redirect_uri: &str) -> Result<Self> {
        Ok(Self {
            state: random_text()?,
            code_verifier: random_text()?,
            redirect_uri: redirect_uri.to_owned(),
            issuer: None,
        })
    }

    /// The authorization request (RFC 6749 §4.1.1, RFC 7636 §4.3).
    fn parameters<'a>(
        &'a self,
        registration: &'a Registration,
        response_type: &'a str,
        wish: &'a Wish,
    ) -> Vec<(&'a str, Cow<'a, str>)> {
        let mut parameters: Vec<(&str, Cow<str>)> = vec![
            ("response_type", response_type.into()),
            ("client_id", (&registration.client_id).into()),
            ("redirect_uri", (&self.redirect_uri).into()),
            ("state", self.state.expose().into()),
            ("code_challenge", challenge(&self.code_verifier).into()),
            ("code_challenge_method", "S256".into()),
        ];
        let scope = wish.scope.as_deref().or(registration.scope.as_deref());
        parameters.extend(scope.map(|scope| ("scope", scope.into())));
        let configured = registration.authorize_parameters.iter();
        let configured = configured.filter(|(name, _)| !wish.extra.iter().any(|(other, _)| other == name));
        let further = configured.chain(&wish.extra);
        parameters.extend(further.map(|(name, value)| (name.as_str(), value.expose().into())));
        parameters
    }

    /// Whether a URL is the answer to this request, good or bad.
    pub fn is_answered_by(&self, url: &str) -> bool {
        Answered::read(&self.redirect_uri, url)
            .and_then(|answered| answered.one("state"))
            .is_ok_and(|state| state.is_some_and(|state| same(&state, &self.state)))
    }

    /// The code in the URL that the user came back to (RFC 6749 §4.1.2).
    pub fn code(&self, registration: &Registration, url: &str) -> Result<Code> {
        let answered = Answered::read(&self.redirect_uri, url).map_err(wrong)?;
        let one = |name| answered.one(name).map_err(wrong);
        match one("state")? {
            Some(state) if same(&state, &self.state) => {}
            Some(_) => {
                let message = "its state is not that of this sign-in: it belongs to another one, or somebody made it up; \
                               start a new sign-in";
                return Err(wrong(message).because("state_mismatch"));
            }
            None => return Err(wrong("there is no state in it: give the whole URL, with its query")),
        }
        let iss = one("iss")?;
        if let (Some(expected), Some(iss)) = (&self.issuer, &iss)
            && expected != iss.expose()
        {
            let message = "its iss is not the issuer that the user was sent to: another server has answered, and \
                           nothing was sent to it";
            return Err(wrong(message).because("issuer_mismatch"));
        }
        if self.issuer.is_some() && iss.is_none() && registration.iss_in_answers {
            let message = "there is no iss in it, but the server says that its answers have one: another server may have \
                           answered, and nothing was sent to it";
            return Err(wrong(message).because("issuer_mismatch"));
        }
        if let Some(error) = one("error")? {
            let text = |name| Ok::<_, Error>(one(name)?.map(|text| text.expose().to_owned()));
            let error = ServerError {
                error: error.expose().to_owned(),
                description: text("error_description")?,
                uri: text("error_uri")?,
            };
            return Err(self.refusal(registration, &error));
        }
        let code = one("code")?.filter(|code| !code.expose().is_empty());
        let code =
            code.ok_or_else(|| wrong("there is no code in it, and no error: give the whole URL, with its query"))?;
        let site = one("sfdc_community_url")?.or(one("sfdc_site_url")?).map(|site| site.expose().to_owned());
        Ok(Code { code, site })
    }

    /// RFC 6749 §4.1.2.1, and OpenID Connect Core §3.1.2.6.
    fn refusal(&self, registration: &Registration, said: &ServerError) -> Error {
        let scrub = Scrub::new(registration, &self.code_verifier);
        let (status, reason, next) = match said.error.as_str() {
            "access_denied"
            | "login_required"
            | "interaction_required"
            | "consent_required"
            | "account_selection_required" => (
                Status::SignInRequired,
                "access_denied",
                "the user, or the server's policy, did not agree; sign in again",
            ),
            "server_error" | "temporarily_unavailable" => {
                (Status::Unavailable, "server_unavailable", "start a new sign-in later")
            }
            "invalid_scope" => (Status::Refused, "client_refused", "check scope"),
            _ => (Status::Refused, "client_refused", "check the configuration and the client's registration there"),
        };
        let shown =
            |text: &Option<String>| text.as_ref().map(|text| scrub.clean(text, 300)).filter(|text| !text.is_empty());
        let code = scrub.clean(&said.error, 100);
        let description = shown(&said.description);
        let words = description.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
        let host = endpoints::host(registration.authorization_endpoint.as_deref().unwrap_or_default());
        let mut error =
            Error::new(status, format!("{host} did not sign the user in: {code}{words}; {next}")).because(reason);
        error.error = Some(code);
        error.error_description = description;
        error.error_uri = shown(&said.uri);
        error
    }

    /// Exchanges the code (RFC 6749 §4.1.3, RFC 7636 §4.5).
    pub fn exchange(
        &self,
        http: &Http,
        registration: &Registration,
        code: &Code,
        gate: &dyn Fn() -> std::result::Result<(), String>,
    ) -> Result<Box<Answer>> {
        let outcome = self.present(http, registration, code, gate);
        let what_next = match &outcome {
            Outcome::Done(answer) => return Ok(answer.clone()),
            Outcome::NotSent(_) => "the code was not used: finish this sign-in again soon",
            Outcome::Refused(_) => "then sign in again",
            Outcome::InvalidGrant(_) => "a code works once, for a minute or so: the user must sign in again",
            Outcome::Busy(_) | Outcome::Unknown(_) => {
                "nobody can tell whether the code was used: the user must sign in again"
            }
        };
        let mut error = outcome.error(|failure| format!("{}; {what_next}", failure.message));
        if matches!(outcome, Outcome::Busy(_) | Outcome::Unknown(_)) {
            error.status = Status::SignInRequired;
        }
        Err(error)
    }

    fn present(
        &self,
        http: &Http,
        registration: &Registration,
        code: &Code,
        gate: &dyn Fn() -> std::result::Result<(), String>,
    ) -> Outcome {
        let deadline = Deadline::from_now(registration);
        let registration = match discovery::resolve(http, registration, &[Endpoint::Token], deadline) {
            Ok(registration) => registration,
            Err(failure) => return Outcome::NotSent(failure),
        };
        let registration = &*registration;
        let authentication = match client_auth::authenticate(registration, deadline) {
            Ok(authentication) => authentication,
            Err(failure) => return Outcome::NotSent(failure),
        };
        let endpoint = token_endpoint(registration, code.site.as_deref());
        let mut parameters = vec![
            ("grant_type", "authorization_code"),
            ("code", code.code.expose()),
            ("redirect_uri", &self.redirect_uri),
            ("code_verifier", self.code_verifier.expose()),
        ];
        parameters.extend(authentication.parameters());
        let request = Request {
            method: Method::Post,
            endpoint: &endpoint,
            user_agent: &registration.user_agent,
            authorization: authentication.authorization(),
            headers: Vec::new(),
            form: Some(form(parameters)),
        };
        match http.send(&request, deadline, gate) {
            Ok(response) => {
                let presented = Presented::Code { verifier: &self.code_verifier };
                Reading { registration, endpoint: &endpoint, token: &code.code, presented, response }.outcome()
            }
            Err(Failed::NotSent(failure)) => Outcome::NotSent(failure),
            Err(Failed::Unknown(failure)) => Outcome::Unknown(failure),
        }
    }
}

/// Signs a user of a Salesforce site in by name and password: one request for a code, one for the tokens. The redirect
/// that brings the code is read, and never followed.
pub fn with_password(
    http: &Http,
    registration: &Registration,
    wish: &Wish,
    credentials: &Credentials,
    gate: &dyn Fn() -> std::result::Result<(), String>,
) -> Result<Box<Answer>> {
    let endpoint = registration.authorization_endpoint.as_deref().unwrap_or_default();
    let sign_in = SignIn::new(&wish.redirect_uri)?;
    let (username, password) = (credentials.username.expose(), credentials.password.expose());
    let pair = Secret::new(format!("{username}:{password}"));
    let mut parameters = sign_in.parameters(registration, "code_credentials", wish);
    if credentials.in_body {
        parameters.extend([("username", username.into()), ("password", password.into())]);
    }
    let request = Request {
        method: Method::Post,
        endpoint,
        user_agent: &registration.user_agent,
        // The user's, not the client's.
        authorization: (!credentials.in_body).then(|| client_auth::basic_header(&pair)),
        headers: vec![("Auth-Request-Type".into(), Secret::new("Named-User"))],
        form: Some(form(parameters.iter().map(|(name, value)| (*name, &**value)))),
    };
    let response = http.send(&request, Deadline::from_now(registration), gate).map_err(|failed| match failed {
        Failed::NotSent(failure) => Outcome::NotSent(failure),
        Failed::Unknown(failure) => Outcome::Unknown(failure),
    });
    let response = response.map_err(|outcome| outcome.error(|failure| format!("{}; try again", failure.message)))?;
    if let (300..=399, Some(location)) = (response.status, &response.redirects_to)
        && Answered::read(&wish.redirect_uri, location).is_ok()
    {
        let code = sign_in.code(registration, location)?;
        return sign_in.exchange(http, registration, &code, gate);
    }
    Err(not_let_in(registration, endpoint, credentials, &response))
}

/// What a site says to a user whom it does not let in.
fn not_let_in(registration: &Registration, endpoint: &str, credentials: &Credentials, response: &Response) -> Error {
    let scrub = Scrub::new(registration, &credentials.password).and(&credentials.username);
    let error = ServerError::read(&response.body);
    let host = endpoints::host(endpoint);
    let said = said(response, error.as_ref(), &scrub);
    let words = error.as_ref().map(|error| error.error.to_ascii_lowercase()).unwrap_or_default();
    let configuration = || Binds::Configuration(registration.fingerprint.clone());
    let (outcome, reason, binds, message): (fn(Failure) -> Outcome, _, _, _) = match (response.status, words.as_str()) {
        (429 | 500..=599, _) | (_, "server_error" | "temporarily_unavailable") => {
            let message = format!("{host} cannot answer now ({said}); try again later");
            (Outcome::NotSent, "server_unavailable", Binds::All, message)
        }
        (401, _) | (_, "invalid_grant" | "access_denied" | "inactive_user" | "inactive_org") => {
            let hint = if credentials.in_body { "" } else { "; if they are right, try credentials_in \"body\"" };
            let message =
                format!("{host} did not sign the user in: {said}; check the user name and the password{hint}");
            (Outcome::InvalidGrant, "access_denied", Binds::All, message)
        }
        (400..=499, words) if !words.is_empty() => {
            let message = format!(
                "{host} refuses this client: {said}; check client_id, redirect_uri and scope, and that the app has the \
                 Authorization Code and Credentials flow enabled"
            );
            (Outcome::Refused, "client_refused", configuration(), message)
        }
        _ => {
            let message = format!(
                "{host} gave an answer that is of no use ({said}): neither a redirect to redirect_uri nor an OAuth \
                 error; check that site_url is the site of its users"
            );
            (Outcome::Refused, "bad_answer", configuration(), message)
        }
    };
    outcome(failure(response, error.as_ref(), &scrub, (reason, binds), message))
        .error(|failure| failure.message.clone())
}

/// Where a code is exchanged: a Salesforce site may name another path of its own.
fn token_endpoint<'a>(registration: &'a Registration, site: Option<&str>) -> Cow<'a, str> {
    let configured = registration.token_endpoint.as_str();
    let own = registration.site_url.as_deref().filter(|site| salesforce::endpoints(site).token == configured);
    match own.zip(site).and_then(|(own, named)| salesforce::site_for_code(own, named)) {
        Some(site) => salesforce::endpoints(&site).token.into(),
        // An explicit endpoint wins.
        None => configured.into(),
    }
}

/// The URL that a user came back to, taken apart.
struct Answered {
    parameters: Vec<(String, Secret)>,
}

impl Answered {
    /// The error says what is wrong without showing anything of the URL.
    fn read(redirect_uri: &str, url: &str) -> std::result::Result<Self, String> {
        let url = url.split('#').next().unwrap_or_default().trim();
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        if canonical(place) != canonical(redirect_uri.split('?').next().unwrap_or_default()) {
            return Err(
                "it is not at the redirect_uri of this sign-in: give the whole URL that the user came back to; \
                        behind a proxy, the query of the request after the redirect_uri"
                    .to_owned(),
            );
        }
        let decode = |text: &str| {
            let text = Secret::new(text.replace('+', " "));
            let decoded = percent_decode_str(text.expose()).decode_utf8().map(Cow::into_owned);
            decoded.map_err(|_| "its query is not UTF-8".to_owned())
        };
        let parameter = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, Secret::new(decode(value)?)))
        };
        let parameters = query.split('&').filter(|pair| !pair.is_empty()).map(parameter);
        Ok(Self { parameters: parameters.collect::<std::result::Result<_, String>>()? })
    }

    /// A parameter; it must not be there twice (RFC 6749 §3.1).
    fn one(&self, name: &str) -> std::result::Result<Option<Secret>, String> {
        let mut values = self.parameters.iter().filter(|(other, _)| other == name);
        let value = values.next().map(|(_, value)| value.clone());
        match values.next() {
            Some(_) => Err(format!("{name} is there twice")),
            None => Ok(value),
        }
    }
}

/// A private-use scheme (RFC 8252 §7.1) stands as it is.
fn canonical(url: &str) -> String {
    let is_http = ["http:", "https:"]
        .iter()
        .any(|scheme| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    if is_http { endpoints::canonical(url) } else { url.to_owned() }
}

fn wrong(problem: impl std::fmt::Display) -> Error {
    Error::invalid(format!("redirect_url: {problem}"))
}

/// Compares in constant time.
fn same(given: &Secret, expected: &Secret) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"evergrant state");
    let tag = hmac::sign(&key, expected.expose().as_bytes());
    hmac::verify(&key, given.expose().as_bytes(), tag.as_ref()).is_ok()
}

/// RFC 7636 §4.2.
fn challenge(verifier: &Secret) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.expose().as_bytes()))
}

/// 256 random bits in 43 characters (RFC 7636 §4.1).
fn random_text() -> Result<Secret> {
    let mut bytes = zeroize::Zeroizing::new([0; 32]);
    SystemRandom::new()
        .fill(&mut *bytes)
        .map_err(|_| Error::new(Status::Internal, "the operating system gave no random numbers; nothing was sent"))?;
    Ok(Secret::new(BASE64_URL_SAFE_NO_PAD.encode(*bytes)))
}
