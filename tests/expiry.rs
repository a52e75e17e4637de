//! When a token is served, when it is renewed, and what memory answers.

mod common;

use std::sync::atomic::Ordering;
use std::thread;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use common::*;
use evergrant::Status;
use evergrant_test_server::{FaultKind, Options};
use serde_json::{Value, json};

fn throttled() -> FaultKind {
    FaultKind::Status { code: 429, body: None, retry_after: Some("600".into()) }
}

// ---- how the end is known

#[test]
fn expires_in_is_read_as_servers_write_it() {
    let scene = Scene::new(strict());
    let client = scene.open(json!({}));
    for (expires_in, life_s) in [
        (json!(1000), Some(1000)),
        (json!("1000"), Some(1000)),
        (json!(1000.9), Some(1000)),
        (json!("0"), None),
        (json!(-1), None),
        (json!(null), None),
        (json!("never"), None),
        (json!(1e30), None),
        (json!([1000]), None),
    ] {
        let name = expires_in.to_string();
        scene.server.update(|options| options.expires_in = Some(expires_in));
        scene.saved(&client, &name);
        let token = token(client.token(&name, None));
        let Some(life_s) = life_s else {
            assert_eq!((&token["expiry"], &token["expires_at_s"]), (&json!("unknown"), &Value::Null), "{name}");
            assert!(token.get("expires_in").is_none(), "{name}: ours, or nothing");
            continue;
        };
        assert_eq!(token["expiry"], "known", "{name}");
        let left = token["expires_in"].as_i64().unwrap();
        assert!((life_s - 30..=life_s).contains(&left), "{name}: {left}");
        let ends = token["expires_at_s"].as_i64().unwrap() - now_ms() as i64 / 1000;
        assert!((left - 30..=left + 1).contains(&ends), "{name}: {ends}");
    }
}

fn jwt(claims: Value) -> String {
    let part = |json: Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    format!("{}.{}.c2ln", part(json!({"alg": "RS256", "typ": "JWT"})), part(claims))
}

#[test]
fn the_earliest_of_all_ends_counts() {
    let scene = Scene::new(Options { send_expires_in: false, ..strict() });
    let now_s = now_ms() / 1000;
    for (exp_s, expires_in_s, lifetime_s, expected) in [
        (Some(500), None, None, ("known", 500)),
        (Some(500), Some(700), Some(900), ("known", 500)),
        (Some(700), Some(500), None, ("known", 500)),
        (Some(700), None, Some(500), ("known", 500)),
        (None, Some(700), Some(500), ("known", 500)),
        (None, None, Some(500), ("assumed", 500)),
    ] {
        let name = format!("{exp_s:?} {expires_in_s:?} {lifetime_s:?}");
        let client = scene.open(json!({"session_lifetime_s": lifetime_s}));
        scene.saved(&client, &name);
        scene.server.update(|options| {
            options.expires_in = expires_in_s.map(|life: u64| life.into());
            options.extra.clear();
            let claims = |life: u64| json!({"exp": now_s + life, "iat": now_s, "sub": name});
            options.extra.extend(exp_s.map(|life| ("access_token".to_owned(), jwt(claims(life)).into())));
        });
        let token = token(client.token(&name, None));
        let left = token["expires_in"].as_i64().unwrap();
        assert_eq!(token["expiry"], expected.0, "{name}");
        assert!((expected.1 - 60..=expected.1).contains(&left), "{name}: {left}");
    }
}

#[test]
fn an_ended_token_is_renewed_when_it_is_asked_for() {
    let scene = Scene::new(strict());
    let client = scene.open(json!({"early_renewal": "off"}));
    let old = scene.save_with_life(&client, SESSION, 1001, 1000);
    assert_eq!(client.peek(SESSION, |_| ()).unwrap_err(), Status::Stale);
    assert_ne!(text(client.access_token(SESSION, None)), old);
    // And while it is used.
    scene.server.update(|options| options.access_token_life_ms = 1000);
    let short = text(client.access_token(SESSION, Some(r#"{"min_valid_s": 100000}"#)));
    scene.server.update(|options| options.access_token_life_ms = 3_600_000);
    eventually("it ends", || text(client.access_token(SESSION, None)) != short);
    assert_eq!(scene.requests(), 3);
}

// ---- early renewal

#[test]
fn early_renewal_in_the_background_serves_at_once() {
    let scene = Scene::new(Options { latency_ms: 800, ..strict() });
    let (client, old) = scene.early(json!({}));
    for _ in 0..100 {
        assert_eq!(text(client.access_token(SESSION, None)), old);
        assert_eq!(client.peek(SESSION, str::to_owned).unwrap().0, old, "also while it is being renewed");
    }
    eventually("renewed", || client.tell(SESSION)["generation"] == 2);
    assert_ne!(text(client.access_token(SESSION, None)), old);
    assert_eq!(scene.requests(), 1);
}

#[test]
fn early_renewal_may_be_waited_for() {
    let scene = Scene::new(Options { latency_ms: 300, ..strict() });
    let (client, old) = scene.early(json!({"early_renewal": "wait"}));
    assert_ne!(text(client.access_token(SESSION, None)), old);
    assert_eq!(scene.requests(), 1);
    // Not for longer than the caller has time.
    let late = "late";
    let old = scene.save_with_life(&client, late, 850, 1000);
    assert_eq!(text(client.access_token(late, Some(r#"{"max_wait_ms": 20}"#))), old);
    eventually("renewed", || client.tell(late)["generation"] == 2);
    assert_eq!(scene.requests(), 2);
}

#[test]
fn early_renewal_may_be_off() {
    let scene = Scene::new(strict());
    let (client, old) = scene.early(json!({"early_renewal": "off"}));
    for _ in 0..10 {
        assert_eq!(text(client.access_token(SESSION, None)), old);
    }
    let (fresh_until_ms, ends_s) =
        (client.peek(SESSION, |_| ()).unwrap().1, client.tell(SESSION)["expires_at_s"].clone());
    assert!(fresh_until_ms <= ends_s.as_i64().unwrap() * 1000 + 1000);
    assert_eq!(client.count()["open_exchanges"], 0);
    assert_eq!(scene.requests(), 0);
}

#[test]
fn a_failed_early_renewal_is_an_event_and_no_error() {
    for early_renewal in ["background", "wait"] {
        let scene = Scene::new(strict());
        let (client, old) = scene.early(json!({"early_renewal": early_renewal}));
        scene.server.fault(throttled());
        assert_eq!(text(client.access_token(SESSION, None)), old);
        eventually("it failed", || client.events_of("renewal_failed").len() == 1);
        let event = &client.events_of("renewal_failed")[0];
        assert_eq!((&event["outcome"], &event["reason"]), (&json!("not_sent"), &json!("server_unavailable")));
        // The back-off binds early renewals as well.
        for _ in 0..10 {
            assert_eq!(text(client.access_token(SESSION, None)), old);
        }
        assert_eq!((scene.requests(), client.state(SESSION)), (1, "active".into()));
    }
}

#[test]
fn a_refusal_of_an_early_renewal_ends_the_session() {
    let scene = Scene::new(strict());
    let (client, old) = scene.early(json!({}));
    assert!(scene.server.revoke(&scene.server.families()[0].refresh_tokens[0].token));
    assert_eq!(text(client.access_token(SESSION, None)), old);
    eventually("it ended", || client.state(SESSION) == "ended");
    assert_eq!(client.access_token(SESSION, None).unwrap_err().status, Status::SignInRequired);
    assert_eq!(scene.requests(), 1);
}

// ---- what a caller wants

#[test]
fn min_valid_s_renews_a_token_that_is_too_short() {
    let scene = Scene::new(strict());
    let client = scene.open(json!({"early_renewal": "off"}));
    let old = scene.save_with_life(&client, SESSION, 500, 1000);
    assert_eq!(text(client.access_token(SESSION, Some(r#"{"min_valid_s": 300}"#))), old);
    assert_eq!(scene.requests(), 0);
    let new = text(client.access_token(SESSION, Some(r#"{"min_valid_s": 700}"#)));
    assert_ne!(new, old);
    assert_eq!(text(client.access_token(SESSION, Some(r#"{"min_valid_s": 700}"#))), new);
    assert_eq!(scene.requests(), 1);
}

#[test]
fn more_validity_than_the_server_gives_is_one_request_each_time() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    let (year, wait) = (31_536_000, 3000);
    for generation in 2..4 {
        let options = json!({"min_valid_s": year, "max_wait_ms": wait}).to_string();
        assert_eq!(token(client.token(SESSION, Some(&options)))["generation"], generation);
        assert_eq!(scene.requests() as u64, generation - 1);
    }
}

#[test]
fn the_same_access_token_again_is_one_request_and_no_failure() {
    let scene = Scene::new(Options { same_access_token: true, ..strict() });
    let client = scene.signed_in(json!({}));
    let first = text(client.access_token(SESSION, None));
    let again = token(client.renew(SESSION, Some(&first), Some(r#"{"max_wait_ms": 3000}"#)));
    assert_eq!((&again["access_token"], &again["generation"]), (&json!(first), &json!(3)));
    assert_eq!(scene.requests(), 2);
}

#[test]
fn a_rejected_token_that_somebody_has_renewed_is_adopted() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    let old = text(client.access_token(SESSION, None));
    // Twenty threads see the same 401.
    let tokens: Vec<String> = thread::scope(|scope| {
        let renew = || token(client.renew(SESSION, Some(&old), None))["access_token"].as_str().unwrap().to_owned();
        let threads: Vec<_> = (0..20).map(|_| scope.spawn(renew)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(tokens.iter().all(|token| *token == tokens[0] && *token != old));
    assert_eq!(scene.requests(), 2);
    // Another client of this process has it at once.
    let other = scene.open(json!({}));
    assert_eq!(token(other.renew(SESSION, Some(&old), None))["access_token"], tokens[0]);
    assert_eq!(scene.requests(), 2);
}

#[test]
fn a_caller_that_leaves_does_not_stop_the_renewal() {
    let scene = Scene::new(Options { latency_ms: 1000, ..strict() });
    let client = scene.signed_in(json!({}));
    let error = client.access_token(SESSION, Some(r#"{"max_wait_ms": 50}"#)).unwrap_err();
    assert_eq!(error.status, Status::TimedOut);
    assert!(error.message.contains("goes on"), "{error}");
    assert_eq!(client.count()["open_exchanges"], 1);
    eventually("it goes on", || client.tell(SESSION)["generation"] == 2);
    client.access_token(SESSION, Some(r#"{"max_wait_ms": 0}"#)).unwrap();
    assert_eq!((client.outcomes(SESSION), scene.requests()), (vec!["done".into()], 1));
}

#[test]
fn waiting_for_another_process_ends_in_time() {
    let scene = Scene::new(Options { latency_ms: 1500, ..strict() });
    let client = scene.signed_in(json!({}));
    let mut other = scene.party(json!({}));
    other.begin(json!({"do": "access_token", "session": SESSION}));
    eventually("it has sent", || scene.requests() == 1);
    let error = client.access_token(SESSION, Some(r#"{"max_wait_ms": 50}"#)).unwrap_err();
    assert_eq!(error.status, Status::TimedOut);
    let told = client.tell(SESSION);
    assert!(told["attempt"]["until_s"].as_i64() > told["attempt"]["since_s"].as_i64(), "{told}");
    assert_eq!(other.answer().unwrap(), text(client.access_token(SESSION, None)));
    assert_eq!(client.count()["waits"], 1);
    assert_eq!(scene.requests(), 1);
}

#[test]
fn a_client_that_never_renews_uses_what_others_renew() {
    let scene = Scene::new(Options { latency_ms: 300, ..strict() });
    let client = scene.signed_in(json!({}));
    let mut user = scene.party(json!({"renews": false}));
    let nothing = user.ask(json!({"do": "access_token", "session": SESSION, "options": {"max_wait_ms": 50}}));
    assert_eq!(nothing.unwrap_err()["status"], "TIMED_OUT");
    assert_eq!(scene.requests(), 0);
    user.begin(json!({"do": "access_token", "session": SESSION}));
    let token = text(client.access_token(SESSION, None));
    assert_eq!(user.answer().unwrap(), token);
    assert_eq!(scene.requests(), 1);
}

// ---- memory

#[test]
fn memory_is_trusted_for_so_long() {
    let scene = Scene::new(strict());
    for (recheck_s, reads) in [(0, 10), (3600, 0)] {
        let name = format!("{recheck_s}");
        let client = scene.open(json!({"recheck_s": recheck_s}));
        scene.saved(&client, &name);
        client.access_token(&name, None).unwrap();
        let (hits, before) =
            (client.count()["hits"].as_u64().unwrap(), client.count()["store_reads"].as_u64().unwrap());
        for _ in 0..10 {
            client.access_token(&name, None).unwrap();
        }
        let after = client.count();
        assert_eq!(after["store_reads"].as_u64().unwrap() - before, reads, "recheck_s {recheck_s}");
        assert_eq!(after["hits"].as_u64().unwrap() - hits, 10 - reads, "recheck_s {recheck_s}");
    }
}

#[test]
fn peek_answers_from_memory_alone() {
    let scene = Scene::new(strict());
    let client = scene.open(json!({"recheck_s": 30}));
    let peek = || client.peek(SESSION, str::to_owned);
    assert_eq!(peek().unwrap_err(), Status::Stale, "nobody has asked yet");
    scene.saved(&client, SESSION);
    assert_eq!(peek().unwrap_err(), Status::Stale, "there is no access token yet");
    let token = text(client.access_token(SESSION, None));
    let before = client.count();
    let (peeked, fresh_until_ms) = peek().unwrap();
    assert_eq!(peeked, token);
    let left_ms = fresh_until_ms - now_ms() as i64;
    assert!((1..=30_000).contains(&left_ms), "no longer than recheck_s: {left_ms}");
    let after = client.count();
    assert_eq!(after["store_reads"], before["store_reads"]);
    assert_eq!(after["hits"].as_u64().unwrap(), before["hits"].as_u64().unwrap() + 1);
    client.sign_out(SESSION).unwrap();
    assert_eq!(peek().unwrap_err(), Status::Stale);
    assert_eq!(client.close(1000), Status::Ok);
    assert_eq!(peek().unwrap_err(), Status::Closed);
}

#[test]
fn fresh_until_is_no_later_than_the_early_window() {
    let scene = Scene::new(strict());
    let client = scene.open(json!({"recheck_s": 3600, "renew_before_s": 400}));
    scene.save_with_life(&client, SESSION, 100, 1000);
    let ends_ms = client.tell(SESSION)["expires_at_s"].as_i64().unwrap() * 1000;
    let fresh_until_ms = client.peek(SESSION, |_| ()).unwrap().1;
    // A fifth of renew_before_s is jitter.
    assert!((ends_ms - 401_000..=ends_ms - 318_000).contains(&fresh_until_ms), "{}", ends_ms - fresh_until_ms);
}

#[test]
fn the_stamp_changes_exactly_when_peek_would() {
    let scene = Scene::new(strict());
    let client = scene.open(json!({"recheck_s": 0}));
    // Others share the word of a name that they share.
    let name = "stamped";
    let stamp = client.stamp(name).unwrap();
    let mut last = stamp.load(Ordering::Acquire);
    let mut changed = || {
        let now = stamp.load(Ordering::Acquire);
        std::mem::replace(&mut last, now) != now
    };
    scene.saved(&client, name);
    assert!(changed(), "saved");
    client.access_token(name, None).unwrap();
    assert!(changed(), "renewed");
    for _ in 0..10 {
        client.access_token(name, None).unwrap();
        client.peek(name, |_| ()).unwrap_or_default();
        client.describe(name).unwrap();
    }
    assert!(!changed(), "nothing has happened");
    scene.party(json!({})).of("renew", name).unwrap();
    assert!(!changed(), "nobody has looked");
    client.access_token(name, None).unwrap();
    assert!(changed(), "adopted");
    let other = scene.open(json!({}));
    assert_eq!(other.stamp(name).unwrap().as_ptr(), stamp.as_ptr(), "one word for all clients of a session");
    other.renew(name, None, None).unwrap();
    assert!(changed(), "renewed by another client of this process");
    client.sign_out(name).unwrap();
    assert!(changed(), "signed out");
    scene.saved(&client, name);
    assert!(changed(), "signed in");
    client.forget(name).unwrap();
    assert!(changed(), "forgotten");
}

#[test]
fn peek_serves_a_token_to_its_end_and_not_past_it() {
    let scene = Scene::new(strict());
    let client = scene.open(json!({"early_renewal": "off"}));
    for _ in 0..3 {
        scene.save_with_life(&client, SESSION, 0, 1);
        client.access_token(SESSION, None).unwrap();
        let mut hits = 0;
        // The clock is read first: what it says then has not yet passed when peek answers.
        while let (now, Ok(((), until_ms))) = (now_ms(), client.peek(SESSION, |_| ())) {
            assert!(now < until_ms as u64, "{} ms past its end", now - until_ms as u64);
            hits += 1;
        }
        assert!(hits > 1000, "{hits}");
    }
}
