//! Sessions with a server that is named by its issuer, and with clients that authenticate by a private key.

mod common;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use common::*;
use evergrant::{Client, Status};
use evergrant_test_server::{AuthMethod, Client as Registered, Endpoint, Entry, Fault, FaultKind, Options};
use serde_json::{Value, json};

const ROTATIONS: u64 = 20;

fn openssl(directory: &Path, arguments: &str) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A server with clients that have a key each, by the names of algorithms.
struct Keys {
    scene: Scene,
}

impl Keys {
    fn new() -> Self {
        let scene = Scene::new(strict());
        let keys = Self { scene };
        for (algorithm, kind) in [
            ("RS256", "RSA -pkeyopt rsa_keygen_bits:2048"),
            ("PS256", "RSA -pkeyopt rsa_keygen_bits:3072"),
            ("ES256", "EC -pkeyopt ec_paramgen_curve:P-256"),
        ] {
            keys.make(algorithm, kind);
        }
        keys
    }

    /// A new key of this client, known to the server.
    fn make(&self, id: &str, kind: &str) {
        openssl(self.directory(), &format!("genpkey -algorithm {kind} -out {id}.pem"));
        let public_key = String::from_utf8(openssl(self.directory(), &format!("pkey -in {id}.pem -pubout"))).unwrap();
        self.scene.server.add_client(Registered { public_key: Some(public_key), ..Registered::public(id) });
    }

    fn directory(&self) -> &Path {
        self.scene.directory.path()
    }

    fn file(&self, id: &str) -> PathBuf {
        self.directory().join(format!("{id}.pem"))
    }

    fn config(&self, id: &str, more: Value) -> Value {
        let own = json!({
            "client_id": id, "client_secret": null, "private_key_file": self.file(id), "assertion_algorithm": id,
            "introspection_endpoint": self.scene.server.token_endpoint().replace("/token", "/introspect"),
        });
        self.scene.config(lay_over(own, more))
    }

    fn signed_in(&self, id: &str, more: Value) -> Client {
        let client = Client::open(&self.config(id, more).to_string()).unwrap();
        let first = self.scene.server.sign_in(id, USER, "api");
        client.save(SESSION, &first.json).unwrap();
        client
    }
}

/// Header and claims of the assertion in a request.
fn assertion(entry: &Entry) -> (Value, Value) {
    let request = String::from_utf8(entry.raw.clone()).unwrap();
    let (_, assertion) = request.split_once("client_assertion=").unwrap_or_else(|| panic!("{request}"));
    let mut parts = assertion.split(['.', '&']);
    let mut part = || {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(parts.next().unwrap()).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    (part(), part())
}

fn of(scene: &Scene, endpoint: Endpoint) -> Vec<Entry> {
    scene.server.log().into_iter().filter(|entry| entry.endpoint == endpoint).collect()
}

// ---- private_key_jwt

#[test]
fn a_private_key_authenticates_at_every_endpoint() {
    let keys = Keys::new();
    let scene = &keys.scene;
    for algorithm in ["RS256", "PS256", "ES256"] {
        let client = keys.signed_in(algorithm, json!({"key_id": "the key"}));
        for generation in 2..ROTATIONS + 2 {
            assert_eq!(token(client.renew(SESSION, None, None))["generation"], generation);
        }
        assert_eq!(parsed(client.introspect(SESSION).unwrap().expose())["active"], true);
        client.sign_out(SESSION).unwrap();
        assert_eq!(client.tell(SESSION)["to_revoke"], 0);

        let entries = scene.server.log();
        assert_eq!(entries.len() as u64, ROTATIONS + 3, "{algorithm}");
        let mut seen = HashSet::new();
        for entry in &entries {
            assert_eq!((entry.auth, entry.outcome), (Some(AuthMethod::PrivateKeyJwt), "ok"), "{algorithm}");
            let (header, claims) = assertion(entry);
            assert_eq!(header, json!({"typ": "JWT", "alg": algorithm, "kid": "the key"}));
            assert_eq!(claims["aud"], scene.server.token_endpoint(), "{:?}", entry.endpoint);
            assert!(seen.insert(claims["jti"].as_str().unwrap().to_owned()), "{claims}");
            // The hard limit of the exchange: 10 s to connect, 60 s for the answer, and the rest of a second.
            let at_s = entry.at_ms as f64 / 1000.0;
            let left = claims["exp"].as_f64().unwrap() - at_s;
            assert!((40.0..=71.0).contains(&left) && claims["iat"].as_f64().unwrap() <= at_s, "{left} {claims}");
            let request = String::from_utf8(entry.raw.clone()).unwrap();
            assert!(
                !request.contains("client_secret") && !request.to_lowercase().contains("authorization:"),
                "{request}"
            );
            assert!(request.contains(&format!("client_id={algorithm}")), "{request}");
            assert!(request.contains("urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"), "{request}");
        }
        // It forgets its clients as well.
        scene.server.reset();
        for id in ["RS256", "PS256", "ES256"] {
            let public_key = openssl(keys.directory(), &format!("pkey -in {id}.pem -pubout"));
            let public_key = Some(String::from_utf8(public_key).unwrap());
            scene.server.add_client(Registered { public_key, ..Registered::public(id) });
        }
        fs::remove_file(scene.store()).unwrap();
    }
}

#[test]
fn the_bare_flow_takes_a_private_key_too() {
    let keys = Keys::new();
    let first = keys.scene.server.sign_in("ES256", USER, "api");
    let request = keys.config("ES256", json!({"store": null, "refresh_token": first.refresh_token}));
    let answer = parsed(evergrant::refresh(&request.to_string()).unwrap().expose());
    assert_ne!(answer["refresh_token"], first.refresh_token);
}

#[test]
fn a_key_that_was_replaced_counts_at_once_and_one_that_is_gone_costs_nothing() {
    let keys = Keys::new();
    let client = keys.signed_in("ES256", json!({"max_wait_ms": 20_000}));
    client.renew(SESSION, None, None).unwrap();
    keys.make("ES256", "EC -pkeyopt ec_paramgen_curve:P-256");
    client.renew(SESSION, None, None).unwrap();

    let pem = fs::read(keys.file("ES256")).unwrap();
    let requests = keys.scene.requests();
    for (what, word) in [(None, "cannot be read"), (Some("canary"), "no private key")] {
        match what {
            None => fs::remove_file(keys.file("ES256")).unwrap(),
            Some(text) => fs::write(keys.file("ES256"), text).unwrap(),
        }
        let error = client.renew(SESSION, None, Some(r#"{"anyway": true}"#)).unwrap_err();
        assert_eq!(class(&error), (Status::Unavailable, Some("no_private_key")), "{error}");
        assert_eq!(error.outcome, Some("not_sent"));
        assert!(error.message.contains("private_key_file") && error.message.contains(word), "{error}");
        assert!(!error.message.contains("canary") && !error.message.contains("ES256.pem"), "{error}");
        assert_eq!(client.state(SESSION), "active");
    }
    assert_eq!(keys.scene.requests(), requests);
    fs::write(keys.file("ES256"), pem).unwrap();
    client.renew(SESSION, None, Some(r#"{"anyway": true}"#)).unwrap();
    assert_eq!(keys.scene.requests(), requests + 1);
}

#[test]
fn a_wrong_key_is_refused_and_the_session_is_kept() {
    let keys = Keys::new();
    fs::copy(keys.file("RS256"), keys.file("PS256")).unwrap();
    let client = keys.signed_in("PS256", json!({}));
    let error = client.renew(SESSION, None, None).unwrap_err();
    assert_eq!(class(&error), (Status::Refused, Some("client_refused")), "{error}");
    for key in ["key_id", "private_key_file", "assertion_algorithm", "assertion_audience"] {
        assert!(error.message.contains(key), "{error}");
    }
    assert_eq!(client.state(SESSION), "active");
    let again = client.renew(SESSION, None, None).unwrap_err();
    assert_eq!((again.status, keys.scene.requests()), (Status::Refused, 1), "nobody hammers");
}

#[test]
fn an_assertion_is_for_whom_the_configuration_says() {
    let keys = Keys::new();
    let url = keys.scene.server.url();
    let endpoint = keys.scene.server.token_endpoint();
    for (more, aud) in [
        (json!({}), endpoint.clone()),
        (json!({"issuer": url}), url.clone()),
        (json!({"issuer": url, "token_endpoint": null}), url.clone()),
        (json!({"issuer": url, "token_endpoint": null, "assertion_audience": endpoint}), endpoint.clone()),
        (json!({"assertion_audience": url}), url.clone()),
    ] {
        let client = keys.signed_in("ES256", lay_over(json!({"store": "memory:"}), more.clone()));
        client.renew(SESSION, None, None).unwrap();
        assert_eq!(assertion(of(&keys.scene, Endpoint::Token).last().unwrap()).1["aud"], aud, "{more}");
    }
    let other = keys.signed_in("ES256", json!({"store": "memory:", "assertion_audience": "https://other.example"}));
    assert_eq!(other.renew(SESSION, None, None).unwrap_err().status, Status::Refused);
}

/// A request that is delivered when its sender has long given up finds its assertion ended.
#[test]
fn a_ghost_that_comes_after_the_hard_limit_is_refused() {
    let keys = Keys::new();
    let limits = json!({"connect_timeout_ms": 1000, "exchange_timeout_ms": 1000, "max_wait_ms": 60_000});
    let client = keys.signed_in("ES256", limits);
    // Carried out three seconds after the client has closed: its exp is over by then, whatever was rounded.
    keys.scene.server.fault(FaultKind::ProcessLate { delay_ms: 3000 });
    let token = token(client.renew(SESSION, None, None));
    assert_eq!(token["generation"], 2);
    eventually("the ghost is there", || {
        keys.scene.server.token_requests().iter().any(|entry| entry.outcome == "invalid_client")
    });
    assert_eq!(client.outcomes(SESSION), ["unknown", "done"]);
    client.renew(SESSION, None, None).unwrap();
    assert_eq!(keys.scene.server.stats().reuses, 0);
}

// ---- discovery

fn discovered(scene: &Scene, more: Value) -> Value {
    let own = json!({"issuer": scene.server.url(), "token_endpoint": null, "revocation_endpoint": null});
    scene.config(lay_over(own, more))
}

fn open(scene: &Scene, more: Value) -> Client {
    Client::open(&discovered(scene, more).to_string()).unwrap()
}

fn on_discovery(kind: FaultKind) -> Fault {
    Fault::from(kind).on(Endpoint::Discovery)
}

#[test]
fn a_session_lives_from_its_issuer() {
    let scene = Scene::new(strict());
    let client = open(&scene, json!({}));
    assert_eq!(of(&scene, Endpoint::Discovery).len(), 0, "nobody is asked before there is an exchange");
    scene.saved(&client, SESSION);
    for generation in 2..ROTATIONS + 2 {
        assert_eq!(token(client.renew(SESSION, None, None))["generation"], generation);
    }
    assert_eq!(parsed(client.introspect(SESSION).unwrap().expose())["active"], true);
    // A second client, and a session more.
    let other = open(&scene, json!({"store": "memory:"}));
    scene.saved(&other, SESSION);
    other.access_token(SESSION, None).unwrap();
    client.sign_out(SESSION).unwrap();
    assert_eq!(client.tell(SESSION)["to_revoke"], 0);
    assert_eq!(of(&scene, Endpoint::Revoke).len(), 2);
    assert_eq!(of(&scene, Endpoint::Discovery).len(), 1, "it is asked once");
    assert_eq!(scene.server.stats().reuses, 0);
}

#[test]
fn its_sessions_are_kept_under_the_issuer_unless_the_token_endpoint_is_configured() {
    let scene = Scene::new(strict());
    let client = open(&scene, json!({}));
    scene.saved(&client, SESSION);
    let under = |more: Value| Client::open(&scene.config(more).to_string()).unwrap().describe(SESSION).is_ok();
    let issuer = scene.server.url();
    assert!(under(json!({"namespace": format!("{issuer} client")})));
    assert!(under(json!({"issuer": issuer, "token_endpoint": null})));
    assert!(!under(json!({"issuer": issuer})), "the token endpoint comes first");
    assert!(under(json!({"namespace": format!("{issuer} client"), "issuer": issuer})));
}

#[test]
fn a_failed_discovery_is_an_exchange_that_was_not_sent() {
    let scene = Scene::new(strict());
    let client = open(&scene, json!({}));
    let refresh_token = scene.saved(&client, SESSION);
    let wrong = json!({"issuer": "https://other.example", "token_endpoint": "https://other.example/token"}).to_string();
    let retry_after = || Some("1".to_owned());
    let faults = [
        (FaultKind::Status { code: 404, body: None, retry_after: None }, Status::Refused, "bad_answer"),
        (FaultKind::Status { code: 200, body: Some(wrong), retry_after: None }, Status::Refused, "bad_answer"),
        (
            FaultKind::Status { code: 503, body: None, retry_after: retry_after() },
            Status::Unavailable,
            "server_unavailable",
        ),
        (FaultKind::DropReply, Status::Unavailable, "network"),
    ];
    for (n, (kind, status, reason)) in faults.into_iter().enumerate() {
        let what = format!("{kind:?}");
        scene.server.fault(on_discovery(kind).always());
        let error = client.renew(SESSION, None, Some(r#"{"anyway": true, "max_wait_ms": 30000}"#)).expect_err(&what);
        assert_eq!(class(&error), (status, Some(reason)), "{what}: {error}");
        assert_eq!(error.outcome, Some("not_sent"), "{what}");
        assert!(error.message.contains("no token was sent") && error.message.contains("kept"), "{error}");
        assert_eq!((client.state(SESSION).as_str(), scene.requests()), ("active", 0), "{what}");
        assert_eq!(client.outcomes(SESSION), vec!["not_sent"; n + 1], "{what}");
        // The back-off says the same.
        let again = client.renew(SESSION, None, None).expect_err(&what);
        assert_eq!(class(&again), (status, Some(reason)), "{what}: {again}");
        scene.server.clear_faults();
    }
    let renewed = token(client.renew(SESSION, None, Some(r#"{"anyway": true, "max_wait_ms": 30000}"#)));
    assert_eq!((&renewed["generation"], scene.server.presentations(&refresh_token)), (&json!(2), 1));
}

#[test]
fn a_doubt_outlives_a_failed_discovery() {
    let scene = Scene::new(strict());
    let client = open(&scene, json!({"max_wait_ms": 30_000}));
    scene.saved(&client, SESSION);
    // It cannot be asked once the first process has gone.
    let mut party =
        scene.party(json!({"issuer": scene.server.url(), "token_endpoint": null, "revocation_endpoint": null}));
    scene.server.fault(FaultKind::Hang);
    party.begin(json!({"do": "access_token", "session": SESSION}));
    eventually("it has sent", || scene.requests() == 1);
    party.kill();
    scene.server.fault(on_discovery(FaultKind::Status { code: 404, body: None, retry_after: None }).always());
    let error = client.access_token(SESSION, None).unwrap_err();
    // Of the exchange, or of the back-off if the doubt's owner was faster to try once more.
    assert!(matches!(error.outcome, Some("not_sent") | None) && error.message.contains("no token was sent"), "{error}");
    assert_eq!((client.state(SESSION).as_str(), scene.requests()), ("in_doubt", 1));
    scene.server.clear_faults();
    let renewed = token(client.renew(SESSION, None, Some(r#"{"anyway": true, "max_wait_ms": 30000}"#)));
    assert_eq!((&renewed["generation"], scene.requests()), (&json!(2), 2));
}

#[test]
fn a_sign_out_finds_the_revocation_endpoint_or_learns_that_there_is_none() {
    let scene = Scene::new(strict());
    let client = open(&scene, json!({}));
    let first = scene.save_with_life(&client, SESSION, 0, 1000);
    // It cannot be told: the tokens wait.
    scene.server.fault(on_discovery(FaultKind::Status { code: 503, body: None, retry_after: None }).always());
    client.sign_out(SESSION).unwrap();
    assert_eq!(client.tell(SESSION)["to_revoke"], 2);
    assert_eq!(client.events_of("revocation_failed")[0]["reason"], "server_unavailable");
    scene.server.clear_faults();
    client.sign_out(SESSION).unwrap();
    assert_eq!((client.tell(SESSION)["to_revoke"].as_u64(), scene.server.is_live(&first)), (Some(0), false));

    let bare = Scene::new(strict());
    let url = bare.server.url();
    let body = json!({"issuer": url, "token_endpoint": format!("{url}/token")}).to_string();
    let told = FaultKind::Status { code: 200, body: Some(body), retry_after: None };
    bare.server.fault(on_discovery(told).always());
    let client = open(&bare, json!({}));
    bare.save_with_life(&client, SESSION, 0, 1000);
    client.sign_out(SESSION).unwrap();
    assert_eq!((client.tell(SESSION)["to_revoke"].as_u64(), of(&bare, Endpoint::Revoke).len()), (Some(0), 0));
    // Nor is there anybody to ask about a token.
    bare.save_with_life(&client, "bob", 0, 1000);
    let error = client.introspect("bob").unwrap_err();
    assert_eq!(class(&error), (Status::InvalidArgument, Some("no_introspection_endpoint")), "{error}");
}

#[test]
fn many_sessions_at_once_ask_once() {
    let scene = Scene::new(strict());
    let client = open(&scene, json!({"max_wait_ms": 30_000}));
    let names: Vec<String> = (0..20).map(|n| format!("user {n}")).collect();
    names.iter().for_each(|name| drop(scene.saved(&client, name)));
    scene.server.fault(on_discovery(FaultKind::Delay).before(300));
    thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| client.access_token(name, None).unwrap());
        }
    });
    assert_eq!((of(&scene, Endpoint::Discovery).len(), scene.requests()), (1, 20));
}

#[test]
fn a_salesforce_site_can_be_discovered() {
    let scene = Scene::new(Options { prefixes: Some(vec!["/customers".into()]), ..salesforce() });
    let issuer = scene.server.url() + "/customers";
    let client = scene.open(json!({"site_url": null, "issuer": issuer, "basic_encoding": "raw"}));
    scene.saved(&client, SESSION);
    client.renew(SESSION, None, None).unwrap();
    let target = &scene.server.token_requests()[0].target;
    assert!(target.ends_with("/customers/services/oauth2/token"), "{target}");
    assert_eq!(parsed(client.introspect(SESSION).unwrap().expose())["active"], true);
}
