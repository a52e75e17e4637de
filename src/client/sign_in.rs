//! Sign-in: its JSON, checked.

use serde_json::json;
use serde_json::value::RawValue;

use super::{Client, checked, object};
use crate::config::{RESERVED_AT_AUTHORIZE, check_text};
use crate::error::{Error, Result};
use crate::oauth::sign_in::{Credentials, SignIn, Wish, check_redirect_uri, with_password};
use crate::process::tasks::block_on;
use crate::secret::Secret;
use crate::token::Members;

impl Client {
    /// Starts a sign-in with an authorization code and PKCE: the URL to send the user to, and what
    /// [`Client::sign_in_finish`] needs, as JSON.
    pub fn sign_in_start(&self, request_json: &str) -> Result<Secret> {
        let renewer = self.renewer()?;
        renewer.check_open("")?;
        let request = Request::read(request_json, &["redirect_uri", "scope", "extra"])?;
        let wish = request.wish()?;
        let registration = &self.config.registration;
        let (authorization_url, sign_in) = SignIn::begin(registration, &wish)?;
        Ok(Secret::new(
            json!({
                "authorization_url": authorization_url.expose(),
                "state": sign_in.state.expose(),
                "code_verifier": sign_in.code_verifier.expose(),
                "redirect_uri": sign_in.redirect_uri,
                "client_id": registration.client_id,
            })
            .to_string(),
        ))
    }

    /// Finishes it: checks the URL that the user came back to, exchanges the code and saves the session. Returns its
    /// token, as [`Client::token`] does.
    pub fn sign_in_finish(&self, session: &str, sign_in_json: &str, redirect_url: &str) -> Result<Secret> {
        block_on(self.wait_for_sign_in(session, sign_in_json, redirect_url))
    }

    pub(crate) async fn wait_for_sign_in(&self, session: &str, sign_in: &str, redirect_url: &str) -> Result<Secret> {
        let renewer = self.renewer()?;
        let slot = renewer.slot(checked(session)?);
        self.check_signs_in()?;
        let sign_in = self.sign_in_from(sign_in)?;
        let code = sign_in.code(&self.config.registration, redirect_url).map_err(|error| error.about(session))?;
        renewer.sign_in(&slot, move |http, registration, gate| sign_in.exchange(http, registration, &code, gate)).await
    }

    /// Signs a user of a Salesforce site in by name and password, and saves the session. Returns its token, as
    /// [`Client::token`] does.
    pub fn sign_in_with_password(&self, session: &str, request_json: &str) -> Result<Secret> {
        block_on(self.wait_for_password(session, request_json))
    }

    pub(crate) async fn wait_for_password(&self, session: &str, request_json: &str) -> Result<Secret> {
        const NAMES: &[&str] = &["username", "password", "redirect_uri", "scope", "credentials_in"];
        let renewer = self.renewer()?;
        let slot = renewer.slot(checked(session)?);
        self.check_signs_in()?;
        let request = Request::read(request_json, NAMES)?;
        if self.config.registration.site_url.is_none() {
            return Err(Error::invalid(
                "configuration key \"site_url\": a sign-in by name and password needs it: only Salesforce's sites have that \
                 flow; send users of other servers to a browser (sign_in_start)",
            ));
        }
        let wish = request.wish()?;
        let credentials = request.credentials()?;
        let exchange = move |http: &_, registration: &_, gate: &dyn Fn() -> std::result::Result<(), String>| {
            with_password(http, registration, &wish, &credentials, gate)
        };
        renewer.sign_in(&slot, exchange).await
    }

    fn check_signs_in(&self) -> Result<()> {
        match self.config.renews {
            true => Ok(()),
            false => Err(Error::invalid("this client has renews: false: it signs nobody in")),
        }
    }

    /// What [`Client::sign_in_start`] gave out, handed back.
    fn sign_in_from(&self, json: &str) -> Result<SignIn> {
        let members = object("sign_in_json", json)?;
        let text = |name: &str| {
            let text = members.text(name).filter(|text| !text.is_empty());
            text.ok_or_else(|| {
                Error::invalid(format!("sign_in_json: it has no {name}: hand back the whole answer of sign_in_start"))
            })
        };
        if text("client_id")? != self.config.registration.client_id {
            return Err(Error::invalid(
                "sign_in_json: it was started by a client of another client_id: finish it with a client of the same \
                 configuration",
            ));
        }
        Ok(SignIn {
            state: Secret::new(text("state")?),
            code_verifier: Secret::new(text("code_verifier")?),
            redirect_uri: text("redirect_uri")?,
            issuer: members.text("issuer"),
        })
    }
}

/// What a sign-in is asked for with.
#[derive(Default)]
struct Request {
    redirect_uri: Option<String>,
    scope: Option<String>,
    extra: Vec<(String, Secret)>,
    username: Option<Secret>,
    password: Option<Secret>,
    in_body: bool,
}

impl Request {
    /// A null member counts as absent. No error shows a value: it could be a password.
    fn read(json: &str, names: &[&str]) -> Result<Self> {
        let members = object("request_json", json)?;
        if let Some(name) = &members.duplicate {
            return Err(wrong(name, "it is there twice"));
        }
        let mut request = Self::default();
        for (name, raw) in members.list.iter().filter(|(_, raw)| raw.get() != "null") {
            if !names.contains(&name.as_str()) {
                return Err(wrong(name, &format!("there is no such member; there are {}", names.join(", "))));
            }
            let text = || text(raw).map_err(|problem| wrong(name, problem));
            match name.as_str() {
                "redirect_uri" => request.redirect_uri = Some(text()?.expose().to_owned()),
                "scope" => request.scope = Some(text()?.expose().to_owned()),
                "username" => request.username = Some(text()?),
                "password" => request.password = Some(password(raw).map_err(|problem| wrong(name, problem))?),
                "credentials_in" => {
                    request.in_body = match text()?.expose() {
                        "header" => false,
                        "body" => true,
                        _ => return Err(wrong(name, "expected \"header\" or \"body\"")),
                    };
                }
                _ => request.extra = extra(raw).map_err(|problem| wrong(name, &problem))?,
            }
        }
        Ok(request)
    }

    fn wish(&self) -> Result<Wish> {
        let redirect_uri = self.redirect_uri.clone().ok_or_else(|| wrong("redirect_uri", "it is missing"))?;
        check_redirect_uri(&redirect_uri).map_err(|problem| wrong("redirect_uri", &problem))?;
        Ok(Wish { redirect_uri, scope: self.scope.clone(), extra: self.extra.clone() })
    }

    fn credentials(self) -> Result<Credentials> {
        let username = self.username.ok_or_else(|| wrong("username", "it is missing"))?;
        let password = self.password.ok_or_else(|| wrong("password", "it is missing"))?;
        if !self.in_body && username.expose().contains(':') {
            return Err(wrong("username", "with a colon it must go into the body: set credentials_in to \"body\""));
        }
        Ok(Credentials { username, password, in_body: self.in_body })
    }
}

fn wrong(name: &str, problem: &str) -> Error {
    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    Error::invalid(format!("request_json: {name}: {problem}"))
}

fn text(raw: &RawValue) -> std::result::Result<Secret, &'static str> {
    let text = password(raw)?;
    check_text(text.expose()).map(|()| text)
}

/// Any text but none.
fn password(raw: &RawValue) -> std::result::Result<Secret, &'static str> {
    let text: Secret = serde_json::from_str(raw.get()).map_err(|_| "expected a string")?;
    if text.expose().is_empty() { Err("it is empty") } else { Ok(text) }
}

/// Further parameters of the authorization request.
fn extra(raw: &RawValue) -> std::result::Result<Vec<(String, Secret)>, String> {
    let expected = || "expected an object whose values are strings".to_owned();
    let members = Members::parse(raw.get()).map_err(|_| expected())?;
    if members.duplicate.is_some() {
        return Err("a parameter is there twice".to_owned());
    }
    if let Some(name) = RESERVED_AT_AUTHORIZE.iter().find(|name| members.get(name).is_some()) {
        return Err(format!("\"{name}\" is set by the flow itself"));
    }
    let read = |(name, raw): (String, &RawValue)| Ok((name, serde_json::from_str(raw.get()).map_err(|_| expected())?));
    members.list.into_iter().map(read).collect()
}
