//! The rest of the contract: saving, names, lists, options, forgetting, the helpers.

mod common;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use evergrant::{Client, Status};
use evergrant_test_server::{Endpoint, Fault, FaultKind, Options, Rotation};
use serde_json::{Value, json};

// ---- why it ended

#[test]
fn an_ended_session_says_why_and_what_to_do() {
    // Somebody else has used the token that this store holds.
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    client.renew(SESSION, None, None).unwrap();
    let stolen = scene.server.families()[0].refresh_tokens.last().unwrap().token.clone();
    let request = lay_over(scene.config(json!({"store": null})), json!({"refresh_token": stolen}));
    evergrant::refresh(&request.to_string()).unwrap();
    let error = client.renew(SESSION, None, None).unwrap_err();
    assert_eq!(class(&error), (Status::SignInRequired, Some("used_elsewhere_or_revoked")), "{error}");
    let told = client.tell(SESSION);
    assert_eq!((&told["state"], &told["reason"]), (&json!("ended"), &json!("used_elsewhere_or_revoked")));
    assert!(told["message"].as_str().unwrap().contains("second copy"), "{told}");
    let last = told["history"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["outcome"], &last["reason"]), (&json!("invalid_grant"), &json!("used_elsewhere_or_revoked")));
    assert!(last["refresh_token_fingerprint"].as_str().unwrap().len() == 16 && last["at_s"].is_i64());
    assert!(!told.to_string().contains(&stolen));

    // A server that does not rotate has answered to this very token: it has ended by itself.
    let scene = Scene::new(Options { rotation: Rotation::None, ..generic() });
    let client = scene.signed_in(json!({}));
    client.access_token(SESSION, None).unwrap();
    assert_eq!(client.tell(SESSION)["message"], Value::Null, "nothing has ended");
    scene.server.revoke(&scene.server.families()[0].refresh_tokens[0].token);
    let error = client.renew(SESSION, None, None).unwrap_err();
    assert_eq!(class(&error), (Status::SignInRequired, Some("expired_or_revoked")), "{error}");

    let client = scene.signed_in(json!({}));
    client.sign_out(SESSION).unwrap();
    let told = client.tell(SESSION);
    assert_eq!(told["reason"], "signed_out");
    assert!(told["message"].as_str().unwrap().contains("sign-in"), "{told}");
}

/// `docs/signed-out.md` has a section for each reason, and no other.
#[test]
fn every_end_is_explained() {
    let page = include_str!("../docs/signed-out.md");
    let sections: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`')).collect();
    let mut reasons: Vec<_> = evergrant::session::ends::ENDS.iter().map(|(reason, _)| *reason).collect();
    let mut sorted = sections.clone();
    sorted.sort_unstable();
    reasons.sort_unstable();
    assert_eq!(sorted, reasons);
}

// ---- one for all

#[test]
fn sixty_four_threads_at_the_moment_of_expiry_make_one_request() {
    for store in ["memory:".to_owned(), String::new()] {
        let scene = Scene::new(strict());
        scene.server.update(|options| options.latency_ms = 50);
        let store = if store.is_empty() { format!("sqlite:{}", scene.store().display()) } else { store };
        let client = Arc::new(scene.signed_in(json!({"store": store})));
        let begin = Instant::now();
        let threads: Vec<_> = (0..64)
            .map(|_| {
                let client = Arc::clone(&client);
                thread::spawn(move || text(client.access_token(SESSION, None)))
            })
            .collect();
        let tokens: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(tokens.iter().all(|token| *token == tokens[0]));
        assert_eq!(scene.requests(), 1);
        assert!(begin.elapsed() < Duration::from_secs(10), "they waited one after the other");
    }
}

// ---- saving

#[test]
fn saving_the_same_refresh_token_at_every_start_changes_nothing() {
    let scene = Scene::new(strict());
    let seed = json!({"refresh_token": scene.sign_in().refresh_token}).to_string();
    for generation in 2..6 {
        let client = scene.open(json!({}));
        client.save(SESSION, &seed).unwrap();
        assert_eq!(token(client.renew(SESSION, None, None))["generation"], generation);
        let version = client.tell(SESSION)["version"].clone();
        client.save(SESSION, &seed).unwrap();
        assert_eq!(client.tell(SESSION)["version"], version, "not even a write");
        assert_eq!(client.events_of("saved").len(), usize::from(generation == 2));
    }
    assert_eq!(scene.server.families()[0].reuses, 0);
}

#[test]
fn a_spent_refresh_token_is_recognised_and_a_new_one_is_a_sign_in() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    for _ in 0..4 {
        client.renew(SESSION, None, None).unwrap();
    }
    let version = client.tell(SESSION)["version"].clone();
    for known in &scene.server.families()[0].refresh_tokens {
        client.save(SESSION, &json!({"refresh_token": known.token}).to_string()).unwrap();
    }
    assert_eq!(client.tell(SESSION)["version"], version, "spent ones, and the current one");
    let before = text(client.access_token(SESSION, None));
    scene.saved(&client, SESSION);
    let told = client.tell(SESSION);
    assert_eq!((&told["generation"], &told["state"]), (&json!(1), &json!("active")));
    assert!(told["version"].as_i64() > version.as_i64());
    assert_ne!(text(client.access_token(SESSION, None)), before);
}

#[test]
fn a_sign_in_revives_what_has_ended_and_an_old_token_does_not() {
    let scene = Scene::new(strict());
    let client = scene.open(json!({}));
    let seed = scene.saved(&client, SESSION);
    let save = |token: &str| client.save(SESSION, &json!({"refresh_token": token}).to_string()).unwrap();
    scene.server.revoke(&seed);
    client.access_token(SESSION, None).unwrap_err();
    save(&seed);
    assert_eq!(client.state(SESSION), "ended", "the program's start is no sign-in");
    scene.saved(&client, SESSION);
    assert_eq!((client.state(SESSION), client.tell(SESSION)["reason"].clone()), ("active".into(), Value::Null));
    client.sign_out(SESSION).unwrap();
    save(&seed);
    assert_eq!(client.state(SESSION), "signed_out", "still known");
    scene.saved(&client, SESSION);
    assert_eq!(client.state(SESSION), "active");
    client.forget(SESSION).unwrap();
    let again = scene.sign_in().refresh_token;
    save(&again);
    client.forget(SESSION).unwrap();
    save(&again);
    assert_eq!(client.state(SESSION), "active", "forgotten is forgotten");
}

#[test]
fn a_token_without_a_refresh_token_lives_until_it_ends() {
    let scene = Scene::new(strict());
    let client = scene.open(json!({}));
    let save = |session: &str, token: Value| client.save(session, &token.to_string()).unwrap();
    save("short", json!({"access_token": "at", "expires_in": 3600, "token_type": "bearer"}));
    assert_eq!(text(client.access_token("short", None)), "at");
    let error = client.renew("short", None, None).unwrap_err();
    assert_eq!(class(&error), (Status::SignInRequired, Some("no_refresh_token")));
    save("ended", json!({"access_token": "at 2".replace(' ', "-"), "expires_in": 10, "issued_at": "1600000000000"}));
    let error = client.access_token("ended", None).unwrap_err();
    assert_eq!(class(&error), (Status::SignInRequired, Some("no_refresh_token")));
    assert_eq!(scene.requests(), 0);
}

#[test]
fn what_is_no_token_is_not_saved() {
    let scene = Scene::new(strict());
    let client = scene.open(json!({}));
    for (bad, word) in [
        ("", "JSON"),
        ("[]", "JSON"),
        ("{}", "refresh_token"),
        (r#"{"refresh_token": ""}"#, "refresh_token is empty"),
        (r#"{"refresh_token": 5}"#, "refresh_token is not a string"),
        (r#"{"refresh_token": "a\nb"}"#, "characters"),
        (r#"{"access_token": ""}"#, "access_token is empty"),
        (r#"{"access_token": "a b"}"#, "characters"),
        (r#"{"access_token": "at", "token_type": "mac"}"#, "Bearer"),
    ] {
        let error = client.save(SESSION, bad).unwrap_err();
        assert_eq!(error.status, Status::InvalidArgument, "{bad}");
        assert!(error.message.contains(word), "{bad}: {error}");
    }
    assert_eq!(client.describe(SESSION).unwrap_err().reason.as_deref(), Some("no_session"));
}

// ---- leaving

#[test]
fn signing_out_tells_the_server_and_forgetting_does_not() {
    let scene = Scene::new(strict());
    let client = scene.open(json!({}));
    for (session, revocations) in [("forgotten", 0), ("signed out", 2)] {
        let before = scene.server.log().len();
        scene.saved(&client, session);
        client.access_token(session, None).unwrap();
        let leave = || if revocations == 0 { client.forget(session) } else { client.sign_out(session) };
        leave().unwrap();
        leave().unwrap();
        let log = scene.server.log().split_off(before);
        let revoked = log.iter().filter(|request| request.endpoint == Endpoint::Revoke).count();
        assert_eq!(revoked, revocations, "{session}");
    }
    let reasons =
        ["forgotten", "signed out"].map(|session| client.access_token(session, None).unwrap_err().reason.clone());
    assert_eq!(reasons, [Some("no_session".to_owned()), Some("signed_out".to_owned())]);
    assert_eq!(client.describe("forgotten").unwrap_err().reason.as_deref(), Some("no_session"));
    assert_eq!(client.state("signed out"), "signed_out");
    let listed = parsed(&client.list(None, 10).unwrap());
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 1, "{listed}");
    for session in ["nobody", "forgotten"] {
        client.sign_out(session).unwrap();
        client.forget(session).unwrap();
    }
}

#[test]
fn a_sign_out_during_a_renewal_revokes_what_the_renewal_brings() {
    // It has rotated already, and knows of a used refresh token nothing that could be revoked.
    let scene = Scene::new(Options { rotation: Rotation::Strict, ..salesforce() });
    scene.server.fault(Fault::from(FaultKind::Delay).after(700));
    let client = scene.signed_in(json!({}));
    client.access_token(SESSION, Some(r#"{"max_wait_ms": 0}"#)).unwrap_err();
    eventually("it is carried out", || scene.server.stats().token_requests_processed == 1);
    client.sign_out(SESSION).unwrap();
    eventually("the successor is revoked", || !scene.server.families()[0].refresh_tokens[1].live);
    eventually("that is kept", || client.tell(SESSION)["to_revoke"] == 0);
    assert_eq!(client.access_token(SESSION, None).unwrap_err().reason.as_deref(), Some("signed_out"));
}

// ---- what cannot be committed

#[test]
fn an_answer_that_cannot_be_kept_now_is_served_and_kept_later() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    scene.server.fault(Fault::from(FaultKind::Delay).before(700));
    let (path, away) = (scene.store(), scene.directory.path().join("away.db"));
    let served = thread::scope(|scope| {
        let asking = scope.spawn(|| token(client.token(SESSION, None)));
        eventually("it was sent", || scene.requests() == 1);
        fs::rename(&path, &away).unwrap();
        asking.join().unwrap()
    });
    assert_eq!((&served["uncommitted"], &served["generation"]), (&json!(true), &json!(2)));
    eventually("it is told", || client.events_of("commit_pending").len() == 1);
    assert_eq!(token(client.token(SESSION, None))["access_token"], served["access_token"], "and again");
    fs::rename(&away, &path).unwrap();
    eventually("it is kept", || client.tell(SESSION)["generation"] == 2);
    let kept = token(client.token(SESSION, None));
    assert_eq!((kept.get("uncommitted"), &kept["access_token"]), (None, &served["access_token"]));
    assert!(client.count()["commit_retries"].as_u64().unwrap() > 0);
    assert_eq!(scene.requests(), 1, "never sent again");
    assert_eq!(token(client.renew(SESSION, None, None))["generation"], 3);
}

// ---- names and lists

#[test]
fn session_names_are_compared_bytewise_and_checked() {
    let scene = Scene::new(strict());
    let client = scene.open(json!({}));
    let long = "x".repeat(255);
    let names =
        ["a", "A", "a ", " a", "ä", "a\u{308}", "org-17/user-3", "'; DROP TABLE session; --", "\u{10ffff}", &long];
    for name in names {
        scene.saved(&client, name);
    }
    for name in names {
        assert_eq!(client.tell(name)["session"], name);
    }
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    let listed = parsed(&client.list(None, 100).unwrap());
    let listed: Vec<_> = listed["sessions"].as_array().unwrap().iter().map(|row| row["session"].clone()).collect();
    assert_eq!(listed, sorted);
    for bad in ["", &"x".repeat(256), &"ä".repeat(128), "a\nb", "a\u{0}b", "a\u{7f}", "a\u{85}"] {
        let called = [
            client.save(bad, r#"{"refresh_token": "x"}"#),
            client.access_token(bad, None).map(drop),
            client.renew(bad, None, None).map(drop),
            client.describe(bad).map(drop),
            client.stamp(bad).map(drop),
            client.sign_out(bad),
            client.forget(bad),
        ];
        for error in called {
            let error = error.unwrap_err();
            assert_eq!(error.status, Status::InvalidArgument, "{bad:?}");
            assert!(error.message.contains("session"), "{error}");
        }
    }
}

#[test]
fn lists_come_in_pages() {
    let scene = Scene::new(strict());
    for store in ["memory:".to_owned(), format!("sqlite:{}", scene.store().display())] {
        let client = scene.open(json!({"store": store}));
        let other = scene.open(json!({"store": store, "namespace": "other"}));
        let names: Vec<String> = (0..7).map(|n| format!("user {n}")).collect();
        for name in names.iter().rev() {
            scene.saved(&client, name);
        }
        scene.saved(&other, "user 3");
        for limit in [1, 3, 7, 8] {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = parsed(&client.list(after.as_deref(), limit).unwrap());
                let rows = page["sessions"].as_array().unwrap().clone();
                assert!(rows.len() <= limit as usize && !rows.is_empty(), "{store} {limit}: {page}");
                found.extend(rows.iter().map(|row| row["session"].as_str().unwrap().to_owned()));
                let Some(next) = page["next"].as_str() else { break };
                after = Some(next.to_owned());
            }
            assert_eq!(found, names, "{store} {limit}");
        }
        let row = parsed(&client.list(Some("user 5"), 10).unwrap())["sessions"][0].clone();
        assert_eq!(
            (&row["session"], &row["state"], &row["expires_at_s"]),
            (&json!("user 6"), &json!("active"), &json!(null))
        );
        assert_eq!(row["version"], client.tell("user 6")["version"]);
        assert_eq!(parsed(&other.list(None, 10).unwrap())["sessions"].as_array().unwrap().len(), 1);
        for limit in [0, 10_001, u32::MAX] {
            assert!(client.list(None, limit).unwrap_err().message.contains("limit"));
        }
    }
}

// ---- options and helpers

#[test]
fn errors_of_options_name_the_option() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    for (options, word) in [
        ("", "options_json"),
        ("[]", "options_json"),
        ("null", "options_json"),
        (r#"{"max_wait": 1}"#, "\"max_wait\""),
        (r#"{"max_wait_ms": -1}"#, "max_wait_ms"),
        (r#"{"max_wait_ms": "1"}"#, "max_wait_ms"),
        (r#"{"max_wait_ms": 4294967296}"#, "max_wait_ms"),
        (r#"{"min_valid_s": 1.5}"#, "min_valid_s"),
        (r#"{"min_valid_s": 31536001}"#, "min_valid_s"),
        (r#"{"anyway": 1}"#, "anyway"),
    ] {
        let calls = [
            client.token(SESSION, Some(options)),
            client.access_token(SESSION, Some(options)),
            client.renew(SESSION, None, Some(options)),
        ];
        for call in calls {
            let error = call.unwrap_err();
            assert_eq!(error.status, Status::InvalidArgument, "{options}");
            assert!(error.message.contains(word), "{options}: {error}");
        }
    }
    assert_eq!(scene.requests(), 0);
    client.token(SESSION, Some("{}")).unwrap();
}

#[test]
fn json_members_come_as_text() {
    let json = r#"{"text": "a\"\u00e9\n", "number": 1, "flag": false, "none": null, "list": [1, "b"], "object": {"a": {}}, "": "empty"}"#;
    for (name, expected) in [
        ("text", "a\"é\n"),
        ("number", "1"),
        ("flag", "false"),
        ("none", "null"),
        ("list", r#"[1, "b"]"#),
        ("object", r#"{"a": {}}"#),
        ("", "empty"),
    ] {
        assert_eq!(evergrant::json_member(json, name).unwrap().expose(), expected, "{name}");
    }
    for (json, name, word) in [(json, "Text", "Text"), (json, "a", "\"a\""), ("[]", "a", "object"), ("{", "a", "JSON")]
    {
        let error = evergrant::json_member(json, name).unwrap_err();
        assert_eq!(error.status, Status::InvalidArgument);
        assert!(error.message.contains(word), "{error}");
    }
    // Numbers keep their digits.
    let exact = r#"{"id": 123456789012345678901234567890, "price": 1.10}"#;
    assert_eq!(evergrant::json_member(exact, "id").unwrap().expose(), "123456789012345678901234567890");
    assert_eq!(evergrant::json_member(exact, "price").unwrap().expose(), "1.10");
}

#[test]
fn rejections_are_told_from_other_refusals() {
    let invalid = r#"[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]"#;
    for (status, body, expected) in [
        (401, None, true),
        (401, Some(""), true),
        (401, Some(invalid), true),
        (401, Some(r#"{"error":"invalid_token"}"#), true),
        (401, Some(r#"{"error":"insufficient_scope"}"#), false),
        (401, Some("This session is not valid for use with the REST API"), false),
        (403, Some("Bad_OAuth_Token"), true),
        (403, Some(r#"{"error":"insufficient_scope"}"#), false),
        (403, None, false),
        (400, Some(invalid), false),
        (200, Some(invalid), false),
        (503, None, false),
        (0, None, false),
    ] {
        assert_eq!(evergrant::is_rejection(status, body), expected, "{status} {body:?}");
    }
}

#[test]
fn a_closed_client_says_so() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    scene.server.update(|options| options.latency_ms = 500);
    let error = thread::scope(|scope| {
        let asking = scope.spawn(|| client.access_token(SESSION, None).unwrap_err());
        eventually("it was sent", || scene.requests() == 1);
        assert_eq!(client.close(10_000), Status::Ok, "the open exchange settles");
        asking.join().unwrap()
    });
    assert_eq!(error.status, Status::Closed);
    for error in [client.access_token(SESSION, None), client.renew(SESSION, None, None)] {
        assert_eq!(error.unwrap_err().status, Status::Closed);
    }
    assert_eq!(client.save(SESSION, r#"{"refresh_token": "x"}"#).unwrap_err().status, Status::Closed);
    assert_eq!(client.close(0), Status::Ok);
    // Nothing is lost.
    assert_eq!(scene.open(json!({})).tell(SESSION)["generation"], 2);
    assert_eq!(scene.requests(), 1);
}

#[test]
fn errors_are_complete_by_themselves() {
    let scene = Scene::new(strict());
    let client = scene.open(json!({}));
    let mut errors = vec![client.access_token("nobody", None).unwrap_err()];
    scene.saved(&client, SESSION);
    let error = |error: &str| FaultKind::Error { error: error.into(), description: "why".into(), status: 400 };
    for fault in [error("invalid_request"), error("invalid_grant")] {
        scene.server.fault(fault);
        errors.push(client.renew(SESSION, None, Some(r#"{"anyway": true}"#)).unwrap_err());
    }
    errors.push(client.access_token(SESSION, None).unwrap_err());
    for error in &errors {
        let (json, session) = (shown(error), error.session.as_deref().unwrap());
        assert_eq!(json["status"], error.status.name());
        assert!(error.message.contains(&format!("{session:?}")), "{error}");
        assert!(!error.message.contains('\n') && !error.message.contains("  "), "one line, one space: {error}");
        let members = json.as_object().unwrap();
        assert!(members.values().all(|value| !value.is_null()), "absent where not applicable: {json}");
        assert!(members.contains_key("reason") && members.contains_key("message"), "{json}");
    }
    assert_eq!(shown(&errors[1])["error_description"], "why");
    assert_eq!(shown(&errors[0]).get("outcome"), None);
}

#[test]
fn events_are_numbered_and_can_be_waited_for() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    let first = parsed(&client.events(0, 0).unwrap());
    assert_eq!((&first["next"], &first["dropped"]), (&json!(1), &json!(0)));
    let next = first["next"].as_u64().unwrap();
    assert_eq!(parsed(&client.events(next, 20).unwrap())["events"], json!([]));
    let event = thread::scope(|scope| {
        let waiting = scope.spawn(|| parsed(&client.events(next, 20_000).unwrap()));
        client.access_token(SESSION, None).unwrap();
        waiting.join().unwrap()["events"][0].clone()
    });
    assert_eq!((&event["kind"], &event["n"], &event["session"]), (&json!("renewed"), &json!(2), &json!(SESSION)));
    for _ in 0..600 {
        let _ = client.save("many", &json!({"refresh_token": scene.sign_in().refresh_token}).to_string());
    }
    let all = parsed(&client.events(0, 0).unwrap());
    assert_eq!((all["events"].as_array().unwrap().len(), &all["dropped"]), (512, &json!(90)));
    assert_eq!(all["next"], 602);
    let _: &Client = &client;
}

#[test]
fn every_configuration_key_is_documented() {
    let documented = include_str!("../docs/configuration.md");
    for key in evergrant::config::KEYS {
        assert!(documented.contains(&format!("`{}`", key.name)), "docs/configuration.md does not have {}", key.name);
    }
}

#[test]
fn every_status_is_in_the_header() {
    let header = include_str!("../include/evergrant.h");
    for status in Status::ALL {
        let line = format!("EVERGRANT_STATUS_{} = {},", status.name(), status as i32);
        assert!(header.contains(line.trim_end_matches(',')), "{line}");
    }
}

#[test]
fn what_this_process_renews_is_not_adopted() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({"store": "memory:"}));
    let renewed = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !renewed.load(Ordering::Relaxed) {
                    client.describe(SESSION).unwrap();
                }
            });
        }
        (0..1000).for_each(|_| drop(client.renew(SESSION, None, None).unwrap()));
        renewed.store(true, Ordering::Relaxed);
    });
    assert_eq!((&client.count()["adopted"], &client.tell(SESSION)["generation"]), (&json!(0), &json!(1001)));
}
