//! Doubt and replay: what every kind of lost, broken or late answer makes of a session.

mod common;

use common::*;
use evergrant::{Client, Status};
use evergrant_test_server::{Fault, FaultKind, GraceKind, Options, Rotation, WrongType};
use serde_json::json;

const WAIT: Option<&str> = Some(r#"{"max_wait_ms": 30000}"#);

/// What a session comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// One request was enough.
    Renewed,
    /// The first answer was lost before it was made, or is given again: the second request was answered.
    Healed,
    /// The server had rotated, and forgets: only a sign-in helps.
    Lost,
    /// The new refresh token is kept, but there was no usable access token in the answer.
    Unusable,
}
use Fate::{Healed, Lost, Renewed, Unusable};

fn gateway(code: u16) -> FaultKind {
    FaultKind::Status { code, body: None, retry_after: None }
}

fn gateway_after(code: u16) -> FaultKind {
    FaultKind::StatusAfter { code, body: None, retry_after: None }
}

fn wrong(variant: WrongType) -> FaultKind {
    FaultKind::WrongTypes { variant }
}

/// The fault, and a session's fate on a server that forgets, on one that answers again, and on one that never rotates.
fn fates() -> Vec<(FaultKind, [Fate; 3])> {
    let undone = [Healed, Healed, Healed];
    let done = [Lost, Healed, Healed];
    let fine = [Renewed; 3];
    let redirect = |code| FaultKind::Redirect { location: "https://elsewhere.example/token".into(), code };
    vec![
        (FaultKind::Pass, fine),
        // Not carried out.
        (FaultKind::ResetBeforeRead, undone),
        (FaultKind::ResetAfterRead, undone),
        (FaultKind::Hang, undone),
        (FaultKind::NonJson, undone),
        (FaultKind::Html { status: 503 }, undone),
        (gateway(500), undone),
        (gateway(503), undone),
        (gateway(404), undone),
        (gateway(408), undone),
        (redirect(301), undone),
        (redirect(302), undone),
        (redirect(307), undone),
        // Carried out.
        (FaultKind::DropReply, done),
        (FaultKind::ResetAfterProcess, done),
        (FaultKind::Truncate { bytes: 0 }, done),
        (FaultKind::Truncate { bytes: 30 }, done),
        (FaultKind::TruncateHead { bytes: 1 }, done),
        (FaultKind::TruncateHead { bytes: 30 }, done),
        (FaultKind::Slow { bytes_per_s: None, total_ms: Some(20_000) }, done),
        (FaultKind::Oversized { bytes: (1 << 20) + 1 }, done),
        (gateway_after(502), done),
        (gateway_after(503), done),
        (wrong(WrongType::Array), done),
        (wrong(WrongType::Empty), done),
        (wrong(WrongType::NotUtf8), done),
        // Carried out, and told so.
        (FaultKind::Oversized { bytes: 1 << 20 }, fine),
        (FaultKind::Slow { bytes_per_s: None, total_ms: Some(300) }, fine),
        (FaultKind::BadContentType { content_type: "text/html".into() }, fine),
        (FaultKind::ConnectionClose, fine),
        (wrong(WrongType::TokenTypeMissing), fine),
        // The refresh token is the more precious one.
        (wrong(WrongType::AccessTokenNumber), [Unusable, Unusable, Healed]),
        (wrong(WrongType::AccessTokenMissing), [Unusable, Unusable, Healed]),
        (wrong(WrongType::AccessTokenEmpty), [Unusable, Unusable, Healed]),
        (wrong(WrongType::AccessTokenNull), [Unusable, Unusable, Healed]),
        (wrong(WrongType::AccessTokenLineBreak), [Unusable, Unusable, Healed]),
    ]
}

/// Every presentation that the server has seen has a claim of its own in the record.
fn assert_every_presentation_is_claimed(client: &Client, name: &str, requests: usize) {
    let claims = client.outcomes(name);
    assert_eq!(claims.len(), requests, "{name}: {claims:?}");
    let fingerprints = client.tell(name)["history"].clone();
    let fingerprints: Vec<_> =
        fingerprints.as_array().unwrap().iter().map(|entry| &entry["refresh_token_fingerprint"]).cloned().collect();
    for entry in &fingerprints {
        assert!(entry.is_string(), "{name}: {fingerprints:?}");
    }
}

#[test]
fn every_fault_has_its_fate() {
    let servers = [strict(), grace(GraceKind::SiblingsAll), generic()];
    for (column, options) in servers.into_iter().enumerate() {
        let scene = Scene::new(options);
        let client = scene.open(json!({"connect_timeout_ms": 1500, "exchange_timeout_ms": 500}));
        for (n, (fault, fates)) in fates().into_iter().enumerate() {
            let name = format!("{n} {fault:?} column {column}");
            let refresh_token = scene.saved(&client, &name);
            let before = scene.requests();
            scene.server.fault(fault.clone());
            let result = client.access_token(&name, WAIT);
            let requests = scene.requests() - before;
            let (outcomes, told) = (client.outcomes(&name), client.tell(&name));
            let state = (told["state"].as_str().unwrap(), told["generation"].as_u64().unwrap());
            match fates[column] {
                Renewed => {
                    assert!(result.is_ok(), "{name}: {result:?}");
                    assert_eq!((outcomes, state), (vec!["done".into()], ("active", 2)), "{name}");
                }
                Healed => {
                    assert!(result.is_ok(), "{name}: {result:?}");
                    assert_eq!((outcomes, state), (vec!["unknown".into(), "done".into()], ("active", 2)), "{name}");
                }
                Lost => {
                    let error = result.unwrap_err();
                    assert_eq!(class(&error), (Status::SignInRequired, Some("rotation_lost")), "{name}: {error}");
                    assert!(error.message.contains("sign in again"), "{name}: {error}");
                    assert_eq!((outcomes, state), (vec!["unknown".into(), "invalid_grant".into()], ("ended", 1)));
                    let ended = client.access_token(&name, None).unwrap_err();
                    assert!(ended.message.contains("was lost"), "{name}: {ended}");
                    // Nothing can help: not even "anyway" tries.
                    client.renew(&name, None, Some(r#"{"anyway": true}"#)).unwrap_err();
                    assert_eq!(scene.requests() - before, 2, "{name}");
                }
                Unusable => {
                    let error = result.unwrap_err();
                    assert_eq!(class(&error), (Status::Refused, Some("bad_answer")), "{name}: {error}");
                    assert!(error.message.contains("is kept"), "{name}: {error}");
                    assert_eq!((outcomes, state), (vec!["done".into()], ("active", 2)), "{name}");
                    client.access_token(&name, WAIT).unwrap();
                }
            }
            let expected = if [Healed, Lost].contains(&fates[column]) { 2 } else { 1 };
            assert_eq!(requests, expected, "{name}");
            let unread = usize::from(fault == FaultKind::ResetBeforeRead);
            assert_eq!(scene.server.presentations(&refresh_token) as usize, expected - unread, "{name}");
            assert_every_presentation_is_claimed(&client, &name, scene.requests() - before);
        }
        assert_eq!(client.count()["commit_retries"], 0);
    }
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
    for (options, fate) in [(strict(), Lost), (grace(GraceKind::SiblingsAll), Healed), (generic(), Healed)] {
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
            assert_eq!(asking.join().unwrap().is_ok(), fate == Healed, "{fate:?}");
            second
        });
        assert_eq!(second["sends"], 2, "{fate:?}");
        assert_ne!(second["owner"], first["owner"]);
        assert_eq!((scene.requests(), client.count()["replays"].as_u64()), (2, Some(1)), "{fate:?}");
        let expected = if fate == Healed { "active" } else { "ended" };
        assert_eq!(client.state(SESSION), expected);
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
