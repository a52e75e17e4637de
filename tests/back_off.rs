//! Waits that are kept in the record: who is bound, for how long, and who goes past.

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::*;
use evergrant::Status;
use evergrant_test_server::{Fault, FaultKind};
use serde_json::json;

const ANYWAY: Option<&str> = Some(r#"{"anyway": true}"#);

fn throttled(retry_after: &str) -> FaultKind {
    FaultKind::Status { code: 429, body: None, retry_after: Some(retry_after.into()) }
}

#[test]
fn the_servers_word_binds_everybody() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    let mut other = scene.party(json!({}));
    scene.server.fault(throttled("600"));
    let first = client.access_token(SESSION, None).unwrap_err();
    assert_eq!(class(&first), (Status::Unavailable, Some("server_unavailable")));
    assert_eq!((first.http_status, first.outcome), (Some(429), Some("not_sent")));
    let bound = other.of("access_token", SESSION).unwrap_err();
    assert_eq!((&bound["status"], &bound["reason"]), (&json!("UNAVAILABLE"), &json!("server_unavailable")));
    let told_ms = client.tell(SESSION)["retry_after_ms"].as_u64().unwrap();
    for retry_after_ms in [first.retry_after_ms.unwrap(), bound["retry_after_ms"].as_u64().unwrap(), told_ms] {
        // Only ever lengthened, by at most ten seconds.
        assert!((560_000..=610_000).contains(&retry_after_ms), "{retry_after_ms}");
    }
    assert_eq!(client.state(SESSION), "active");
    assert_eq!(scene.requests(), 1);
}

#[test]
fn a_short_wait_ends() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    scene.server.fault(throttled("1"));
    let error = client.access_token(SESSION, None).unwrap_err();
    assert!((1..=2100).contains(&error.retry_after_ms.unwrap()), "{error:?}");
    eventually("the wait is over", || client.access_token(SESSION, None).is_ok());
    assert_eq!(client.outcomes(SESSION), ["not_sent", "done"]);
}

#[test]
fn retry_after_is_read_as_servers_write_it() {
    let scene = Scene::new(strict());
    let client = scene.open(json!({}));
    let day = 86_400_000;
    for (retry_after, expected_ms) in [
        ("120", 120_000..=122_000),
        ("999999999", day..=day + 10_000),
        ("Fri, 31 Dec 2398 23:59:59 GMT", day..=day + 10_000),
        // In the past, or nonsense: ours.
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0..=10_000),
        ("-5", 0..=1000),
        ("soon", 0..=1000),
    ] {
        scene.saved(&client, retry_after);
        scene.server.fault(throttled(retry_after));
        client.access_token(retry_after, Some(r#"{"max_wait_ms": 0}"#)).unwrap_err();
        eventually("it is told", || !client.outcomes(retry_after).is_empty());
        let told = client.tell(retry_after)["retry_after_ms"].as_u64().unwrap_or(0);
        assert!(told + 60_000 >= *expected_ms.start() && told <= *expected_ms.end(), "{retry_after}: {told}");
    }
}

#[test]
fn an_unreachable_server_is_left_alone_by_this_machine() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    let mut other = scene.party(json!({}));
    scene.server.refuse_connections(Duration::from_secs(60));
    let error = client.access_token(SESSION, None).unwrap_err();
    assert_eq!(class(&error), (Status::Unavailable, Some("network")));
    assert!(error.message.contains("nothing was sent"), "{error}");
    // Repeated, so that the wait cannot have ended by the time that the other one asks.
    for _ in 0..8 {
        client.renew(SESSION, None, ANYWAY).unwrap_err();
    }
    let bound = other.of("access_token", SESSION).unwrap_err();
    assert_eq!((&bound["status"], &bound["reason"]), (&json!("UNAVAILABLE"), &json!("network")));
    assert_eq!(other.of("stats", SESSION).unwrap()["exchanges"]["not_sent"], 0, "it has not tried");
    assert_eq!((scene.requests(), client.state(SESSION)), (0, "active".into()));
}

#[test]
fn waits_grow_and_stay_bounded() {
    let scene = Scene::new(strict());
    let client = scene.open(json!({"token_endpoint": "http://127.0.0.1:9/token"}));
    scene.saved(&client, SESSION);
    let mut waits = Vec::new();
    for n in 0..12_u32 {
        let error = client.renew(SESSION, None, ANYWAY).unwrap_err();
        assert_eq!(error.outcome, Some("not_sent"));
        let full_ms = (1000_u64 << n).min(300_000);
        let told_ms = client.tell(SESSION)["retry_after_ms"].as_u64().unwrap_or(0);
        assert!(told_ms <= full_ms, "{told_ms} of {full_ms}");
        // Up to a half is jitter; what has passed since is little beside the longer ones.
        assert!(n < 7 || told_ms >= full_ms / 2 - 30_000, "{told_ms} of {full_ms}");
        waits.push(told_ms);
        let reported_ms = error.retry_after_ms.expect("when to try again");
        assert!(reported_ms <= full_ms && reported_ms >= told_ms, "{reported_ms}, {told_ms}");
    }
    assert!(waits[11] > waits[3], "{waits:?}");
    // A success forgets it all.
    let well = scene.open(json!({"namespace": namespace_of("http://127.0.0.1:9/token")}));
    well.renew(SESSION, None, ANYWAY).unwrap();
    assert!(well.tell(SESSION)["retry_after_ms"].is_null());
}

fn namespace_of(token_endpoint: &str) -> String {
    format!("{token_endpoint} client")
}

#[test]
fn a_wrong_secret_binds_only_who_has_it() {
    let scene = Scene::new(strict());
    let wrong = scene.signed_in(json!({"client_secret": "wrong"}));
    let error = wrong.access_token(SESSION, None).unwrap_err();
    assert_eq!(class(&error), (Status::Refused, Some("client_refused")));
    for _ in 0..7 {
        wrong.renew(SESSION, None, ANYWAY).unwrap_err();
    }
    let requests = scene.requests();
    let again = wrong.access_token(SESSION, None).unwrap_err();
    assert_eq!(class(&again), (Status::Refused, Some("client_refused")));
    assert!(again.retry_after_ms.unwrap() > 0);
    let mut same = scene.party(json!({"client_secret": "wrong"}));
    assert_eq!(same.of("access_token", SESSION).unwrap_err()["status"], "REFUSED");
    assert_eq!(scene.requests(), requests, "it would be refused again");
    let right = scene.open(json!({}));
    let renewed = token(right.token(SESSION, None));
    assert_eq!((&renewed["generation"], scene.requests()), (&json!(2), requests + 1));
    // What one of them renews, all may use.
    assert_eq!(token(wrong.token(SESSION, None))["access_token"], renewed["access_token"]);
}

#[test]
fn anyway_goes_past_a_wait_once() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    scene.server.fault(Fault::from(throttled("600")).times(2));
    client.access_token(SESSION, None).unwrap_err();
    client.access_token(SESSION, None).unwrap_err();
    assert_eq!(scene.requests(), 1);
    let error = client.renew(SESSION, None, ANYWAY).unwrap_err();
    assert_eq!((error.http_status, scene.requests()), (Some(429), 2), "sent, and throttled again");
    client.access_token(SESSION, None).unwrap_err();
    assert_eq!(scene.requests(), 2);
    assert_eq!(token(client.renew(SESSION, None, ANYWAY))["generation"], 2);
    client.renew(SESSION, None, None).unwrap();
    assert_eq!(scene.requests(), 4, "a success has ended the wait");
}

#[test]
fn anyway_does_not_go_past_the_wait_that_it_brings_about() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    scene.server.fault(FaultKind::Status { code: 503, body: None, retry_after: Some("600".into()) });
    client.access_token(SESSION, None).unwrap_err();
    scene.server.close_connections(false);
    scene.server.refuse_connections(Duration::from_secs(600));
    let before = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| client.renew(SESSION, None, ANYWAY));
        // Whoever looks at the record wakes those who wait.
        eventually("it was tried twice", || client.outcomes(SESSION).len() > 2);
        assert!(before.elapsed() >= Duration::from_millis(500), "{:?}", before.elapsed());
    });
}

#[test]
fn a_token_that_is_still_valid_is_served_during_a_wait() {
    let scene = Scene::new(strict());
    let client = scene.open(json!({"early_renewal": "off"}));
    let valid = scene.save_with_life(&client, SESSION, 0, 1000);
    scene.server.fault(throttled("600"));
    client.renew(SESSION, None, None).unwrap_err();
    assert_eq!(text(client.access_token(SESSION, None)), valid);
    assert_eq!(client.renew(SESSION, Some(&valid), None).unwrap_err().status, Status::Unavailable, "it is rejected");
    assert_eq!(scene.requests(), 1);
}
