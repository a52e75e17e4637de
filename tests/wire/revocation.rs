//! Every fault of the revocation endpoint (RFC 7009), in every state that a session can be left in.
//!
//! A sign-out succeeds whatever the server says. What the server has not confirmed stays in the record, and goes later.

use super::*;
use evergrant_test_server::Endpoint;

/// Every state here leaves two tokens to revoke.
const TOKENS: u64 = 2;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Leaving {
    Active,
    InDoubt,
    /// The server has rotated, and its answer is on its way.
    RenewalOpen,
    HasEnded,
    /// It was left before, and the server could not be told.
    Leftover,
}
use Leaving::*;

const LEAVINGS: [Leaving; 5] = [Active, InDoubt, RenewalOpen, HasEnded, Leftover];

fn revocation_faults() -> Vec<FaultKind> {
    let says = |error: &str| FaultKind::Error { error: error.into(), description: String::new(), status: 400 };
    let large = FaultKind::StatusAfter { code: 200, body: Some("x".repeat((1 << 20) + 1)), retry_after: None };
    faults().into_iter().chain([says("invalid_token"), says("unsupported_token_type"), large]).collect()
}

/// How far the request comes, and why it counts as failed. `None`: the token counts as revoked.
fn effect_on(fault: &FaultKind, leaving: Leaving, server: Kind) -> (Reach, Option<&'static str>) {
    // Else the status says it all (RFC 7009 section 2.2). Salesforce says of a token that is dead that it does not know it:
    // first the one that the renewal spent, else the access token, which went with the refresh token.
    let has_body = server == Kind::Salesforce && (leaving == RenewalOpen) == (strikes(fault) == 0);
    match fault {
        // The renewal's connection is used again: there is no new one to strike.
        FaultKind::ResetOnAccept | FaultKind::RefuseConnections { .. } if leaving == RenewalOpen => (Reach::Done, None),
        FaultKind::NonJson => (Reach::Read, None),
        FaultKind::Truncate { .. } | FaultKind::Oversized { .. } | FaultKind::WrongTypes { .. } if !has_body => {
            (Reach::Done, None)
        }
        // There is nothing that could be revoked.
        FaultKind::Error { error, .. } if ["invalid_token", "unsupported_token_type"].contains(&error.as_str()) => {
            (Reach::Read, None)
        }
        _ => match effect(fault) {
            (reach, Answer::Other(Dead("expired_or_revoked" | "used_elsewhere_or_revoked"))) => (reach, None),
            (reach, Answer::Other(outcome)) => (reach, outcome.reason()),
            (reach, _) => (reach, None),
        },
    }
}

/// The connection is closed behind the answer, which may be good.
fn closes_unsaid(fault: &FaultKind) -> bool {
    matches!(fault, FaultKind::SilentClose { .. } | FaultKind::Truncate { .. })
}

/// Which of the requests it strikes: the first, unless the next one might meet a connection that is just being closed.
fn strikes(fault: &FaultKind) -> u64 {
    if closes_unsaid(fault) { TOKENS - 1 } else { 0 }
}

fn revocations(scene: &Scene) -> u64 {
    scene.server.log().iter().filter(|entry| entry.endpoint == Endpoint::Revoke).count() as u64
}

/// The session's refresh token after it has been brought there.
fn bring_about(place: &Place, client: &Client, leaving: Leaving, session: &str) -> String {
    let scene = &place.scene;
    let down = |endpoint| {
        let down = FaultKind::Status { code: 503, body: None, retry_after: Some("600".into()) };
        scene.server.fault(Fault::from(down).on(endpoint));
    };
    if leaving == RenewalOpen {
        scene.saved(client, session);
        let before = scene.server.stats().token_requests_processed;
        scene.server.fault(Fault::from(FaultKind::Delay).after(500));
        client.access_token(session, Some(r#"{"max_wait_ms": 0}"#)).unwrap_err();
        eventually("it is carried out", || scene.server.stats().token_requests_processed > before);
    } else {
        scene.save_with_life(client, session, 0, 1000);
    }
    match leaving {
        Active | RenewalOpen => {}
        InDoubt => {
            down(Endpoint::Token);
            client.renew(session, None, WAIT).unwrap_err();
            assert_eq!(client.state(session), "in_doubt");
        }
        HasEnded => {
            scene.server.fault(FaultKind::Error {
                error: "invalid_grant".into(),
                description: "inactive user".into(),
                status: 400,
            });
            client.renew(session, None, WAIT).unwrap_err();
            assert_eq!(client.state(session), "ended");
        }
        Leftover => {
            down(Endpoint::Revoke);
            client.sign_out(session).unwrap();
            assert_eq!(client.tell(session)["to_revoke"], TOKENS);
        }
    }
    scene.server.families().pop().unwrap().refresh_tokens.pop().unwrap().token
}

fn arm(place: &Place, fault: &FaultKind, leaving: Leaving) {
    let pass = Fault::from(FaultKind::Pass).on(Endpoint::Revoke);
    (0..strikes(fault)).for_each(|_| place.scene.server.fault(pass.clone()));
    if leaving != RenewalOpen && effect(fault).0 == Reach::Nowhere {
        place.scene.server.close_connections(false);
        place.all_connections_are_closed();
    }
    place.scene.server.fault(Fault::from(fault.clone()).on(Endpoint::Revoke));
}

/// Nothing brings the session back, and nothing is sent for it.
fn is_gone(scene: &Scene, client: &Client, session: &str, what: &str) {
    let before = scene.requests();
    for result in [client.access_token(session, WAIT), client.renew(session, None, ANYWAY)] {
        let error = result.expect_err(what);
        assert_eq!(class(&error), (Status::SignInRequired, Some("signed_out")), "{what}: {error}");
    }
    assert_eq!((client.state(session).as_str(), scene.requests()), ("signed_out", before), "{what}");
}

fn sign_out(place: &Place, fault: &FaultKind, leaving: Leaving, n: usize) {
    let scene = &place.scene;
    let what = format!("{fault:.200?}, {leaving:?}, {:?}", place.server);
    let client = if ends_by_time_out(fault) { &place.brisk } else { &place.patient };
    let session = &format!("{n} {} {leaving:?}", fault.name());
    let refresh_token = bring_about(place, client, leaving, session);
    let (reach, failure) = effect_on(fault, leaving, place.server);
    let failed_before = client.events_of("revocation_failed").len();
    let before = revocations(scene);
    arm(place, fault, leaving);

    client.sign_out(session).unwrap_or_else(|error| panic!("{what}: {error}"));
    let (arrived, left) = match failure {
        None => (TOKENS, 0),
        // The server cannot be asked: the tokens behind this one wait with it.
        Some("network" | "server_unavailable") => {
            (strikes(fault) + u64::from(reach != Reach::Nowhere), TOKENS - strikes(fault))
        }
        // It has said something of this token alone.
        Some(_) => (TOKENS, 1),
    };
    assert_eq!(revocations(scene) - before, arrived, "{what}");
    assert_eq!(client.tell(session)["to_revoke"], left, "{what}");
    if leaving != RenewalOpen && reach != Reach::Ghost {
        assert_eq!(scene.server.is_live(&refresh_token), reach != Reach::Done, "{what}");
    }
    let failed = client.events_of("revocation_failed").split_off(failed_before);
    let reasons: Vec<_> = failed.iter().map(|event| event["reason"].as_str()).collect();
    assert_eq!(reasons, failure.map(Some).into_iter().collect::<Vec<_>>(), "{what}");
    for event in &failed {
        assert_eq!(event["session"], *session, "{what}");
        let message = event["message"].as_str().unwrap();
        assert!(message.contains("127.0.0.1") && !message.contains(&refresh_token), "{what}: {message}");
        assert!(!message.contains(SECRET), "{what}: {message}");
    }
    is_gone(scene, client, session, &what);

    // The server is well again, and is told what it could not be told.
    eventually(&what, || scene.server.stats().in_flight == 0);
    place.disarm(fault);
    if closes_unsaid(fault) {
        place.all_connections_are_closed();
    }
    let before = revocations(scene);
    client.sign_out(session).unwrap();
    assert_eq!(revocations(scene) - before, left, "{what}: then");
    assert_eq!(client.tell(session)["to_revoke"], 0, "{what}: then");
    // Only a word that nothing is to be revoked leaves the token alive.
    let believed = failure.is_none() && reach == Reach::Read && leaving != RenewalOpen;
    assert_eq!(scene.server.is_live(&refresh_token), believed, "{what}: then");
    assert_eq!(client.events_of("revocation_failed").len(), failed_before + failed.len(), "{what}: then");
    is_gone(scene, client, session, &what);
}

#[test]
fn every_fault_at_every_sign_out() {
    let faults = revocation_faults();
    let cells: Vec<_> = faults.iter().flat_map(|fault| LEAVINGS.map(|leaving| (fault, leaving))).collect();
    let servers = [Kind::Strict, Kind::Salesforce].map(|kind| (kind, AtomicUsize::new(0)));
    thread::scope(|scope| {
        for (server, next) in servers.iter().flat_map(|server| [server; WORKERS]) {
            let cells = &cells;
            scope.spawn(move || {
                let place = Place::new(*server);
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some((fault, leaving)) = cells.get(n) else { break };
                    sign_out(&place, fault, *leaving, n);
                }
            });
        }
    });
}

#[test]
fn whoever_meets_what_is_left_revokes_it_and_nobody_hammers() {
    let scene = Scene::new(strict());
    let client = scene.open(json!({}));
    let access_token = scene.save_with_life(&client, SESSION, 0, 1000);
    scene.server.fault(Fault::from(FaultKind::Html { status: 503 }).always().on(Endpoint::Revoke));
    client.sign_out(SESSION).unwrap();
    for _ in 0..50 {
        is_gone(&scene, &client, SESSION, "left");
    }
    assert_eq!((revocations(&scene), &client.tell(SESSION)["to_revoke"]), (1, &json!(TOKENS)));
    assert!(scene.server.is_live(&access_token));
    scene.server.clear_faults();
    drop(client);

    let mut other = scene.party(json!({}));
    let error = other.of("access_token", SESSION).unwrap_err();
    assert_eq!((&error["status"], &error["reason"]), (&json!("SIGN_IN_REQUIRED"), &json!("signed_out")));
    eventually("it is revoked", || other.of("describe", SESSION).unwrap()["to_revoke"] == 0);
    assert!(!scene.server.is_live(&access_token));
    assert_eq!((revocations(&scene), scene.requests()), (1 + TOKENS, 0));
}

/// Whoever meets the tombstone tells the server again after half a minute, unless that has asked for more.
#[test]
fn a_server_that_asks_to_wait_is_left_alone() {
    let scene = Scene::new(strict());
    let client = scene.open(json!({}));
    let told = |seconds: &str| {
        let retry_after = Some(seconds.to_owned());
        let down = FaultKind::Status { code: 503, body: None, retry_after };
        scene.save_with_life(&client, seconds, 0, 1000);
        scene.server.fault(Fault::from(down).on(Endpoint::Revoke));
        client.sign_out(seconds).unwrap();
        assert_eq!(client.tell(seconds)["to_revoke"], TOKENS);
    };
    told("600");
    told("1");
    sleep_ms(31_000);
    client.tell("600");
    eventually("it is revoked", || client.tell("1")["to_revoke"] == 0);
    sleep_ms(500);
    assert_eq!((&client.tell("600")["to_revoke"], revocations(&scene)), (&json!(TOKENS), 2 + TOKENS));
    // Who asks for it himself is not held back.
    client.sign_out("600").unwrap();
    assert_eq!(client.tell("600")["to_revoke"], 0);
}
