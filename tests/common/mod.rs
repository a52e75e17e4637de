//! What the behaviour tests share: a server with a store of its own for every test, short readings of what a client
//! tells, and a second process.
#![allow(dead_code)] // Every test program uses a part of it.

pub mod authority;
mod party;
pub mod servers;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use evergrant::{Client, Error, Result, Secret, Status};
use evergrant_test_server::{Client as Registered, GraceKind, Mode, Options, Reuse, Rotation, Server, SignedIn};
use serde_json::{Value, json};
use tempfile::TempDir;

pub use party::Party;

pub const SESSION: &str = "alice";
pub const USER: &str = "user@example.com";
/// It differs raw, form-encoded and form-decoded.
pub const SECRET: &str = "s3cret+100%/=";

/// An authorization server, and a directory for stores.
pub struct Scene {
    pub server: Server,
    pub directory: TempDir,
}

/// A server that rotates, and revokes the family if a refresh token comes twice.
pub fn strict() -> Options {
    Options { rotation: Rotation::Strict, ..generic() }
}

/// A server that rotates, and answers a used refresh token for another minute.
pub fn grace(kind: GraceKind) -> Options {
    Options { rotation: Rotation::Grace { window_ms: 60_000, kind, reuse: Reuse::Revoke }, ..generic() }
}

/// A server that does not rotate.
pub fn generic() -> Options {
    Options { clients: clients(), ..Options::generic() }
}

pub fn salesforce() -> Options {
    Options { clients: clients(), ..Options::salesforce() }
}

fn clients() -> Vec<Registered> {
    vec![Registered::confidential("client", SECRET), Registered::public("public")]
}

impl Scene {
    pub fn new(options: Options) -> Self {
        Self { server: Server::start(options), directory: tempfile::tempdir().unwrap() }
    }

    pub fn store(&self) -> PathBuf {
        self.directory.path().join("sessions.db")
    }

    /// The usual configuration with `more` laid over it; null takes a key away.
    pub fn config(&self, more: Value) -> Value {
        let url = self.server.url();
        let mut config = json!({
            "token_endpoint": self.server.token_endpoint(),
            "revocation_endpoint": self.server.token_endpoint().replace("/token", "/revoke"),
            "client_id": "client",
            "client_secret": SECRET,
            "store": format!("sqlite:{}", self.store().display()),
        });
        if self.mode() == Mode::Salesforce {
            for endpoint in ["token_endpoint", "revocation_endpoint"] {
                config.as_object_mut().unwrap().remove(endpoint);
            }
            config["site_url"] = url.into();
        }
        lay_over(config, more)
    }

    fn mode(&self) -> Mode {
        let mut mode = Mode::Generic;
        self.server.update(|options| mode = options.mode);
        mode
    }

    pub fn open(&self, more: Value) -> Client {
        Client::open(&self.config(more).to_string()).unwrap()
    }

    /// A second process with a client of the same configuration.
    pub fn party(&self, more: Value) -> Party {
        let mut party = Party::start();
        party.ask(json!({"do": "open", "config": self.config(more)})).unwrap();
        party
    }

    pub fn sign_in(&self) -> SignedIn {
        self.server.sign_in("client", USER, "api")
    }

    /// Signs a user in and saves the refresh token alone, as a program does that has it from its secrets.
    pub fn saved(&self, client: &Client, session: &str) -> String {
        let refresh_token = self.sign_in().refresh_token;
        client.save(session, &json!({"refresh_token": refresh_token}).to_string()).unwrap();
        refresh_token
    }

    /// A client with one saved session, [`SESSION`].
    pub fn signed_in(&self, more: Value) -> Client {
        let client = self.open(more);
        self.saved(&client, SESSION);
        client
    }

    /// A client whose session has an access token in the last fifth of its life of 1000 s.
    pub fn early(&self, more: Value) -> (Client, String) {
        let client = self.open(lay_over(json!({"renew_before_s": 400}), more));
        let token = self.save_with_life(&client, SESSION, 850, 1000);
        (client, token)
    }

    /// Saves a whole token, `age_s` old, of a life of `life_s`. Returns its access token.
    pub fn save_with_life(&self, client: &Client, session: &str, age_s: u64, life_s: u64) -> String {
        let first = self.sign_in();
        let issued_at = (now_ms() - age_s * 1000).to_string();
        let token = json!({"issued_at": issued_at, "expires_in": life_s});
        client.save(session, &lay_over(parsed(&first.json), token).to_string()).unwrap();
        first.access_token
    }

    /// Token requests that the server has read.
    pub fn requests(&self) -> usize {
        self.server.token_requests().len()
    }

    /// The last token request that the server has read, as text.
    pub fn last_request(&self) -> String {
        String::from_utf8(self.server.token_requests().last().unwrap().raw.clone()).unwrap()
    }
}

/// What a client tells, parsed.
pub trait Tell {
    fn tell(&self, session: &str) -> Value;
    fn count(&self) -> Value;
    fn log(&self) -> Vec<Value>;

    fn state(&self, session: &str) -> String {
        self.tell(session)["state"].as_str().unwrap().to_owned()
    }

    /// The outcomes of all exchanges that the record knows of, oldest first.
    fn outcomes(&self, session: &str) -> Vec<String> {
        let history = self.tell(session)["history"].as_array().unwrap().clone();
        let outcomes = history.iter().map(|entry| entry["outcome"].as_str().unwrap().to_owned());
        outcomes.filter(|outcome| !["saved", "signed_out"].contains(&outcome.as_str())).collect()
    }

    fn events_of(&self, kind: &str) -> Vec<Value> {
        self.log().into_iter().filter(|event| event["kind"] == kind).collect()
    }
}

impl Tell for Client {
    fn tell(&self, session: &str) -> Value {
        parsed(&self.describe(session).unwrap())
    }

    fn count(&self) -> Value {
        parsed(&self.stats().unwrap())
    }

    fn log(&self) -> Vec<Value> {
        parsed(&self.events(0, 0).unwrap())["events"].as_array().unwrap().clone()
    }
}

pub fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap()
}

pub fn text(token: Result<Secret>) -> String {
    token.unwrap().expose().to_owned()
}

/// A token's JSON.
pub fn token(token: Result<Secret>) -> Value {
    parsed(token.unwrap().expose())
}

/// An error's JSON.
pub fn shown(error: &Error) -> Value {
    serde_json::to_value(error).unwrap()
}

/// What a program needs to know of an error.
pub fn class(error: &Error) -> (Status, Option<&str>) {
    (error.status, error.reason.as_deref())
}

/// `json` with the members of `more` instead of its own; null takes a member away.
pub fn lay_over(mut json: Value, more: Value) -> Value {
    let members = json.as_object_mut().unwrap();
    for (name, value) in more.as_object().unwrap() {
        match value {
            Value::Null => drop(members.shift_remove(name)),
            value => drop(members.insert(name.clone(), value.clone())),
        }
    }
    json
}

/// Waits until it is so, much longer than it can take.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < until, "it never happened: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

pub fn sleep_ms(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}
