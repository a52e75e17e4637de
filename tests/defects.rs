//! Sixteen defects that were found in other OAuth clients, each a test that this one passes.

mod common;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, SystemTime};

use common::*;
use evergrant::{Client, Status};
use evergrant_test_server::{Endpoint, Fault, FaultKind, GraceKind, Options, Rotation};
use serde_json::json;

fn lost_replies() -> Vec<FaultKind> {
    let (body, retry_after) = (None, None);
    vec![
        FaultKind::DropReply,
        FaultKind::ResetAfterProcess,
        FaultKind::Truncate { bytes: 20 },
        FaultKind::StatusAfter { code: 502, body: body.clone(), retry_after: retry_after.clone() },
        FaultKind::Status { code: 408, body, retry_after },
        FaultKind::NonJson,
        FaultKind::Hang,
    ]
}

#[test]
fn t01_a_refresh_token_is_not_silently_sent_again_after_an_unknown_outcome() {
    let scene = Scene::new(strict());
    let limits = json!({"lost_reply": "sign_in", "connect_timeout_ms": 1500, "exchange_timeout_ms": 300});
    let client = scene.open(limits.clone());
    for fault in lost_replies() {
        let name = fault.name();
        let refresh_token = scene.saved(&client, name);
        scene.server.fault(fault.clone());
        let error = client.access_token(name, None).unwrap_err();
        assert_eq!(class(&error), (Status::SignInRequired, Some("rotation_lost")), "{name}: {error}");
        assert_eq!(scene.server.presentations(&refresh_token), 1, "{name}");

        // The flow alone, too, sends once whatever happens.
        let refresh_token = scene.sign_in().refresh_token;
        scene.server.fault(fault);
        let request = lay_over(
            scene.config(json!({"store": null, "lost_reply": null})),
            json!({"refresh_token": refresh_token, "connect_timeout_ms": 1500, "exchange_timeout_ms": 300}),
        );
        let error = evergrant::refresh(&request.to_string()).unwrap_err();
        assert_eq!((error.status, error.outcome), (Status::Unavailable, Some("unknown")), "{name}: {error}");
        assert_eq!(scene.server.presentations(&refresh_token), 1, "{name}");
    }
}

#[test]
fn t02_every_rotated_refresh_token_is_kept() {
    let scene = Scene::new(strict());
    let first = scene.saved(&scene.open(json!({})), SESSION);
    for generation in 2..6 {
        // Each time from what the store has.
        let client = scene.open(json!({}));
        assert_eq!(token(client.renew(SESSION, None, None))["generation"], generation);
    }
    let family = &scene.server.families()[0];
    assert_eq!((family.generation, family.reuses), (5, 0));
    assert_eq!(family.refresh_tokens[0].token, first);
    assert!(family.refresh_tokens[..4].iter().all(|token| token.presentations == 1));
}

#[test]
fn t03_a_refresh_token_that_the_answer_leaves_out_stays() {
    let scene = Scene::new(generic());
    let refresh_token = scene.saved(&scene.open(json!({})), SESSION);
    for generation in 2..5 {
        let client = scene.open(json!({}));
        assert_eq!(token(client.renew(SESSION, None, None))["generation"], generation);
    }
    assert_eq!(scene.server.presentations(&refresh_token), 3);
    for empty in ["\"\"", "null"] {
        scene.server.update(|options| drop(options.extra.insert("refresh_token".into(), parsed(empty))));
        let client = scene.open(json!({}));
        client.renew(SESSION, None, None).unwrap();
        assert_eq!(client.state(SESSION), "active", "refresh_token: {empty}");
    }
    assert_eq!(scene.server.presentations(&refresh_token), 5);
}

#[test]
fn t04_nothing_comes_between_the_exchange_and_the_commit() {
    let scene = Scene::new(Options { rotation: Rotation::Strict, ..salesforce() });
    let client = scene.signed_in(json!({}));
    let mut reader = scene.party(json!({"renews": false}));
    for generation in 2..5 {
        let renewed = token(client.renew(SESSION, None, None));
        // Whoever has the token can rely on it that the store has it: another process sees it there.
        assert_eq!(reader.of("describe", SESSION).unwrap()["generation"], generation);
        assert_eq!(reader.of("access_token", SESSION).unwrap(), renewed["access_token"]);
    }
    assert!(scene.server.log().iter().all(|request| request.endpoint == Endpoint::Token));
    assert_eq!(scene.requests(), 3);
}

/// What is left after a power cut: the files as they are now, the last one cut off at `length`.
fn cut(from: &Path, to: &Path, suffix: &str, length: u64) {
    for part in ["", "-wal", ".key"] {
        let name = |path: &Path| std::path::PathBuf::from(format!("{}{part}", path.display()));
        if let Ok(bytes) = fs::read(name(from)) {
            fs::write(name(to), bytes).unwrap();
        }
    }
    let file = fs::OpenOptions::new().write(true).open(format!("{}{suffix}", to.display())).unwrap();
    file.set_len(length).unwrap();
    // An empty file that is older than a minute is no new store.
    file.set_modified(SystemTime::now() - Duration::from_secs(120)).unwrap();
}

#[test]
fn t05_a_store_that_was_cut_off_is_an_error_or_the_last_commit_and_never_empty() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    client.renew(SESSION, None, None).unwrap();
    drop(client);
    // Who leaves last copies the log back: then there is a database, and then a log.
    let log = format!("{}-wal", scene.store().display());
    eventually("the log is copied back", || !Path::new(&log).exists());
    let client = scene.open(json!({}));
    client.renew(SESSION, None, None).unwrap();
    let length = |suffix: &str| fs::metadata(format!("{}{suffix}", scene.store().display())).unwrap().len();
    let cuts = |whole: u64| {
        let fine = [0, 1, 31, 32, 33, 100, 4095, 4096, 4097].into_iter().filter(move |cut| *cut < whole);
        fine.chain((1..=12).map(move |part| whole * part / 12)).chain([whole - 1])
    };
    let mut recovered = 0;
    for suffix in ["", "-wal"] {
        for (n, cut_at) in cuts(length(suffix)).enumerate() {
            let copy = scene.directory.path().join(format!("cut{suffix}{n}.db"));
            cut(&scene.store(), &copy, suffix, cut_at);
            let config = scene.config(json!({"store": format!("sqlite:{}", copy.display())})).to_string();
            let found = Client::open(&config).and_then(|client| client.describe(SESSION));
            match found {
                Ok(found) => {
                    let found = parsed(&found);
                    assert!([2, 3].contains(&found["generation"].as_u64().unwrap()), "{suffix} at {cut_at}: {found}");
                    recovered += 1;
                }
                Err(error) => assert_eq!(error.status, Status::Store, "{suffix} at {cut_at}: {error}"),
            }
        }
    }
    assert!(recovered > 0);
    assert_eq!(scene.requests(), 2);
}

#[test]
fn t05_nothing_is_sent_while_the_store_cannot_be_written() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    // No file may grow: every write fails, as on a full disk.
    let mut full = Party::start_under(&["sh", "-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"]);
    let opened = full.ask(json!({"do": "open", "config": scene.config(json!({}))}));
    let error = opened.and_then(|_| full.of("access_token", SESSION)).unwrap_err();
    assert_eq!(error["status"], "STORE", "{error}");
    assert_eq!(scene.requests(), 0);
    assert_eq!(token(client.token(SESSION, None))["generation"], 2);
}

#[test]
fn t06_an_unreadable_store_is_an_error_and_is_kept() {
    let scene = Scene::new(strict());
    drop(scene.signed_in(json!({})));
    let whole = fs::read(scene.store()).unwrap();
    let header: Vec<u8> = [&[0xff; 64], &whole[64..]].concat();
    let pages = [&whole[..4096], &whole[4096..].iter().map(|byte| byte ^ 0x55).collect::<Vec<_>>()].concat();
    let other = b"{\"tokens\": [".repeat(1000);
    for (what, damaged) in [("not a database", other), ("a damaged header", header), ("damaged pages", pages)] {
        fs::write(scene.store(), &damaged).unwrap();
        for _ in 0..2 {
            let tried = Client::open(&scene.config(json!({})).to_string())
                .and_then(|client| client.save(SESSION, r#"{"refresh_token": "another"}"#));
            let error = tried.unwrap_err();
            assert_eq!(error.status, Status::Store, "{what}: {error}");
            assert!(error.message.contains(scene.store().to_str().unwrap()), "{what}: {error}");
            assert!(error.message.contains("backup"), "{what}: {error}");
            assert_eq!(fs::read(scene.store()).unwrap(), damaged, "{what}: it was changed");
        }
    }
    fs::write(scene.store(), &whole).unwrap();
    assert_eq!(token(scene.open(json!({})).token(SESSION, None))["generation"], 2);
}

#[test]
fn t07_an_owner_file_that_was_unlinked_lets_nobody_in() {
    let scene = Scene::new(Options { latency_ms: 1000, ..strict() });
    let client = scene.signed_in(json!({}));
    let mut other = scene.party(json!({}));
    other.begin(json!({"do": "access_token", "session": SESSION}));
    eventually("the other process has sent", || scene.requests() == 1);
    for entry in fs::read_dir(format!("{}-owners", scene.store().display())).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let mine = text(client.access_token(SESSION, None));
    assert_eq!(other.answer().unwrap(), mine);
    assert_eq!(scene.requests(), 1, "two holders");
    assert_eq!(client.count()["replays"], 0);
}

#[test]
fn t08_an_answer_that_comes_after_the_limit_frees_nobody_elses_attempt() {
    let scene = Scene::new(grace(GraceKind::SiblingsAll));
    let limits = json!({"connect_timeout_ms": 1500, "exchange_timeout_ms": 500});
    let client = scene.signed_in(limits.clone());
    let mut other = scene.party(limits);
    // The first request outlives its sender's patience, so it is in doubt; the next ones are slow.
    scene.server.fault(Fault::from(FaultKind::Delay).before(3000));
    scene.server.fault(Fault::from(FaultKind::Delay).before(800).times(2));
    other.begin(json!({"do": "access_token", "session": SESSION, "options": {"max_wait_ms": 20_000}}));
    eventually("the first request", || scene.requests() == 1);
    let mine = text(client.access_token(SESSION, Some(r#"{"max_wait_ms": 20000}"#)));
    assert_eq!(other.answer().unwrap(), mine);
    let told = client.tell(SESSION);
    assert_eq!((&told["state"], &told["generation"]), (&json!("active"), &json!(2)));
    assert_eq!(client.outcomes(SESSION), ["unknown", "done"]);
    assert_eq!(scene.requests(), 2);
    // The late answer is nobody's: nothing moves.
    eventually("the late answer", || scene.server.stats().token_requests_processed == 2);
    assert_eq!(client.tell(SESSION)["version"], told["version"]);
}

#[test]
fn t09_a_loser_does_not_delete_the_winners_token() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    let mut winner = scene.party(json!({}));
    let old = text(client.access_token(SESSION, None));
    let new = winner.ask(json!({"do": "renew", "session": SESSION})).unwrap();
    // What the server says of the old refresh token from now on.
    let dead = || {
        let (error, description) = ("invalid_grant".into(), "expired access/refresh token".into());
        FaultKind::Error { error, description, status: 400 }
    };
    scene.server.fault(dead());
    let adopted = token(client.renew(SESSION, Some(&old), None));
    assert_eq!(adopted["access_token"], new["access_token"], "adopted, without a request");
    assert_eq!(scene.requests(), 2);
    // Even a refusal ends only what it was about: the winner's answer to a later claim stands.
    assert_eq!(client.renew(SESSION, None, None).unwrap_err().status, Status::SignInRequired);
    assert_eq!(client.state(SESSION), "ended");
    let revived = winner.ask(json!({"do": "renew", "session": SESSION, "options": {"anyway": true}})).unwrap();
    assert_eq!(revived["generation"], 4);
    assert_eq!(text(client.access_token(SESSION, None)), revived["access_token"]);
}

#[test]
fn t10_an_outage_ends_no_session() {
    let status = |code| FaultKind::Status { code, body: None, retry_after: None };
    let scene = Scene::new(strict());
    let client = scene.open(json!({"connect_timeout_ms": 1500, "exchange_timeout_ms": 300}));
    let wait = Some(r#"{"max_wait_ms": 100}"#);
    for fault in [status(500), status(503), status(429), FaultKind::Hang, FaultKind::ResetAfterRead] {
        let name = format!("{fault:?}");
        scene.saved(&client, &name);
        scene.server.fault(Fault::from(fault).always());
        let error = client.access_token(&name, wait).unwrap_err();
        assert!(matches!(error.status, Status::Unavailable | Status::TimedOut), "{name}: {error}");
        scene.server.clear_faults();
        assert!(["active", "in_doubt"].contains(&client.state(&name).as_str()), "{name}");
        let renewed = token(client.renew(&name, None, Some(r#"{"anyway": true, "max_wait_ms": 30000}"#)));
        assert_eq!(renewed["generation"], 2, "{name}");
    }
    // No name, no way.
    for endpoint in ["https://evergrant.invalid/token", "http://127.0.0.1:9/token"] {
        let namespace = json!({"namespace": "moved", "token_endpoint": endpoint, "connect_timeout_ms": 2000});
        let lost = scene.open(namespace);
        scene.saved(&lost, endpoint);
        let error = lost.access_token(endpoint, Some(r#"{"max_wait_ms": 20000}"#)).unwrap_err();
        assert_eq!(class(&error), (Status::Unavailable, Some("network")), "{endpoint}: {error}");
        assert_eq!((error.outcome, lost.state(endpoint)), (Some("not_sent"), "active".into()));
        // The same sessions at an address that works.
        let found = scene.open(json!({"namespace": "moved"}));
        let anyway = Some(r#"{"anyway": true}"#);
        assert_eq!(token(found.renew(endpoint, None, anyway))["generation"], 2);
    }
}

#[test]
fn t11_a_failed_renewal_is_nobodys_success() {
    let scene = Scene::new(Options { latency_ms: 200, ..strict() });
    let client = Arc::new(scene.signed_in(json!({})));
    scene.server.fault(FaultKind::Status { code: 429, body: None, retry_after: Some("600".into()) });
    let together = Arc::new(Barrier::new(8));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (client, together) = (Arc::clone(&client), Arc::clone(&together));
            thread::spawn(move || {
                together.wait();
                client.access_token(SESSION, None).unwrap_err().status
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), Status::Unavailable);
    }
    // Nor does it count as "just renewed" later.
    let error = client.access_token(SESSION, None).unwrap_err();
    assert_eq!(error.status, Status::Unavailable);
    assert!(error.retry_after_ms.unwrap() > 500_000);
    assert_eq!(client.peek(SESSION, |_| ()).unwrap_err(), Status::Stale);
    assert_eq!(scene.requests(), 1);
}

#[test]
fn t12_without_expires_in_a_rejection_renews() {
    let scene = Scene::new(Options { send_expires_in: false, ..strict() });
    let client = scene.signed_in(json!({"recheck_s": 0}));
    let first = token(client.token(SESSION, None));
    assert_eq!((&first["expiry"], &first["expires_at_s"]), (&json!("unknown"), &json!(null)));
    assert!(first.get("expires_in").is_none());
    for _ in 0..20 {
        assert_eq!(text(client.access_token(SESSION, None)), first["access_token"]);
    }
    assert_eq!(scene.requests(), 1, "unknown is not expired");
    let second = token(client.renew(SESSION, first["access_token"].as_str(), None));
    assert_ne!(second["access_token"], first["access_token"]);
    assert_eq!(scene.requests(), 2);
}

#[test]
fn t13_nothing_that_is_told_contains_a_token() {
    let canary = "CaNaRy0123456789";
    let scene = Scene::new(Options { token_prefix: canary.into(), ..strict() });
    let client = scene.signed_in(json!({}));
    let error = "invalid_request".to_owned();
    let access_token = text(client.access_token(SESSION, None));
    assert!(access_token.contains(canary));
    let description = format!("the token {access_token} is not what we sent");
    scene.server.fault(FaultKind::Error { error, description, status: 400 });
    let failure = client.renew(SESSION, None, None).unwrap_err();
    let told = [
        format!("{failure} {failure:?} {}", shown(&failure)),
        format!("{client:?}"),
        client.describe(SESSION).unwrap(),
        client.list(None, 10).unwrap(),
        client.stats().unwrap(),
        client.events(0, 0).unwrap(),
    ];
    for text in told {
        assert!(!text.contains(canary), "{text}");
    }
    assert!(failure.message.contains("is not what we sent"), "{failure}");
}

#[test]
fn t14_early_renewal_renews_although_the_token_is_still_good() {
    let scene = Scene::new(strict());
    let (client, old) = scene.early(json!({}));
    let mut other = scene.party(json!({"renew_before_s": 400}));
    // Served at once with the old one, and renewed by one of the two.
    assert_eq!(text(client.access_token(SESSION, None)), old);
    eventually("the early renewal", || client.tell(SESSION)["generation"] == 2);
    let new = text(client.access_token(SESSION, None));
    assert_ne!(new, old);
    assert_eq!(other.of("access_token", SESSION).unwrap(), new);
    assert_eq!(scene.requests(), 1);
}

#[test]
fn t15_sessions_share_no_throttle() {
    let scene = Scene::new(strict());
    let client = scene.signed_in(json!({}));
    let others: Vec<String> = (0..4).map(|n| format!("user {n}")).collect();
    for other in &others {
        scene.saved(&client, other);
    }
    scene.server.fault(FaultKind::Status { code: 429, body: None, retry_after: Some("600".into()) });
    assert_eq!(client.access_token(SESSION, None).unwrap_err().status, Status::Unavailable);
    // All at one moment, and one of them throttled: the others renew.
    thread::scope(|scope| {
        let renew = |other| assert_eq!(token(client.token(other, None))["generation"], 2);
        let threads: Vec<_> = others.iter().map(|other| scope.spawn(move || renew(other))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert_eq!(client.access_token(SESSION, None).unwrap_err().status, Status::Unavailable);
    assert_eq!(scene.requests(), 5);
}

#[test]
fn t16_memory_follows_the_store() {
    let scene = Scene::new(Options { send_expires_in: false, ..strict() });
    let mut sibling = scene.party(json!({}));
    for (recheck_s, rejected) in [(1, false), (3600, true)] {
        let name = format!("recheck {recheck_s}");
        let client = scene.open(json!({"recheck_s": recheck_s}));
        scene.saved(&client, &name);
        let old = text(client.access_token(&name, None));
        let new = sibling.ask(json!({"do": "renew", "session": name})).unwrap()["access_token"].clone();
        let requests = scene.requests();
        if rejected {
            assert_eq!(text(client.access_token(&name, None)), old, "memory is trusted for an hour");
            assert_eq!(token(client.renew(&name, Some(&old), None))["access_token"], new);
        } else {
            eventually("memory looks at the store", || text(client.access_token(&name, None)) == new);
        }
        assert_eq!(scene.requests(), requests, "adopted, not renewed");
        assert_eq!(client.count()["adopted"], 1);
        assert_eq!(client.events_of("adopted").len(), 1);
    }
}
