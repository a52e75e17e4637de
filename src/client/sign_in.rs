//! Sign-in: its JSON, checked.

use std::time::Duration;

use serde_json::json;
use serde_json::value::RawValue;

use super::{Client, checked, object};
use crate::browser::{Browser, Loopback};
use crate::config::{RESERVED_AT_AUTHORIZE, check_text};
use crate::error::{Error, Result, Status};
use crate::oauth::sign_in::{Credentials, SignIn, Wish, check_redirect_uri, with_password};
use crate::process::lock;
use crate::process::tasks::block_on;
use crate::secret::Secret;
use crate::sync::Instant;
use crate::token::Members;

/// How long a user may take at the server's pages, if nobody says it.
const MAX_WAIT: Duration = Duration::from_secs(300);
const LONGEST_WAIT_MS: u64 = 3_600_000;
/// Sign-ins that were started and given up hold a port each; the oldest goes first.
const MOST_LISTENING: usize = 64;
/// How often a wait looks whether the browser has come.
const LOOK: Duration = Duration::from_millis(20);

/// A sign-in whose answer comes to this process.
pub(super) struct Listening {
    sign_in: SignIn,
    loopback: Loopback,
    until: Instant,
}

impl Client {
    /// Starts a sign-in with an authorization code and PKCE: the URL to send the user to, and what
    /// [`Client::sign_in_finish`] needs, as JSON.
    pub fn sign_in_start(&self, request_json: &str) -> Result<Secret> {
        block_on(self.wait_to_start(request_json))
    }

    pub(crate) async fn wait_to_start(&self, request_json: &str) -> Result<Secret> {
        let link = self.link()?;
        link.renewer.check_open("")?;
        let request = Request::read(request_json, &["redirect_uri", "scope", "extra", "listen", "max_wait_ms"])?;
        if request.max_wait.is_some() && !request.listen {
            return Err(wrong("max_wait_ms", "it is for \"listen\": true"));
        }
        if !request.listen {
            let wish = request.wish()?;
            let registration = link.renewer.signs_in_at().await?;
            let (authorization_url, sign_in) = SignIn::begin(&registration, &wish)?;
            return Ok(self.given_out(&authorization_url, &sign_in));
        }
        let (authorization_url, listening) = self.listen(&request).await?;
        let json = self.given_out(&authorization_url, &listening.sign_in);
        let mut all = lock(&link.listening);
        let now = Instant::now();
        all.retain(|listening| listening.until > now);
        if all.len() >= MOST_LISTENING {
            all.remove(0);
        }
        all.push(listening);
        Ok(json)
    }

    fn given_out(&self, authorization_url: &Secret, sign_in: &SignIn) -> Secret {
        let mut json = json!({
            "authorization_url": authorization_url.expose(),
            "state": sign_in.state.expose(),
            "code_verifier": sign_in.code_verifier.expose(),
            "redirect_uri": sign_in.redirect_uri,
            "client_id": self.config.registration.client_id,
        });
        if let Some(issuer) = &sign_in.issuer {
            json["issuer"] = issuer.as_str().into();
        }
        Secret::new(json.to_string())
    }

    /// Finishes it: checks the URL that the user came back to, exchanges the code and saves the session. Returns its
    /// token, as [`Client::token`] does. Without a URL it waits for the user, if it was started with `listen`.
    pub fn sign_in_finish(&self, session: &str, sign_in_json: &str, redirect_url: Option<&str>) -> Result<Secret> {
        block_on(self.wait_for_sign_in(session, sign_in_json, redirect_url))
    }

    pub(crate) async fn wait_for_sign_in(
        &self,
        session: &str,
        sign_in_json: &str,
        redirect_url: Option<&str>,
    ) -> Result<Secret> {
        let link = self.link()?;
        link.renewer.check_open(checked(session)?)?;
        self.check_signs_in()?;
        if let Some(url) = redirect_url {
            return self.finish(session, self.sign_in_from(sign_in_json)?, url).await;
        }
        let state = object("sign_in_json", sign_in_json)?.text("state").map(Secret::new);
        let listening = {
            let mut all = lock(&link.listening);
            let at = all.iter().position(|listening| Some(&listening.sign_in.state) == state.as_ref());
            at.map(|at| all.remove(at))
        };
        let listening = listening.ok_or_else(|| {
            Error::invalid(
                "redirect_url: it is needed: this client does not listen for this sign-in's answer, or not any more",
            )
        })?;
        self.wait_for_answer(session, listening, None).await
    }

    /// Signs a user in with a browser of this machine, and saves the session. Returns its token, as [`Client::token`]
    /// does.
    pub fn sign_in_with_browser(&self, session: &str, request_json: &str) -> Result<Secret> {
        block_on(self.wait_for_browser(session, request_json))
    }

    pub(crate) async fn wait_for_browser(&self, session: &str, request_json: &str) -> Result<Secret> {
        self.renewer()?.check_open(checked(session)?)?;
        self.check_signs_in()?;
        let request = Request::read(request_json, &["redirect_uri", "scope", "extra", "max_wait_ms"])?;
        let (authorization_url, listening) = self.listen(&request).await?;
        let browser = Browser::open(authorization_url).map_err(|trouble| no_browser(session, &trouble))?;
        self.wait_for_answer(session, listening, Some(browser)).await
    }

    /// Begins a sign-in whose answer comes to this process.
    async fn listen(&self, request: &Request) -> Result<(Secret, Listening)> {
        if let Some(uri) = &request.redirect_uri {
            check_redirect_uri(uri).map_err(|problem| wrong("redirect_uri", &problem))?;
        }
        let loopback = Loopback::listen(request.redirect_uri.as_deref());
        let loopback = loopback.map_err(|problem| wrong("redirect_uri", &problem))?;
        let wish = Wish { redirect_uri: loopback.redirect_uri.clone(), ..request.asks_for() };
        let registration = self.renewer()?.signs_in_at().await?;
        let (authorization_url, sign_in) = SignIn::begin(&registration, &wish)?;
        let until = Instant::now() + request.max_wait.unwrap_or(MAX_WAIT);
        Ok((authorization_url, Listening { sign_in, loopback, until }))
    }

    async fn wait_for_answer(
        &self,
        session: &str,
        mut listening: Listening,
        mut browser: Option<Browser>,
    ) -> Result<Secret> {
        let renewer = self.renewer()?;
        let slot = renewer.slot(session);
        loop {
            let trouble = browser.as_mut().and_then(Browser::trouble);
            let Listening { sign_in, loopback, until } = &mut listening;
            if let Some(url) = loopback.look(|url| sign_in.is_answered_by(url)) {
                return self.finish(session, listening.sign_in, url.expose()).await;
            }
            renewer.check_open(session)?;
            if let Some(trouble) = trouble {
                return Err(no_browser(session, &trouble));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let message = format!(
                    "session {session:?}: your wait ended before the user came back from the browser; nobody was \
                     signed in, and the session, if there was one, is as it was"
                );
                return Err(Error::new(Status::TimedOut, message).about(session));
            }
            // The session wakes those who wait for it when the client is closed.
            slot.changed(LOOK.min(left), || renewer.is_closing()).await;
        }
    }

    async fn finish(&self, session: &str, sign_in: SignIn, redirect_url: &str) -> Result<Secret> {
        let renewer = self.renewer()?;
        let slot = renewer.slot(session);
        let registration = renewer.signs_in_at().await.map_err(|error| error.about(session))?;
        let code = sign_in.code(&registration, redirect_url).map_err(|error| error.about(session))?;
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
                "configuration key \"site_url\": a sign-in by name and password needs it: only Salesforce's sites have \
                 that flow; send users of other servers to a browser (sign_in_start)",
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
    listen: bool,
    max_wait: Option<Duration>,
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
                "listen" => {
                    let flag = serde_json::from_str(raw.get());
                    request.listen = flag.map_err(|_| wrong(name, "expected true or false"))?;
                }
                "max_wait_ms" => {
                    let ms = raw.get().parse().ok().filter(|ms| *ms <= LONGEST_WAIT_MS);
                    let ms = ms.ok_or_else(|| wrong(name, "expected a whole number from 0 to 3600000"))?;
                    request.max_wait = Some(Duration::from_millis(ms));
                }
                _ => request.extra = extra(raw).map_err(|problem| wrong(name, &problem))?,
            }
        }
        Ok(request)
    }

    fn wish(&self) -> Result<Wish> {
        let redirect_uri = self.redirect_uri.clone().ok_or_else(|| wrong("redirect_uri", "it is missing"))?;
        check_redirect_uri(&redirect_uri).map_err(|problem| wrong("redirect_uri", &problem))?;
        Ok(Wish { redirect_uri, ..self.asks_for() })
    }

    /// The same for an answer that goes to a place which is not known yet.
    fn asks_for(&self) -> Wish {
        Wish { redirect_uri: String::new(), scope: self.scope.clone(), extra: self.extra.clone() }
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

fn no_browser(session: &str, trouble: &str) -> Error {
    let message = format!(
        "session {session:?}: no browser could be opened ({trouble}): set the environment variable BROWSER to a \
         program that opens URLs; or start the sign-in with \"listen\": true, and show authorization_url to the user"
    );
    Error::invalid(message).because("no_browser").about(session)
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
