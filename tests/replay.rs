//! Doubt and replay: what a lost, broken or late answer makes of a session. (Every fault in every state: wire.rs.)

mod common;

use common::*;
use evergrant::Status;
use evergrant_test_server::{Fault, FaultKind, GraceKind, Options, Rotation, WrongType};
use serde_json::json;

const WAIT: Option<&str> = Some(r#"{"max_wait_ms": 30000}"#);

fn gateway(code: u16) -> FaultKind {
    FaultKind::Status { code, body: None, retry_after: None }
}

fn gateway_after(code: u16) -> FaultKind {
    FaultKind::StatusAfter { code, body: None, retry_after: None }
}

fn wrong(variant: WrongType) -> FaultKind {
    FaultKind::WrongTypes { variant }
}

#[test]
fn what_happened_is_told_in_events_and_numbers() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    scene.server.fault(gateway(503));
    client.access_token(SESSION, WAIT).unwrap();
    scene.server.fault(FaultKind::DropReply);
    client.renew(SESSION, None, WAIT).unwrap_err();
    let told: Vec<_> = client.log().iter().map(|event| (event["kind"].clone(), event["outcome"].clone())).collect();
    let expected = [
        (json!("saved"), json!(null)),
        (json!("renewal_failed"), json!("unknown")),
        (json!("renewed"), json!("done")),
        (json!("renewal_failed"), json!("unknown")),
        (json!("ended"), json!("invalid_grant")),
    ];
    assert_eq!(told, expected);
    assert_eq!(client.events_of("ended")[0]["reason"], "rotation_lost");
    let stats = client.count();
    assert_eq!((&stats["replays"], &stats["exchanges"]["unknown"]), (&json!(2), &json!(2)));
    assert_eq!((&stats["exchanges"]["done"], &stats["exchanges"]["invalid_grant"]), (&json!(1), &json!(1)));
}

#[test]
fn who_prefers_to_sign_in_presents_exactly_once() {
    let scene = Scene::new(strict());
    let client = scene.open(json!({"lost_reply": "sign_in", "connect_timeout_ms": 1500, "exchange_timeout_ms": 300}));
    for fault in [FaultKind::DropReply, FaultKind::ResetAfterRead, FaultKind::Hang, gateway(503), gateway_after(502)] {
        let name = format!("{fault:?}");
        let refresh_token = scene.saved(&client, &name);
        scene.server.fault(fault);
        for _ in 0..2 {
            let error = client.access_token(&name, WAIT).unwrap_err();
            assert_eq!(class(&error), (Status::SignInRequired, Some("rotation_lost")), "{name}: {error}");
        }
        assert_eq!(scene.server.presentations(&refresh_token), 1, "{name}");
        assert_eq!((client.outcomes(&name), client.state(&name)), (vec!["unknown".into()], "ended".into()), "{name}");
        // A new sign-in goes on under the same name.
        scene.saved(&client, &name);
        client.access_token(&name, None).unwrap();
    }
    assert_eq!(client.events_of("ended").len(), 5);
    assert_eq!(client.count()["replays"], 0);
}

#[test]
fn every_kind_of_grace_heals() {
    for kind in [GraceKind::SamePair, GraceKind::SiblingsAll, GraceKind::NewestWins] {
        let scene = Scene::new(grace(kind));
        let client = scene.signed_in(json!({}));
        scene.server.fault(FaultKind::DropReply);
        client.access_token(SESSION, WAIT).unwrap();
        for generation in 3..5 {
            assert_eq!(token(client.renew(SESSION, None, None))["generation"], generation, "{kind:?}");
        }
        assert_eq!((scene.requests(), scene.server.families()[0].reuses), (4, 0), "{kind:?}");
    }
}

#[test]
fn a_ghost_that_is_merely_refused_costs_nothing() {
    // The request is read, and carried out only after its sender has given up and sent it again.
    let scene = Scene::new(Options { rotation: Rotation::StrictRefuses, ..strict() });
    let client = scene.open(json!({"connect_timeout_ms": 1500, "exchange_timeout_ms": 300}));
    let refresh_token = scene.saved(&client, SESSION);
    scene.server.fault(FaultKind::ProcessLate { delay_ms: 1500 });
    client.access_token(SESSION, WAIT).unwrap();
    eventually("the ghost was refused", || scene.server.stats().reuses == 1);
    assert_eq!(scene.server.presentations(&refresh_token), 2);
    assert_eq!(token(client.renew(SESSION, None, None))["generation"], 3);
    assert_eq!(client.outcomes(SESSION), ["unknown", "done", "done"]);
}

#[test]
fn a_doubt_is_shown_and_resolved_without_anybody_asking() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    scene.server.fault(Fault::from(gateway(503)).times(2));
    client.access_token(SESSION, Some(r#"{"max_wait_ms": 0}"#)).unwrap_err();
    eventually("in doubt", || client.state(SESSION) == "in_doubt");
    assert_eq!(client.tell(SESSION)["attempt"]["sends"].as_u64().map(|sends| sends <= 2), Some(true));
    eventually("resolved", || client.tell(SESSION)["generation"] == 2);
    assert_eq!((client.state(SESSION), client.outcomes(SESSION).len()), ("active".into(), 3));
    assert_eq!(scene.requests(), 3);
}

#[test]
fn the_attempt_of_a_dead_process_is_replayed_as_a_claim_of_its_own() {
    for (options, heals) in [(strict(), false), (grace(GraceKind::SiblingsAll), true), (generic(), true)] {
        let scene = Scene::new(options);
        let client = scene.signed_in(json!({}));
        let mut dying = scene.party(json!({}));
        // Carried out, and then the answer takes its time.
        scene.server.fault(Fault::from(FaultKind::Delay).after(1500));
        scene.server.fault(Fault::from(FaultKind::Delay).before(500));
        dying.begin(json!({"do": "access_token", "session": SESSION}));
        eventually("it is carried out", || scene.server.stats().token_requests_processed == 1);
        let first = client.tell(SESSION)["attempt"].clone();
        assert_eq!(first["sends"], 1);
        dying.kill();
        let second = std::thread::scope(|scope| {
            let asking = scope.spawn(|| client.access_token(SESSION, WAIT));
            eventually("it is taken over", || scene.requests() == 2);
            let second = client.tell(SESSION)["attempt"].clone();
            assert_eq!(asking.join().unwrap().is_ok(), heals);
            second
        });
        assert_eq!(second["sends"], 2);
        assert_ne!(second["owner"], first["owner"]);
        assert_eq!((scene.requests(), client.count()["replays"].as_u64()), (2, Some(1)));
        assert_eq!(client.state(SESSION), if heals { "active" } else { "ended" });
    }
}

#[test]
fn messages_name_the_cause_and_what_to_do() {
    let scene = Scene::new(strict());
    for (fault, words) in [
        (
            FaultKind::Redirect { location: "https://login.example.com/".into(), code: 307 },
            ["redirect", "token_endpoint"],
        ),
        (FaultKind::Oversized { bytes: 2 << 20 }, ["1 MiB", "may have been carried out"]),
        (FaultKind::NonJson, ["JSON", "of no use"]),
        (wrong(WrongType::NotUtf8), ["UTF-8", "of no use"]),
        (gateway(404), ["HTTP 404", "URL"]),
        (gateway(503), ["HTTP 503", "not known"]),
        (FaultKind::ResetAfterRead, ["the connection broke", "may have been carried out"]),
        (FaultKind::Hang, ["exchange_timeout_ms", "may have been carried out"]),
    ] {
        let client = scene.open(json!({"connect_timeout_ms": 1500, "exchange_timeout_ms": 300}));
        let name = format!("{fault:?}");
        scene.saved(&client, &name);
        scene.server.fault(Fault::from(fault).times(2));
        let _ = client.access_token(&name, Some(r#"{"max_wait_ms": 0}"#));
        eventually("it failed", || !client.events_of("renewal_failed").is_empty());
        let message = client.events_of("renewal_failed")[0]["message"].as_str().unwrap().to_owned();
        assert!(words.iter().all(|word| message.contains(word)), "{name}: {message}");
        assert!(!message.contains("  "), "{message}");
        scene.server.clear_faults();
    }
}

#[test]
fn where_the_latest_answer_wins_a_replay_waits_for_what_a_dead_owner_may_have_sent() {
    for (newest_wins, least_ms) in [(true, 2000), (false, 0)] {
        let scene = Scene::new(grace(GraceKind::SamePair));
        let more = json!({"newest_wins": newest_wins, "max_wait_ms": 60_000});
        let client = scene.signed_in(more.clone());
        scene.server.fault(Fault::from(FaultKind::Delay).before(60_000));
        let mut dying = scene.party(more);
        dying.begin(json!({"do": "token", "session": SESSION}));
        eventually("the request", || scene.requests() == 1);
        dying.kill();
        let since_ms = now_ms();
        assert_eq!(token(client.token(SESSION, None))["generation"], 2);
        let requests = scene.server.token_requests();
        assert_eq!(requests.len(), 2);
        assert!(requests[1].at_ms >= since_ms + least_ms, "{} ms", requests[1].at_ms - since_ms);
        // Long before its deadline.
        assert!(requests[1].at_ms < since_ms + 30_000, "{} ms", requests[1].at_ms - since_ms);
    }
}
