//! Authorization servers of others, as they are: sessions begin at their own pages, and are kept renewed by their rules.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use common::authority::Authority;
use common::servers::Proxy;
use common::*;
use evergrant::{Client, Status};
use serde_json::{Value, json};
use tempfile::TempDir;

const ROTATIONS: u64 = 20;

/// Under load a browser and a page that hashes passwords take their time.
const PATIENCE: &str = r#"{"max_wait_ms": 120000}"#;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What the Makefile says how to install.
fn make(target: &str) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut make = Command::new("make");
    make.args(["--silent", target]).current_dir(root("")).env_remove("MAKEFLAGS");
    assert!(make.status().unwrap().success(), "make {target}");
}

/// Says where it serves in one line of JSON, and what it saw in another when its input ends.
struct Server {
    child: Child,
    output: BufReader<ChildStdout>,
    told: Value,
}

impl Server {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut server = Self { child, output, told: Value::Null };
        server.told = server.line();
        server
    }

    fn line(&mut self) -> Value {
        let mut lines = self.output.by_ref().lines().map(Result::unwrap);
        parsed(&lines.find(|line| line.starts_with('{')).expect("the server has ended"))
    }

    fn saw(mut self) -> Value {
        drop(self.child.stdin.take());
        self.line()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Signs in while `user`, given the URL, is the user; where that one has ended.
fn sign_in(client: &Client, user: &mut Command) -> (Value, String) {
    let begun = parsed(client.sign_in_start(r#"{"listen": true}"#).unwrap().expose());
    let user = user.arg(begun["authorization_url"].as_str().unwrap());
    std::thread::scope(|scope| {
        let finishing = scope.spawn(|| client.sign_in_finish(SESSION, &begun.to_string(), None));
        let output = user.stderr(Stdio::inherit()).output().unwrap();
        if !output.status.success() {
            client.close(0);
        }
        let given = token(finishing.join().unwrap());
        (given, String::from_utf8(output.stdout).unwrap())
    })
}

fn renewed(client: &Client, given: &Value) -> Value {
    let rejected = given["access_token"].as_str().unwrap();
    let fresh = token(client.renew(SESSION, Some(rejected), Some(PATIENCE)));
    assert_eq!(fresh["generation"].as_u64(), given["generation"].as_u64().map(|generation| generation + 1));
    assert_ne!(fresh["access_token"], given["access_token"]);
    fresh
}

// ---- oidc-provider

/// Over TLS of `authority`. Each refresh token works once; the second use of one revokes its grant.
fn oidc_provider(authority: &Authority) -> Server {
    make("tests/oidc/node_modules/made");
    let mut node = Command::new("node");
    node.arg(root("tests/oidc/server.mjs")).env("OIDC_TLS", authority.path("server.pem"));
    Server::start(node.env("OIDC_ACCESS_TOKEN_LIFE_S", "600"))
}

#[test]
fn each_kind_of_client_signs_in_at_the_pages_of_oidc_provider_and_is_kept_renewed() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let server = oidc_provider(&authority);
    let clients = server.told["clients"].as_array().unwrap().clone();
    let mut kinds: Vec<&str> = clients.iter().map(|client| client["client_auth"].as_str().unwrap()).collect();
    kinds.dedup();
    assert_eq!(kinds, ["client_secret_basic", "client_secret_post", "none", "private_key_jwt"]);
    for registered in &clients {
        let id = registered["client_id"].as_str().unwrap();
        let mut config = json!({
            "issuer": server.told["issuer"],
            "ca_file": authority.path("ca.crt"),
            "scope": "openid offline_access",
            "authorize_parameters": {"prompt": "consent"},
            "store": format!("sqlite:{}", directory.path().join("sessions.db").display()),
            "early_renewal": "off",
        });
        let members = ["client_auth", "client_id", "client_secret", "key_id", "assertion_algorithm"];
        let known = members.into_iter().filter(|member| registered.get(member).is_some());
        known.for_each(|member| config[member] = registered[member].clone());
        if let Some(key) = registered["private_key"].as_str() {
            let file = directory.path().join("key.pem");
            fs::write(&file, key).unwrap();
            config["private_key_file"] = json!(file);
        }
        let client = Client::open(&config.to_string()).unwrap();
        let (mut given, page) = sign_in(&client, Command::new("node").arg(root("tests/oidc/browser.mjs")));
        assert!(page.starts_with("http://127.0.0.1:") && page.contains("You can close this window"), "{id}: {page}");
        for _ in 0..ROTATIONS {
            given = renewed(&client, &given);
        }
        let introspected = token(client.introspect(SESSION));
        assert_eq!((&introspected["active"], &introspected["sub"]), (&json!(true), &json!("alice")), "{id}");
        client.sign_out(SESSION).unwrap();
        assert_eq!(client.state(SESSION), "signed_out", "{id}");
    }
    let n = clients.len() as u64;
    let saw = json!({"refresh_ok": n * ROTATIONS, "refresh_failed": 0, "reuse_detected": 0, "grant_revoked": n});
    assert_eq!(server.saw(), saw);
}

// ---- django-oauth-toolkit

/// With rotation and reuse protection. A used refresh token is answered again for the grace period.
struct Django {
    server: Server,
    directory: TempDir,
}

impl Django {
    fn start(grace_period_s: u32) -> Self {
        make("build/venv/dot/made");
        let directory = tempfile::tempdir().unwrap();
        let mut python = Self::python("tests/dot/server.py");
        python.arg(directory.path()).arg(grace_period_s.to_string());
        Self { server: Server::start(&mut python), directory }
    }

    fn python(program: &str) -> Command {
        let mut python = Command::new(root("build/venv/dot/bin/python"));
        python.arg(root(program));
        python
    }

    fn port(&self) -> u16 {
        self.server.told["port"].as_u64().unwrap() as u16
    }

    fn config(&self, more: Value) -> Value {
        let url = format!("http://127.0.0.1:{}/o", self.port());
        let config = json!({
            "authorization_endpoint": format!("{url}/authorize/"),
            "token_endpoint": format!("{url}/token/"),
            "revocation_endpoint": format!("{url}/revoke_token/"),
            "client_id": self.server.told["client_id"],
            "client_secret": self.server.told["client_secret"],
            "store": format!("sqlite:{}", self.directory.path().join("sessions.db").display()),
            "namespace": "django",
            "early_renewal": "off",
        });
        lay_over(config, more)
    }

    fn signed_in(&self, more: Value) -> (Client, Value) {
        let client = Client::open(&self.config(more).to_string()).unwrap();
        let told = &self.server.told;
        let words = ["username", "password"].map(|member| told[member].as_str().unwrap());
        let (given, page) = sign_in(&client, Self::python("tests/dot/user.py").args(words));
        assert!(page.starts_with("http://127.0.0.1:"), "{page}");
        (client, given)
    }

    /// The statuses that the token endpoint has given to refresh requests, and how many refresh tokens live.
    fn saw(self) -> (Vec<u64>, u64) {
        let saw = self.server.saw();
        let requests = saw["token_requests"].as_array().unwrap();
        assert_eq!(requests[0], json!(["authorization_code", 200]), "{saw}");
        assert!(requests[1..].iter().all(|request| request[0] == "refresh_token"), "{saw}");
        let statuses = requests[1..].iter().map(|request| request[1].as_u64().unwrap()).collect();
        (statuses, saw["live_refresh_tokens"].as_u64().unwrap())
    }
}

#[test]
fn a_session_of_django_oauth_toolkit_is_kept_renewed() {
    for grace_period_s in [0, 10] {
        let django = Django::start(grace_period_s);
        let (client, mut given) = django.signed_in(json!({"reuse_window_s": grace_period_s}));
        for _ in 0..ROTATIONS {
            given = renewed(&client, &given);
        }
        client.sign_out(SESSION).unwrap();
        assert_eq!(client.state(SESSION), "signed_out");
        assert_eq!(django.saw(), (vec![200; ROTATIONS as usize], 0));
    }
}

#[test]
fn parallel_processes_present_each_refresh_token_of_django_oauth_toolkit_once() {
    let django = Django::start(0);
    let (_client, mut given) = django.signed_in(json!({}));
    let mut parties: Vec<Party> = (0..4).map(|_| Party::start()).collect();
    for party in &mut parties {
        party.ask(json!({"do": "open", "config": django.config(json!({}))})).unwrap();
    }
    for generation in 2..ROTATIONS + 2 {
        let call = json!({
            "do": "renew", "session": SESSION, "rejected": given["access_token"], "options": parsed(PATIENCE),
        });
        parties.iter_mut().for_each(|party| party.begin(call.clone()));
        let fresh: Vec<Value> = parties.iter_mut().map(|party| party.answer().unwrap()).collect();
        assert_ne!(fresh[0]["access_token"], given["access_token"]);
        for token in &fresh {
            assert_eq!((&token["generation"], &token["access_token"]), (&json!(generation), &fresh[0]["access_token"]));
        }
        given = fresh[0].clone();
    }
    assert_eq!(django.saw(), (vec![200; ROTATIONS as usize], 1));
}

#[test]
fn a_lost_reply_of_django_oauth_toolkit_heals_in_its_grace_period() {
    let django = Django::start(10);
    let proxy = Proxy::to(django.port());
    let endpoint = format!("http://127.0.0.1:{}/o/token/", proxy.port);
    let (client, mut given) = django.signed_in(json!({"token_endpoint": endpoint, "reuse_window_s": 10}));
    for rotation in 0..ROTATIONS {
        if rotation == ROTATIONS / 2 {
            proxy.lose_next_reply();
        }
        given = renewed(&client, &given);
    }
    let unknown = client.outcomes(SESSION).iter().filter(|outcome| *outcome == "unknown").count();
    assert_eq!(unknown, 1);
    client.sign_out(SESSION).unwrap();
    assert_eq!(django.saw(), (vec![200; ROTATIONS as usize + 1], 0));
}

#[test]
fn a_lost_reply_of_django_oauth_toolkit_without_a_grace_period_is_a_lost_rotation() {
    let django = Django::start(0);
    let proxy = Proxy::to(django.port());
    let endpoint = format!("http://127.0.0.1:{}/o/token/", proxy.port);
    let (client, given) = django.signed_in(json!({"token_endpoint": endpoint}));
    let given = renewed(&client, &given);
    proxy.lose_next_reply();
    let error = client.renew(SESSION, given["access_token"].as_str(), Some(PATIENCE)).unwrap_err();
    assert_eq!(class(&error), (Status::SignInRequired, Some("rotation_lost")));
    assert_eq!(client.outcomes(SESSION), ["done", "unknown", "invalid_grant"]);
    assert_eq!(django.saw(), (vec![200, 200, 400], 0));
}
