//! Calls through a queue: what the functions give, without a thread for each wait.

mod common;

use std::sync::Arc;

use common::*;
use evergrant::queue::Queue;
use evergrant::{Client, Status};
use serde_json::{Value, json};

const MAX_WAIT_MS: u32 = 20_000;

fn results(queue: &Queue, max_wait_ms: u32) -> Vec<Value> {
    parsed(queue.take(max_wait_ms).unwrap().expose()).as_array().unwrap().clone()
}

/// Submits one call and waits for it.
fn ask(queue: &Queue, client: &Arc<Client>, call: Value) -> Value {
    queue.submit(Some(client), 1, &call.to_string()).unwrap();
    let mut all = results(queue, MAX_WAIT_MS);
    assert_eq!((all.len(), &all[0]["tag"]), (1, &json!(1)), "{all:?}");
    all.remove(0)
}

fn value(queue: &Queue, client: &Arc<Client>, call: Value) -> Value {
    let answer = ask(queue, client, call);
    assert_eq!(answer["status"], "OK", "{answer}");
    answer["value"].clone()
}

#[test]
fn every_call_gives_what_its_function_gives() {
    let scene = Scene::new(strict());
    let (client, queue) = (Arc::new(scene.open(json!({}))), Queue::open().unwrap());
    let of = |call: &str| json!({"call": call, "session": SESSION});
    let ask = |call: Value| value(&queue, &client, call);

    let refresh_token = scene.sign_in().refresh_token;
    assert_eq!(ask(lay_over(of("session_save"), json!({"token": {"refresh_token": refresh_token}}))), Value::Null);
    let token = ask(of("session_token"));
    assert_eq!(token["generation"], 2);
    assert_eq!(token["access_token"], text(client.access_token(SESSION, None)).as_str());
    assert_eq!(ask(of("session_access_token")), token["access_token"]);
    let options = json!({"options": {"max_wait_ms": 9000, "min_valid_s": 1}});
    assert_eq!(ask(lay_over(of("session_access_token"), options)), token["access_token"]);

    let rejected = json!({"rejected_access_token": token["access_token"]});
    assert_eq!(ask(lay_over(of("session_renew"), rejected.clone()))["generation"], 3);
    assert_eq!(ask(lay_over(of("session_renew"), rejected))["generation"], 3, "it is renewed already");
    assert_eq!(ask(of("session_renew"))["generation"], 4);
    assert_eq!(ask(lay_over(of("session_renew"), json!({"rejected_access_token": null})))["generation"], 5);

    assert_eq!(ask(of("session_describe")), client.tell(SESSION));
    assert_eq!(ask(json!({"call": "session_list", "limit": 9})), parsed(&client.list(None, 9).unwrap()));
    assert_eq!(ask(json!({"call": "session_list", "after": SESSION, "limit": 9}))["sessions"], json!([]));
    assert_eq!(ask(json!({"call": "client_stats"}))["exchanges"]["done"], 4);
    let events = ask(json!({"call": "client_events", "after": 1, "max_wait_ms": 0}));
    assert_eq!(events, parsed(&client.events(1, 0).unwrap()));
    assert_eq!(events["events"][0]["kind"], "renewed");

    assert_eq!(ask(of("session_sign_out")), Value::Null);
    assert_eq!(client.state(SESSION), "signed_out");
    assert!(scene.server.families()[0].revoked.is_some(), "revoked when the call ends");
    assert_eq!(ask(of("session_forget")), Value::Null);
    assert_eq!(ask(json!({"call": "client_close", "max_wait_ms": 1000})), Value::Null);
    assert_eq!(crate::ask(&queue, &client, of("session_token"))["status"], "CLOSED");
}

#[test]
fn the_bare_flow_needs_no_client() {
    let scene = Scene::new(strict());
    let queue = Queue::open().unwrap();
    let refresh_token = scene.sign_in().refresh_token;
    let request = lay_over(scene.config(json!({"store": null})), json!({"refresh_token": refresh_token}));
    let call = json!({"call": "refresh", "request": request}).to_string();
    queue.submit(None, 7, &call).unwrap();
    let answer = results(&queue, MAX_WAIT_MS).remove(0);
    assert_eq!((&answer["tag"], &answer["status"]), (&json!(7), &json!("OK")));
    assert_ne!(answer["value"]["refresh_token"], refresh_token.as_str());
    queue.submit(None, 8, &call).unwrap();
    let again = results(&queue, MAX_WAIT_MS).remove(0);
    assert_eq!((&again["status"], &again["error"]["status"]), (&json!("SIGN_IN_REQUIRED"), &json!("SIGN_IN_REQUIRED")));
    assert_eq!(again["error"]["error"], "invalid_grant");
}

#[test]
fn errors_are_those_of_the_function() {
    let scene = Scene::new(strict());
    let (client, queue) = (Arc::new(scene.open(json!({}))), Queue::open().unwrap());
    for (call, status, named) in [
        (json!({"call": "session_token", "session": "nobody"}), "SIGN_IN_REQUIRED", "nobody"),
        (json!({"call": "session_token", "session": ""}), "INVALID_ARGUMENT", "session"),
        (json!({"call": "session_token", "session": "s", "options": {"x": 1}}), "INVALID_ARGUMENT", "x"),
        (json!({"call": "session_save", "session": "s", "token": {}}), "INVALID_ARGUMENT", "refresh_token"),
        (json!({"call": "session_list", "limit": 0}), "INVALID_ARGUMENT", "limit"),
        (json!({"call": "session_introspect", "session": "s"}), "INVALID_ARGUMENT", "introspection_endpoint"),
        (json!({"call": "sign_in_start", "request": {}}), "INVALID_ARGUMENT", "redirect_uri"),
        (
            json!({"call": "sign_in_finish", "session": "s", "sign_in": {}, "redirect_url": "https://x"}),
            "INVALID_ARGUMENT",
            "sign_in_json",
        ),
        (json!({"call": "sign_in_finish", "session": "s", "sign_in": {}}), "INVALID_ARGUMENT", "redirect_url"),
        (
            json!({"call": "sign_in_with_browser", "session": "s", "request": {"redirect_uri": "https://x"}}),
            "INVALID_ARGUMENT",
            "redirect_uri",
        ),
        (json!({"call": "sign_in_with_password", "session": "s", "request": {}}), "INVALID_ARGUMENT", "site_url"),
    ] {
        let answer = ask(&queue, &client, call.clone());
        assert_eq!(answer["status"], status, "{call}: {answer}");
        assert_eq!(answer["error"]["status"], status);
        assert!(answer["error"]["message"].as_str().unwrap().contains(named), "{call}: {answer}");
    }
}

#[test]
fn a_call_of_the_wrong_shape_is_refused_at_once_and_by_name() {
    let scene = Scene::new(strict());
    let (client, queue) = (Arc::new(scene.open(json!({}))), Queue::open().unwrap());
    for (call, named) in [
        ("", "call_json"),
        ("[]", "call_json"),
        ("{}", "call"),
        (r#"{"call": 5}"#, "call"),
        (r#"{"call": "session_nothing"}"#, "session_nothing"),
        (r#"{"call": "evergrant_session_token", "session": "s"}"#, "evergrant_session_token"),
        (r#"{"call": "session_token"}"#, "session"),
        (r#"{"call": "session_token", "session": null}"#, "session"),
        (r#"{"call": "session_token", "session": 5}"#, "session"),
        (r#"{"call": "session_token", "session": "a\u0000b"}"#, "session"),
        (r#"{"call": "session_token", "session": "s", "options": "{}"}"#, "options"),
        (r#"{"call": "session_token", "session": "s", "max_wait_ms": 5}"#, "max_wait_ms"),
        (r#"{"call": "session_save", "session": "s", "token": "canary"}"#, "token"),
        (r#"{"call": "session_list"}"#, "limit"),
        (r#"{"call": "session_list", "limit": -1}"#, "limit"),
        (r#"{"call": "session_list", "limit": 1.5}"#, "limit"),
        (r#"{"call": "client_events", "after": 0, "max_wait_ms": 4294967296}"#, "max_wait_ms"),
        (r#"{"call": "refresh", "request": {}}"#, "client"),
    ] {
        let error = queue.submit(Some(&client), 1, call).unwrap_err();
        assert_eq!(error.status, Status::InvalidArgument, "{call}");
        assert!(error.message.contains(named) && !error.message.contains("canary"), "{call}: {error}");
    }
    let error = queue.submit(None, 1, r#"{"call": "client_stats"}"#).unwrap_err();
    assert!(error.message.contains("client"), "{error}");
    assert_eq!(results(&queue, 0), [] as [Value; 0], "what was refused has no result");
}

#[test]
fn a_thousand_waits_for_one_renewal_make_one_request() {
    let scene = Scene::new(strict());
    scene.server.update(|options| options.latency_ms = 300);
    let (client, queue) = (Arc::new(scene.signed_in(json!({}))), Queue::open().unwrap());
    let call = json!({"call": "session_access_token", "session": SESSION}).to_string();
    for tag in 0..1000 {
        queue.submit(Some(&client), tag, &call).unwrap();
    }
    let mut all = Vec::new();
    while all.len() < 1000 {
        let more = results(&queue, MAX_WAIT_MS);
        assert!(!more.is_empty(), "only {} came", all.len());
        all.extend(more);
    }
    assert!(all.iter().all(|result| result["status"] == "OK" && result["value"] == all[0]["value"]));
    assert_eq!(scene.requests(), 1);
}

#[test]
fn a_wait_ends_with_its_time_and_the_renewal_goes_on() {
    let scene = Scene::new(strict());
    scene.server.update(|options| options.latency_ms = 600);
    let (client, queue) = (Arc::new(scene.signed_in(json!({}))), Queue::open().unwrap());
    let call = |max_wait_ms: u32| {
        json!({"call": "session_token", "session": SESSION, "options": {"max_wait_ms": max_wait_ms}}).to_string()
    };
    queue.submit(Some(&client), 1, &call(100)).unwrap();
    queue.submit(Some(&client), 2, &call(20_000)).unwrap();
    let first = results(&queue, MAX_WAIT_MS);
    assert_eq!((first.len(), &first[0]["tag"], &first[0]["status"]), (1, &json!(1), &json!("TIMED_OUT")), "{first:?}");
    let second = results(&queue, MAX_WAIT_MS);
    assert_eq!((&second[0]["tag"], &second[0]["status"]), (&json!(2), &json!("OK")));
    assert_eq!(scene.requests(), 1);
}

#[test]
fn a_wait_for_another_process_ends_when_that_has_renewed() {
    let scene = Scene::new(strict());
    let client = Arc::new(scene.signed_in(json!({})));
    scene.server.update(|options| options.latency_ms = 500);
    let mut other = scene.party(json!({}));
    other.begin(json!({"do": "token", "session": SESSION}));
    eventually("the other one asks", || scene.requests() == 1);
    let queue = Queue::open().unwrap();
    let token = value(&queue, &client, json!({"call": "session_token", "session": SESSION}));
    assert_eq!(token["generation"], 2);
    assert_eq!(other.answer().unwrap()["access_token"], token["access_token"]);
    assert_eq!(scene.requests(), 1);
    assert_eq!(client.count()["adopted"], 1);
}

#[test]
fn closing_and_dropping_a_client_end_its_calls() {
    let scene = Scene::new(strict());
    scene.server.update(|options| options.latency_ms = 1500);
    let queue = Queue::open().unwrap();
    let calls = [
        json!({"call": "session_token", "session": SESSION}).to_string(),
        json!({"call": "client_events", "after": 1000, "max_wait_ms": 20_000}).to_string(),
    ];
    for close in [true, false] {
        let client = Arc::new(scene.signed_in(json!({"store": "memory:"})));
        for call in &calls {
            queue.submit(Some(&client), 1, call).unwrap();
        }
        assert_eq!(results(&queue, 200), [] as [Value; 0]);
        let at_close = if close {
            // As long as at exit, by default: 5 s.
            let call = json!({"call": "client_close"}).to_string();
            queue.submit(Some(&client), 2, &call).unwrap();
            3
        } else {
            assert_eq!(client.close(0), Status::TimedOut, "its renewal is under way");
            drop(client);
            2
        };
        let mut all = Vec::new();
        while all.len() < at_close {
            let more = results(&queue, MAX_WAIT_MS);
            assert!(!more.is_empty(), "{all:?}");
            all.extend(more);
        }
        let of = |tag: u64| all.iter().filter(move |result| result["tag"] == tag);
        let statuses: Vec<_> = of(1).map(|result| result["status"].as_str().unwrap()).collect();
        assert!(statuses.contains(&"CLOSED"), "the token: {all:?}");
        assert!(of(1).any(|result| result["value"]["events"] == json!([])), "the events: {all:?}");
        assert!(of(2).all(|result| result["status"] == "OK"), "the exchange settled in time: {all:?}");
    }
}

#[test]
fn a_queue_may_go_before_its_calls() {
    let scene = Scene::new(strict());
    scene.server.update(|options| options.latency_ms = 200);
    let client = Arc::new(scene.signed_in(json!({})));
    let queue = Queue::open().unwrap();
    queue.submit(Some(&client), 1, &json!({"call": "session_token", "session": SESSION}).to_string()).unwrap();
    drop(queue);
    eventually("the renewal goes on without it", || client.tell(SESSION)["generation"] == 2);
}

// ---- where a token may go

#[test]
fn a_token_goes_to_its_own_origins_only() {
    let scene = Scene::new(salesforce());
    let site = scene.server.url();
    let instance = "https://instance.example.com:8443";
    let with_instance = |client: &Client, session: &str| {
        let first = lay_over(parsed(&scene.sign_in().json), json!({"instance_url": format!("{instance}/")}));
        client.save(session, &first.to_string()).unwrap();
    };

    let client = scene.open(json!({}));
    assert!(client.allows(SESSION, &format!("{site}/x"), None).unwrap(), "the site, before there is a session");
    assert!(!client.allows(SESSION, instance, None).unwrap());
    with_instance(&client, SESSION);
    for (url, allowed) in [
        (format!("{site}/services/data"), true),
        (format!("{instance}/services/data?q=1"), true),
        ("https://instance.example.com/".to_owned(), false),
        ("http://instance.example.com:8443/".to_owned(), false),
        ("https://elsewhere.example.com/".to_owned(), false),
        (format!("https://elsewhere.example.com/?{site}"), false),
        ("https://instance.example.com:8443@elsewhere.example.com/".to_owned(), false),
    ] {
        assert_eq!(client.allows(SESSION, &url, Some("https://elsewhere.example.com/")).unwrap(), allowed, "{url}");
    }
    // Another process's memory is empty: the store knows.
    assert!(scene.open(json!({})).allows(SESSION, instance, None).unwrap());

    let client = scene.open(json!({"origins": ["https://api.example.com"], "namespace": "other"}));
    with_instance(&client, SESSION);
    assert!(client.allows(SESSION, "https://api.example.com/x", None).unwrap());
    assert!(!client.allows(SESSION, instance, None).unwrap(), "only what is configured");

    let scene = Scene::new(generic());
    let client = scene.signed_in(json!({}));
    assert!(client.allows(SESSION, "https://api.example.com/1", None).unwrap(), "the first one");
    assert!(client.allows(SESSION, "https://api.example.com/2", Some("https://API.example.com:443/1")).unwrap());
    assert!(!client.allows(SESSION, "https://b.example.com/", Some("https://api.example.com/1")).unwrap());
    assert!(!client.allows(SESSION, "http://api.example.com/", None).unwrap(), "never in the clear");

    for (url, first, named) in [("nothing", None, "url"), ("https://x.example", Some("nothing"), "first_url")] {
        let error = client.allows(SESSION, url, first).unwrap_err();
        assert_eq!(error.status, Status::InvalidArgument);
        assert!(error.message.starts_with(named), "{error}");
    }
    client.close(0);
    assert_eq!(client.allows(SESSION, "https://x.example", None).unwrap_err().status, Status::Closed);
}
