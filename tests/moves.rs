//! Moving sessions from one store to another.

mod common;

use std::path::PathBuf;

use common::*;
use evergrant::{Client, Status};
use evergrant_test_server::{Fault, FaultKind};
use rusqlite::Connection;
use serde_json::{Value, json};

/// A second store beside the first.
fn elsewhere(scene: &Scene) -> PathBuf {
    scene.directory.path().join("elsewhere.db")
}

fn to(path: &std::path::Path) -> String {
    json!({"store": format!("sqlite:{}", path.display())}).to_string()
}

fn open_there(scene: &Scene) -> Client {
    scene.open(serde_json::from_str(&to(&elsewhere(scene))).unwrap())
}

fn reuses(scene: &Scene) -> u64 {
    scene.server.stats().reuses
}

#[test]
fn a_session_goes_on_in_the_other_store() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    let seed = scene.server.families()[0].refresh_tokens[0].token.clone();
    let before = token(client.renew(SESSION, None, None));
    client.move_session(SESSION, &to(&elsewhere(&scene))).unwrap();
    assert_eq!(client.events_of("moved").len(), 1);

    let there = open_there(&scene);
    let served = token(there.token(SESSION, None));
    assert_eq!((&served["access_token"], &served["generation"]), (&before["access_token"], &before["generation"]));
    let renewed = token(there.renew(SESSION, None, None));
    assert_eq!(renewed["generation"], json!(before["generation"].as_u64().unwrap() + 1));

    // Whoever still has the old store is told where it is, spends nothing, and cannot bring it back by habit.
    client.save(SESSION, &json!({"refresh_token": seed}).to_string()).unwrap();
    for error in [
        client.renew(SESSION, None, None).unwrap_err(),
        client.token(SESSION, None).unwrap_err(),
        client.sign_out(SESSION).unwrap_err(),
    ] {
        assert_eq!(class(&error), (Status::Store, Some("moved")), "{error}");
        assert!(error.message.contains("elsewhere.db"), "{error}");
    }
    assert_eq!(client.state(SESSION), "moved");
    assert_eq!(scene.requests(), 2);
    client.move_session(SESSION, &to(&elsewhere(&scene))).unwrap();
    client.forget(SESSION).unwrap();

    // And back.
    there.move_session(SESSION, &to(&scene.store())).unwrap();
    let back = token(client.renew(SESSION, None, None));
    assert_eq!(back["generation"], json!(before["generation"].as_u64().unwrap() + 2));
    assert_eq!((scene.requests(), reuses(&scene)), (3, 0));
    assert_eq!(scene.server.families().len(), 1);
}

#[test]
fn a_move_that_cannot_reach_the_other_store_goes_on_later_or_is_taken_back() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    let access_token = text(client.access_token(SESSION, None));
    let second = open_there(&scene);
    let there = Connection::open(elsewhere(&scene)).unwrap();
    for taken_back in [false, true] {
        there.execute_batch("BEGIN IMMEDIATE").unwrap();
        let error = client.move_session(SESSION, &to(&elsewhere(&scene))).unwrap_err();
        assert_eq!(error.status, Status::Store, "{error}");
        assert_eq!(client.state(SESSION), "moving");
        // What is valid is served; nobody renews.
        assert_eq!(text(client.access_token(SESSION, None)), access_token);
        let requests = scene.requests();
        let error = client.renew(SESSION, None, None).unwrap_err();
        assert_eq!(class(&error), (Status::Unavailable, Some("moving")), "{error}");
        let error = client.sign_out(SESSION).unwrap_err();
        assert_eq!(class(&error), (Status::Unavailable, Some("moving")), "{error}");
        let error = client.forget(SESSION).unwrap_err();
        assert_eq!(class(&error), (Status::Unavailable, Some("moving")), "{error}");
        let third = scene.directory.path().join("third.db");
        let error = client.move_session(SESSION, &to(&third)).unwrap_err();
        assert!(error.message.contains("elsewhere.db"), "{error}");
        assert_eq!(scene.requests(), requests);
        there.execute_batch("ROLLBACK").unwrap();

        if taken_back {
            second.move_session(SESSION, &to(&scene.store())).unwrap();
            assert_eq!((client.state(SESSION).as_str(), second.state(SESSION).as_str()), ("active", "moved"));
            token(client.renew(SESSION, None, None));
        } else {
            // Another process finishes it.
            scene.open(json!({})).move_session(SESSION, &to(&elsewhere(&scene))).unwrap();
            assert_eq!((client.state(SESSION).as_str(), second.state(SESSION).as_str()), ("moved", "active"));
            assert_eq!(text(second.access_token(SESSION, None)), access_token);
            second.move_session(SESSION, &to(&scene.store())).unwrap();
        }
    }
    assert_eq!(reuses(&scene), 0);
}

#[test]
fn a_renewal_that_is_open_is_settled_first() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({"max_wait_ms": 100}));
    scene.server.fault(Fault::from(FaultKind::Delay).before(1500));
    let error = client.renew(SESSION, None, None).unwrap_err();
    assert_eq!(error.status, Status::TimedOut, "{error}");
    let error = client.move_session(SESSION, &to(&elsewhere(&scene))).unwrap_err();
    assert_eq!(error.status, Status::TimedOut, "{error}");
    scene.open(json!({})).move_session(SESSION, &to(&elsewhere(&scene))).unwrap();
    let served = token(open_there(&scene).token(SESSION, None));
    assert_eq!((&served["generation"], scene.requests(), reuses(&scene)), (&json!(2), 1, 0));
}

#[test]
fn what_cannot_be_moved_is_refused_and_stays() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    let there = open_there(&scene);
    scene.saved(&there, SESSION);
    let error = client.move_session(SESSION, &to(&elsewhere(&scene))).unwrap_err();
    assert_eq!(error.status, Status::InvalidArgument, "{error}");
    assert!(error.message.contains("another session of this name"), "{error}");
    assert_eq!((client.state(SESSION).as_str(), there.state(SESSION).as_str()), ("active", "active"));

    for (to_json, named) in [
        (json!({}), "store"),
        (json!({"store": "memory:"}), "store"),
        (json!({"store": "sqlite:x.db", "client_id": "client"}), "client_id"),
        (json!({"store": format!("sqlite:{}", scene.store().display())}), "there already"),
    ] {
        let error = client.move_session(SESSION, &to_json.to_string()).unwrap_err();
        assert_eq!(error.status, Status::InvalidArgument, "{error}");
        assert!(error.message.contains(named), "{error}");
    }
    let error = client.move_session("nobody", &to(&elsewhere(&scene))).unwrap_err();
    assert_eq!(class(&error), (Status::SignInRequired, Some("no_session")), "{error}");
    client.sign_out(SESSION).unwrap();
    let third = scene.directory.path().join("third.db");
    let error = client.move_session(SESSION, &to(&third)).unwrap_err();
    assert_eq!(class(&error), (Status::SignInRequired, Some("no_session")), "{error}");
}

#[test]
fn another_namespace_or_key_is_another_place() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let there = json!({
        "store": format!("sqlite:{}", elsewhere(&scene).display()), "namespace": "ours", "encryption_key": key,
    });
    client.move_session(SESSION, &there.to_string()).unwrap();
    let second = scene.open(there);
    assert_eq!(token(second.renew(SESSION, None, None))["generation"], Value::from(2));
    assert_eq!(reuses(&scene), 0);
}
