//! Sessions in PostgreSQL: outages, restarts, lost replies, and many processes, with real servers.

mod common;

use std::time::{Duration, Instant};

use common::servers::{self, Postgres, Proxy};
use common::{Party, SESSION, Scene, Tell, class, eventually, lay_over, sleep_ms, strict, text, token};
use evergrant::Status;
use evergrant_test_server::{Fault, FaultKind, Options};
use rustix::process::Signal;
use serde_json::{Value, json};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A configuration for this store.
fn on(url: &str, more: Value) -> Value {
    lay_over(json!({"store": url, "encryption_key": KEY}), more)
}

#[test]
fn opening_a_client_connects_nothing() {
    let postgres = Postgres::shared();
    let proxy = Proxy::to(postgres.port);
    let scene = Scene::new(strict());
    let config = on(&servers::url(proxy.port, &postgres.database()), json!({}));
    let client = scene.open(config.clone());
    assert_eq!(client.peek(SESSION, |_| ()).unwrap_err(), Status::Stale);
    client.stats().unwrap();
    assert_eq!(proxy.connections(), 0);
    scene.saved(&client, SESSION);
    assert_eq!(proxy.connections(), 1);
    // Clients that name the same store share its connections.
    scene.open(config).describe(SESSION).unwrap();
    assert_eq!(proxy.connections(), 1);
}

#[test]
fn a_valid_token_is_served_while_the_server_is_away_and_none_is_spent() {
    let postgres = Postgres::start();
    let scene = Scene::new(Options { access_token_life_ms: 12_000, ..strict() });
    let client = scene.open(on(
        &postgres.url(&postgres.database()),
        json!({"recheck_s": 0, "early_renewal": "off", "max_wait_ms": 1500}),
    ));
    scene.saved(&client, SESSION);
    let first = text(client.access_token(SESSION, None));
    postgres.stop(Signal::QUIT);
    for _ in 0..200 {
        assert_eq!(text(client.access_token(SESSION, None)), first);
        sleep_ms(5);
    }
    // Its life is over at last: then there is an error, and nothing is sent.
    let mut failed = None;
    eventually("an error", || {
        failed = client.access_token(SESSION, None).err();
        failed.is_some()
    });
    let failed = failed.unwrap();
    assert_eq!(class(&failed), (Status::Store, None));
    assert!(
        failed.message.contains("the refresh token was not spent") && !failed.message.contains("canary"),
        "{failed}"
    );
    assert_eq!(scene.requests(), 1);
    postgres.resume(&[]);
    eventually("a new token", || client.access_token(SESSION, None).is_ok_and(|token| token.expose() != first));
    assert_eq!(scene.requests(), 2);
}

#[test]
fn a_silent_server_hardly_delays_who_has_a_valid_token() {
    let postgres = Postgres::shared();
    let proxy = Proxy::to(postgres.port);
    let scene = Scene::new(Options { access_token_life_ms: 120_000, ..strict() });
    let client = scene.open(on(
        &servers::url(proxy.port, &postgres.database()),
        json!({"recheck_s": 0, "early_renewal": "off", "max_wait_ms": 60_000}),
    ));
    scene.saved(&client, SESSION);
    let first = text(client.access_token(SESSION, None));
    proxy.fall_silent();
    let since = Instant::now();
    for _ in 0..100 {
        assert_eq!(text(client.access_token(SESSION, None)), first);
    }
    // A statement may take 5 s otherwise.
    assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
    proxy.heal();
    eventually("the store", || client.describe(SESSION).is_ok());
    assert_eq!(scene.requests(), 1);
}

#[test]
fn a_caller_with_time_waits_for_a_server_that_restarts() {
    let postgres = Postgres::start();
    let scene = Scene::new(strict());
    let client = scene.open(on(&postgres.url(&postgres.database()), json!({"max_wait_ms": 60_000})));
    scene.saved(&client, SESSION);
    postgres.stop(Signal::QUIT);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.access_token(SESSION, None));
        sleep_ms(500);
        assert!(!waiting.is_finished());
        postgres.resume(&[]);
        assert!(waiting.join().unwrap().is_ok());
    });
    assert_eq!(scene.requests(), 1);
}

#[test]
fn an_answer_that_comes_while_the_server_restarts_is_kept_and_committed() {
    let postgres = Postgres::start();
    let scene = Scene::new(strict());
    let url = postgres.url(&postgres.database());
    let client = scene.open(on(&url, json!({"max_wait_ms": 30_000})));
    scene.saved(&client, SESSION);
    // On a busy machine the server takes seconds to stop.
    scene.server.fault(Fault::from(FaultKind::Delay).before(12_000));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| token(client.token(SESSION, None)));
        eventually("the request", || scene.requests() == 1);
        postgres.stop(Signal::QUIT);
        let got = asking.join().unwrap();
        assert_eq!(got["uncommitted"], true, "{got}");
    });
    assert_eq!(client.events_of("commit_pending").len(), 1);
    postgres.resume(&[]);
    let mut other = Party::start();
    other.ask(json!({"do": "open", "config": scene.config(on(&url, json!({})))})).unwrap();
    eventually("the commit", || {
        let shown = other.of("describe", SESSION).unwrap();
        shown["generation"] == 2 && shown["attempt"].is_null()
    });
    assert_eq!(scene.requests(), 1);
}

#[test]
fn a_claim_whose_commit_was_not_heard_of_is_recognised() {
    let postgres = Postgres::shared();
    let proxy = Proxy::to(postgres.port);
    let scene = Scene::new(strict());
    let client = scene.open(on(&servers::url(proxy.port, &postgres.database()), json!({"max_wait_ms": 30_000})));
    scene.saved(&client, SESSION);
    // Of the claim.
    proxy.lose_next_commit();
    let first = text(client.access_token(SESSION, None));
    assert_eq!((scene.requests(), client.tell(SESSION)["generation"].as_u64()), (1, Some(2)));
    // Of the result.
    scene.server.fault(Fault::from(FaultKind::Delay).before(1500));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| client.renew(SESSION, Some(&first), None).unwrap());
        eventually("the request", || scene.requests() == 2);
        proxy.lose_next_commit();
        asking.join().unwrap();
    });
    eventually("the end of the attempt", || client.tell(SESSION)["attempt"].is_null());
    assert_eq!((scene.requests(), client.tell(SESSION)["generation"].as_u64()), (2, Some(3)));
    assert_eq!(client.outcomes(SESSION), ["done", "done"]);
}

#[test]
fn sixteen_processes_make_one_renewal() {
    const PARTIES: usize = 16;
    let postgres = Postgres::shared();
    let scene = Scene::new(strict());
    let config = on(&postgres.url(&postgres.database()), json!({"max_wait_ms": 50_000, "early_renewal": "off"}));
    let mut parties: Vec<Party> = (0..PARTIES).map(|_| Party::start()).collect();
    for party in &mut parties {
        party.ask(json!({"do": "open", "config": scene.config(config.clone())})).unwrap();
    }
    let refresh_token = scene.sign_in().refresh_token;
    parties[0].ask(json!({"do": "save", "session": SESSION, "token": {"refresh_token": refresh_token}})).unwrap();
    let mut rejected = Value::Null;
    for round in 1..=5 {
        let call = match &rejected {
            Value::Null => json!({"do": "token", "session": SESSION}),
            rejected => json!({"do": "renew", "session": SESSION, "rejected": rejected}),
        };
        parties.iter_mut().for_each(|party| party.begin(call.clone()));
        let got: Vec<Value> = parties.iter_mut().map(|party| party.answer().unwrap()).collect();
        assert_eq!(scene.requests(), round);
        for token in &got {
            assert_eq!(token["access_token"], got[0]["access_token"]);
        }
        rejected = got[0]["access_token"].clone();
    }
}

#[test]
fn a_process_that_was_killed_is_replayed_after_its_deadline_by_another_machine() {
    let postgres = Postgres::shared();
    let scene = Scene::new(common::grace(evergrant_test_server::GraceKind::SamePair));
    let config = on(
        &postgres.url(&postgres.database()),
        json!({"connect_timeout_ms": 200, "exchange_timeout_ms": 500, "max_wait_ms": 60_000}),
    );
    let client = scene.open(config.clone());
    scene.saved(&client, SESSION);
    scene.server.fault(Fault::from(FaultKind::Delay).before(60_000));
    let mut party = Party::start();
    party.ask(json!({"do": "open", "config": scene.config(config)})).unwrap();
    party.begin(json!({"do": "token", "session": SESSION}));
    eventually("the request", || scene.requests() == 1);
    party.kill();
    // The other's life cannot be known: its deadline is waited for, a little more than 30 s.
    let got = token(client.token(SESSION, None));
    assert_eq!(got["generation"], 2, "{got}");
    assert_eq!(client.count()["replays"], 1);
}

#[test]
fn a_server_that_may_forget_is_told_of_in_the_events() {
    let postgres = Postgres::start();
    let url = postgres.url(&postgres.database());
    postgres.stop(Signal::INT);
    postgres.resume(&["fsync=off"]);
    let scene = Scene::new(strict());
    let client = scene.signed_in(on(&url, json!({})));
    client.access_token(SESSION, None).unwrap();
    let warnings = client.events_of("store_warning");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0]["reason"], "store_not_durable");
    assert!(!warnings[0].to_string().contains("canary"));
}
