//! Forked children.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::stage::{GRACE, LIMIT, STRICT, Stage};

#[test]
fn children_use_their_parents_client_while_its_threads_are_inside_the_store() {
    const THREADS: usize = 4;
    const CHILDREN: usize = 50;
    let stage = Stage::new(STRICT);
    stage.server.update(|options| options.latency_ms = 1);
    let (parent, _) = stage.open_with_session(json!({"max_wait_ms": 50_000}));
    let hammer = parent.threads(THREADS, &["repeat", "renew", "alice"]);
    let look = parent.threads(THREADS, &["repeat", "token", "alice"]);
    for number in 0..CHILDREN {
        let end = if number % 2 == 0 { "end exit" } else { "end _exit" };
        let (child, process) = parent.fork(&["token alice", "renew alice", end]);
        let (token, renewed) = (parent.reply(&child).token(), parent.reply(&child).token());
        assert!(renewed.generation > token.generation, "{token:?} {renewed:?}");
        assert_eq!(parent.call(&["wait", &process.0.to_string()]).ok(), 0);
    }
    parent.call(&["stop"]).ok();
    let done: u64 = (0..THREADS).map(|_| parent.reply(&hammer).ok().as_u64().unwrap()).sum();
    assert!(done > CHILDREN as u64, "the parent's threads renewed {done} times only");
    (0..THREADS).for_each(|_| _ = parent.reply(&look).ok());
    // No committed write was lost: each answer of the server is one generation, in any process's eyes.
    for worker in [&parent, &stage.open(json!({}))] {
        let described = worker.describe();
        assert_eq!(described["generation"], stage.renewals() + 1, "{described}");
        assert_eq!((&described["state"], &described["attempt"]), (&json!("active"), &json!(null)));
        assert_eq!(worker.call(&["list"]).ok()["sessions"][0]["version"], described["version"]);
    }
    println!("{} renewals", stage.renewals());
    stage.assert_no_token_was_used_twice();
}

#[test]
fn children_go_on_when_their_parent_has_closed_and_ended() {
    let stage = Stage::new(STRICT);
    let (parent, _) = stage.open_with_session(json!({}));
    // One that has used its client before its parent's end, and one that has not.
    let (early, _) = parent.fork(&["renew alice", "sleep 600", "renew alice", "describe alice", "end exit"]);
    let (late, _) = parent.fork(&["sleep 600", "renew alice", "describe alice", "end exit"]);
    parent.reply(&early).ok();
    parent.call(&["close", "1000"]).ok();
    parent.call(&["free"]).ok();
    parent.tell(&["end", "exit"]);
    assert!(parent.wait().success());
    for child in [&early, &late] {
        parent.reply(child).ok();
        assert!(parent.reply(child).token().generation > 2);
        assert_eq!(parent.reply(child).ok()["attempt"], json!(null));
    }
    assert_eq!(stage.open(json!({})).describe()["generation"], stage.renewals() + 1);
    stage.assert_no_token_was_used_twice();
}

/// An idle child does not keep its dead parent's renewal open.
#[test]
fn a_dead_parent_is_known_to_be_dead_although_its_child_lives() {
    let stage = Stage::new(GRACE);
    let (parent, token) = stage.open_with_session(json!({}));
    let other = stage.open(json!({"max_wait_ms": 50_000}));
    let (_, child) = parent.fork(&["end idle"]);
    stage.delay_next(LIMIT);
    parent.tell(&["renew", "alice"]);
    stage.wait_for_requests(2);
    parent.kill();
    let killed = Instant::now();
    assert_eq!(other.call(&["renew", "alice", &token.access_token]).token().generation, 3);
    println!("taken over {:?} after the kill", killed.elapsed());
    // The lease is 100 s.
    assert!(killed.elapsed() < LIMIT / 2);
    assert!(child.lives());
    child.signal(Signal::KILL);
}

#[test]
fn a_memory_store_stays_with_the_process_that_opened_it() {
    let stage = Stage::new(STRICT);
    let (parent, token) = stage.open_with_session(json!({"store": "memory:"}));
    let (child, _) = parent.fork(&["token alice", "renew alice", "end exit"]);
    for _ in 0..2 {
        let message = parent.reply(&child).failure("STORE");
        assert!(message.contains("open a new client") && message.contains("sqlite:"), "{message}");
    }
    assert_eq!(parent.call(&["token", "alice"]).token(), token);
    assert_eq!(stage.renewals(), 1);
}

/// A child that is forked in the middle of a renewal does not end, repeat or settle it: it waits for its parent's.
#[test]
fn a_child_waits_for_the_renewal_that_its_parent_has_open() {
    let stage = Stage::new(STRICT);
    let (parent, token) = stage.open_with_session(json!({}));
    stage.delay_next(Duration::from_millis(700));
    let renewal = parent.threads(1, &["renew", "alice"]);
    stage.wait_for_requests(2);
    let renew = format!("renew alice {}", token.access_token);
    let (child, _) = parent.fork(&[&renew, "end exit"]);
    let (ours, theirs) = (parent.reply(&renewal).token(), parent.reply(&child).token());
    assert_eq!(ours, theirs);
    assert_eq!(stage.renewals(), 2);
    stage.assert_no_token_was_used_twice();
}
