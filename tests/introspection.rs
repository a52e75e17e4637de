//! What the server says of access tokens (RFC 7662): to whoever asks, and to learn when a token ends.

mod common;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::*;
use evergrant::queue::Queue;
use evergrant::{Client, Status};
use evergrant_test_server::{Client as Registered, Endpoint, Entry, Fault, FaultKind, Options};
use serde_json::{Value, json};

/// A server that says nothing of a token's end but in an introspection.
fn silent() -> Options {
    Options { send_expires_in: false, ..strict() }
}

fn endpoint(scene: &Scene) -> String {
    scene.server.token_endpoint().replace("/token", "/introspect")
}

/// A client that may ask.
fn asking(scene: &Scene, more: Value) -> Client {
    scene.open(lay_over(json!({"introspection_endpoint": endpoint(scene)}), more))
}

/// A client that asks for the end of every token.
fn curious(scene: &Scene, more: Value) -> Client {
    asking(scene, lay_over(json!({"expiry_from_introspection": true}), more))
}

fn introspections(scene: &Scene) -> Vec<Entry> {
    scene.server.log().into_iter().filter(|entry| entry.endpoint == Endpoint::Introspect).collect()
}

fn on_introspection(kind: FaultKind) -> Fault {
    Fault::from(kind).on(Endpoint::Introspect)
}

fn introspected(client: &Client) -> Value {
    parsed(client.introspect(SESSION).unwrap().expose())
}

fn failures(client: &Client) -> Vec<Value> {
    client.events_of("introspection_failed")
}

// ---- for whoever asks

#[test]
fn the_servers_word_comes_as_it_is() {
    for options in [strict(), salesforce()] {
        let scene = Scene::new(options);
        // A Salesforce site's is known.
        let more = if scene.config(json!({})).get("site_url").is_some() {
            json!({})
        } else {
            json!({"introspection_endpoint": endpoint(&scene)})
        };
        let client = scene.signed_in(more);
        let told = introspected(&client);
        assert_eq!(
            (&told["active"], &told["username"], &told["client_id"]),
            (&json!(true), &json!(USER), &json!("client"))
        );
        assert_eq!(told["exp"].as_u64().unwrap() - told["iat"].as_u64().unwrap(), 7200, "{told}");
        // There was no access token yet: it is the one that the renewal has brought.
        let asked = introspections(&scene);
        assert_eq!(asked[0].token.as_deref(), Some(&*text(client.access_token(SESSION, None))));
        assert_eq!((asked.len(), scene.requests()), (1, 1));

        scene.server.expire_access_tokens(Some(USER));
        assert_eq!(introspected(&client), json!({"active": false}));
        assert_eq!(scene.requests(), 1, "what the server says of it changes nothing");
    }
}

#[test]
fn through_a_queue_it_is_the_same() {
    let scene = Scene::new(strict());
    let client = Arc::new(asking(&scene, json!({})));
    scene.saved(&client, SESSION);
    let queue = Queue::open().unwrap();
    // No thread of the library that carries waits is blocked by a slow answer.
    scene.server.fault(on_introspection(FaultKind::Delay).before(700));
    for tag in 0..8 {
        queue
            .submit(Some(&client), tag, &json!({"call": "session_introspect", "session": SESSION}).to_string())
            .unwrap();
    }
    queue.submit(Some(&client), 8, &json!({"call": "session_describe", "session": SESSION}).to_string()).unwrap();
    let mut results = Vec::new();
    while results.len() < 9 {
        let taken = parsed(queue.take(30_000).unwrap().expose()).as_array().unwrap().clone();
        assert!(!taken.is_empty(), "{results:?}");
        results.extend(taken);
    }
    let slow = results.iter().position(|result| result["tag"] == 8).unwrap();
    assert!(slow < 8, "the description waited for the server");
    assert!(results.iter().all(|result| result["tag"] == 8 || result["value"]["active"] == true), "{results:?}");
}

#[test]
fn who_must_not_ask_is_told_what_to_do() {
    let scene = Scene::new(strict());
    let nobody = scene.open(json!({})).introspect(SESSION).unwrap_err();
    assert_eq!(nobody.status, Status::InvalidArgument);
    assert!(nobody.message.contains("\"introspection_endpoint\""), "{nobody}");

    let client = asking(&scene, json!({}));
    for session in ["", "a\nb"] {
        assert_eq!(client.introspect(session).unwrap_err().status, Status::InvalidArgument);
    }
    let error = client.introspect("bob").unwrap_err();
    assert_eq!(class(&error), (Status::SignInRequired, Some("no_session")));

    let token = json!({"access_token": "canary-of-another", "expires_in": 1000}).to_string();
    let public = asking(&scene, json!({"client_id": "public", "client_secret": null, "store": "memory:"}));
    public.save(SESSION, &token).unwrap();
    let error = public.introspect(SESSION).unwrap_err();
    assert_eq!(class(&error), (Status::Refused, Some("client_refused")));
    assert_eq!((error.http_status, error.error.as_deref()), (Some(401), Some("invalid_client")));
    assert!(error.message.contains(SESSION) && !error.message.contains("canary"), "{error}");
    assert_eq!(text(public.access_token(SESSION, None)), "canary-of-another", "the session is kept");

    client.close(1000);
    assert_eq!(client.introspect(SESSION).unwrap_err().status, Status::Closed);
}

#[test]
fn trouble_with_it_harms_no_session() {
    let scene = Scene::new(strict());
    let client = asking(&scene, json!({"connect_timeout_ms": 3000, "exchange_timeout_ms": 500, "max_wait_ms": 30_000}));
    scene.save_with_life(&client, SESSION, 0, 1000);
    for (fault, reason) in [
        (FaultKind::DropReply, "network"),
        (FaultKind::ResetBeforeRead, "network"),
        (FaultKind::Hang, "network"),
        (FaultKind::Slow { bytes_per_s: None, total_ms: Some(60_000) }, "network"),
        (FaultKind::Truncate { bytes: 9 }, "network"),
        (FaultKind::NonJson, "bad_answer"),
        (FaultKind::Html { status: 404 }, "bad_answer"),
        (FaultKind::Oversized { bytes: (1 << 20) + 1 }, "bad_answer"),
        (FaultKind::Redirect { location: "https://example.com/".into(), code: 302 }, "bad_answer"),
        (FaultKind::Status { code: 503, body: None, retry_after: Some("7".into()) }, "server_unavailable"),
        (FaultKind::Status { code: 429, body: None, retry_after: Some("7".into()) }, "server_unavailable"),
    ] {
        let what = format!("{fault:?}");
        let status = matches!(fault, FaultKind::Status { .. });
        scene.server.fault(on_introspection(fault));
        let error = client.introspect(SESSION).expect_err(&what);
        assert_eq!(class(&error), (Status::Unavailable, Some(reason)), "{what}: {error}");
        assert_eq!(error.retry_after_ms, status.then_some(7000), "{what}");
        assert_eq!(introspected(&client)["active"], true, "{what}");
    }
    assert_eq!((client.state(SESSION).as_str(), scene.requests()), ("active", 0));
}

#[test]
fn a_wait_for_it_ends_by_itself_and_by_close() {
    let scene = Scene::new(strict());
    let client = asking(&scene, json!({"max_wait_ms": 200}));
    scene.save_with_life(&client, SESSION, 0, 1000);
    scene.server.fault(on_introspection(FaultKind::Hang).always());
    let error = client.introspect(SESSION).unwrap_err();
    assert_eq!(error.status, Status::TimedOut, "{error}");

    let patient = asking(&scene, json!({"max_wait_ms": 60_000}));
    thread::scope(|scope| {
        let asked = introspections(&scene).len();
        let waiting = scope.spawn(|| patient.introspect(SESSION).unwrap_err().status);
        eventually("it asks", || introspections(&scene).len() > asked);
        patient.close(0);
        assert_eq!(waiting.join().unwrap(), Status::Closed);
    });
}

// ---- when a token ends

/// What is known of the current token's end: how, and how far away it is.
fn end_of(client: &Client) -> (String, Option<u64>) {
    let told = client.tell(SESSION);
    let left = |at_s: u64| at_s.saturating_sub(now_ms() / 1000);
    (told["expiry"].as_str().unwrap().to_owned(), told["expires_at_s"].as_u64().map(left))
}

fn learns(client: &Client, least_s: u64, most_s: u64) {
    eventually("the end is known", || end_of(client).1.is_some_and(|left| (least_s..=most_s).contains(&left)));
    assert_eq!(end_of(client).0, "assumed");
}

#[test]
fn an_end_is_learnt_after_each_renewal_and_save() {
    for options in [silent(), Options { access_token_life_ms: 1_000_000, ..salesforce() }] {
        let scene = Scene::new(Options { access_token_life_ms: 1_000_000, ..options });
        let client = if scene.config(json!({})).get("site_url").is_some() {
            scene.open(json!({"expiry_from_introspection": true}))
        } else {
            curious(&scene, json!({}))
        };
        // A token that a program brings, then renewals.
        client.save(SESSION, &scene.sign_in().json).unwrap();
        learns(&client, 900, 1000);
        assert_eq!((introspections(&scene).len(), scene.requests()), (1, 0));
        for generation in 2..5 {
            let token = token(client.renew(SESSION, None, None));
            assert_eq!(token["generation"], generation);
            learns(&client, 900, 1000);
            let told = parsed(client.token(SESSION, None).unwrap().expose());
            assert_eq!((&told["expiry"], told["expires_in"].as_u64().is_some()), (&json!("assumed"), true), "{told}");
        }
        assert_eq!((introspections(&scene).len(), scene.requests()), (4, 3));
        assert!(failures(&client).is_empty(), "{:?}", failures(&client));

        // So it is renewed in time, without a rejection.
        scene.server.update(|options| options.access_token_life_ms = 3_000);
        client.renew(SESSION, None, None).unwrap();
        learns(&client, 0, 3);
        let before = scene.requests();
        eventually("it is renewed by itself", || {
            client.access_token(SESSION, None).is_ok() && scene.requests() > before
        });
    }
}

#[test]
fn where_the_end_is_known_nobody_is_asked() {
    let scene = Scene::new(strict());
    let client = curious(&scene, json!({}));
    client.save(SESSION, &scene.sign_in().json).unwrap();
    client.renew(SESSION, None, None).unwrap();
    // A refresh token alone has no end to be asked for.
    scene.saved(&client, "bob");
    let asks_not = asking(&scene, json!({"store": "memory:"}));
    scene.server.update(|options| options.send_expires_in = false);
    asks_not.save(SESSION, &scene.sign_in().json).unwrap();
    asks_not.renew(SESSION, None, None).unwrap();
    client.close(10_000);
    asks_not.close(10_000);
    assert_eq!(introspections(&scene).len(), 0);
}

#[test]
fn the_shorter_life_counts() {
    let scene = Scene::new(Options { access_token_life_ms: 1_000_000, ..silent() });
    for (assumed, least, most) in [(500, 400, 500), (2000, 900, 1000)] {
        let client = curious(&scene, json!({"session_lifetime_s": assumed, "store": "memory:"}));
        scene.saved(&client, SESSION);
        let asked = introspections(&scene).len();
        client.access_token(SESSION, None).unwrap();
        eventually("it has asked", || introspections(&scene).len() > asked);
        learns(&client, least, most);
    }
}

#[test]
fn a_failure_of_it_costs_the_renewal_nothing() {
    let scene = Scene::new(silent());
    let client = curious(&scene, json!({"connect_timeout_ms": 3000, "exchange_timeout_ms": 500}));
    scene.saved(&client, SESSION);
    for (n, (fault, reason)) in [
        (FaultKind::DropReply, "network"),
        (FaultKind::Hang, "network"),
        (FaultKind::NonJson, "bad_answer"),
        (FaultKind::Error { error: "invalid_client".into(), description: "no".into(), status: 401 }, "client_refused"),
        (FaultKind::Status { code: 200, body: Some(r#"{"active":true}"#.into()), retry_after: None }, "bad_answer"),
        (FaultKind::Status { code: 200, body: Some(r#"{"active":false}"#.into()), retry_after: None }, "bad_answer"),
        (FaultKind::Status { code: 503, body: None, retry_after: Some("600".into()) }, "server_unavailable"),
    ]
    .into_iter()
    .enumerate()
    {
        let what = format!("{fault:?}");
        scene.server.fault(on_introspection(fault));
        let token = token(client.renew(SESSION, None, None));
        assert_eq!((&token["generation"], &token["expiry"]), (&json!(n + 2), &json!("unknown")), "{what}");
        eventually("it is told", || failures(&client).len() > n);
        let told = failures(&client).pop().unwrap();
        assert_eq!((&told["session"], &told["reason"]), (&json!(SESSION), &json!(reason)), "{what}: {told}");
        assert_eq!(text(client.access_token(SESSION, None)), token["access_token"], "{what}");
        assert_eq!(end_of(&client), ("unknown".to_owned(), None), "{what}");
    }
    // The next one is asked about as if nothing had been.
    client.renew(SESSION, None, None).unwrap();
    learns(&client, 7100, 7200);
    assert_eq!(client.outcomes(SESSION), vec!["done"; 8]);
}

#[test]
fn nobody_waits_for_it() {
    let scene = Scene::new(silent());
    let client = curious(&scene, json!({}));
    scene.saved(&client, SESSION);
    scene.server.fault(on_introspection(FaultKind::Hang));
    // Through a whole renewal and the next one, while the answer is awaited.
    for generation in 2..4 {
        let token = token(client.renew(SESSION, None, Some(r#"{"max_wait_ms": 20000}"#)));
        assert_eq!(token["generation"], generation);
    }
    learns(&client, 7100, 7200);
    assert_eq!(introspections(&scene).len(), 2);
}

#[test]
fn a_late_answer_is_for_its_own_token_only() {
    let scene = Scene::new(silent());
    let client = curious(&scene, json!({}));
    scene.saved(&client, SESSION);
    let short = r#"{"active": true, "exp": 1, "iat": 0}"#;
    let late = FaultKind::Status { code: 200, body: Some(short.into()), retry_after: None };
    scene.server.fault(on_introspection(late).before(800));
    client.renew(SESSION, None, None).unwrap();
    eventually("it asks", || introspections(&scene).len() == 1);
    client.renew(SESSION, None, None).unwrap();
    learns(&client, 7100, 7200);
    thread::sleep(Duration::from_millis(1000));
    assert!(end_of(&client).1.is_some_and(|left| left > 7000), "{:?}", end_of(&client));
}

/// It was committed before anybody was asked: a process that dies meanwhile costs the end, and the next start learns it.
#[test]
fn a_crash_before_the_answer_costs_the_end_only_until_the_next_start() {
    let scene = Scene::new(silent());
    let more = json!({"introspection_endpoint": endpoint(&scene), "expiry_from_introspection": true});
    let first = json!({"refresh_token": scene.sign_in().refresh_token});
    scene.server.fault(on_introspection(FaultKind::Hang));
    let mut party = scene.party(more.clone());
    party.ask(json!({"do": "save", "session": SESSION, "token": first})).unwrap();
    let token = party.of("access_token", SESSION).unwrap();
    eventually("it asks", || introspections(&scene).len() == 1);
    party.kill();

    let client = scene.open(more);
    assert_eq!(json!(text(client.access_token(SESSION, None))), token);
    assert_eq!(end_of(&client), ("unknown".to_owned(), None));
    client.save(SESSION, &first.to_string()).unwrap();
    learns(&client, 7100, 7200);
    assert_eq!((json!(text(client.access_token(SESSION, None))), scene.requests()), (token, 1));
}

#[test]
fn a_key_without_an_endpoint_is_an_error_that_names_both() {
    let scene = Scene::new(Options { clients: vec![Registered::public("client")], ..silent() });
    let error = Client::open(&scene.config(json!({"expiry_from_introspection": true})).to_string()).unwrap_err();
    assert_eq!(error.status, Status::InvalidArgument);
    for key in ["introspection_endpoint", "expiry_from_introspection"] {
        assert!(error.message.contains(key), "{error}");
    }
}
