//! Owners of open renewals: alive, stopped, dead.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::stage::{GRACE, LIMIT, STRICT, Stage};

#[test]
fn a_dead_owner_is_known_at_once() {
    let stage = Stage::new(GRACE);
    let (owner, token) = stage.open_with_session(json!({}));
    let other = stage.open(json!({"max_wait_ms": 50_000}));
    stage.delay_next(LIMIT);
    owner.tell(&["renew", "alice"]);
    stage.wait_for_requests(2);
    // While the owner lives, its renewal is waited for, and nothing is sent.
    let options = json!({"max_wait_ms": 300}).to_string();
    let message = other.call(&["renew", "alice", &token.access_token, &options]).failure("TIMED_OUT");
    assert!(message.contains("it goes on"), "{message}");
    assert_eq!(stage.server.token_requests().len(), 2);

    let waiting = other.tell(&["renew", "alice", &token.access_token]);
    thread::sleep(Duration::from_millis(100));
    owner.kill();
    let killed = Instant::now();
    assert_eq!(other.reply(&waiting).token().generation, 3);
    println!("taken over {:?} after the kill", killed.elapsed());
    // The lease is 100 s.
    assert!(killed.elapsed() < LIMIT / 2);
    assert_eq!(stage.server.token_requests().len(), 3);
    // And what was known only by the owner file is known to those that come later, too.
    assert_eq!(stage.open(json!({})).describe()["attempt"], json!(null));
}

#[test]
fn a_stopped_owner_is_waited_for_and_gives_everyone_its_token_when_it_goes_on() {
    let stage = Stage::new(STRICT);
    let (owner, token) = stage.open_with_session(json!({}));
    let other = stage.open(json!({"max_wait_ms": 50_000}));
    stage.delay_next(Duration::from_millis(300));
    let renewal = owner.tell(&["renew", "alice"]);
    stage.wait_for_requests(2);
    owner.process().signal(Signal::STOP);
    // The server's answer has arrived; nobody can read it.
    thread::sleep(Duration::from_millis(600));

    let options = json!({"max_wait_ms": 300}).to_string();
    other.call(&["renew", "alice", &token.access_token, &options]).failure("TIMED_OUT");
    // A stopped process is alive, and the old token is still valid: it is served.
    assert_eq!(other.call(&["token", "alice"]).token(), token);
    let waiting = other.threads(4, &["renew", "alice", &token.access_token]);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(stage.server.token_requests().len(), 2);

    owner.process().signal(Signal::CONT);
    let renewed = owner.reply(&renewal).token();
    assert_eq!(renewed.generation, 3);
    (0..4).for_each(|_| assert_eq!(other.reply(&waiting).token(), renewed));
    assert_eq!(stage.server.token_requests().len(), 2);
    stage.assert_no_token_was_used_twice();
}

/// The answer came in time, but its owner could not read it in time: it is read all the same.
#[test]
fn an_owner_that_was_stopped_beyond_the_limit_of_its_exchange_still_takes_the_answer() {
    let stage = Stage::new(STRICT);
    let limits = json!({"connect_timeout_ms": 500, "exchange_timeout_ms": 1_000});
    let (owner, token) = stage.open_with_session(limits.clone());
    let other = stage.open(limits);
    stage.delay_next(Duration::from_millis(300));
    let renewal = owner.tell(&["renew", "alice"]);
    stage.wait_for_requests(2);
    owner.process().signal(Signal::STOP);
    thread::sleep(Duration::from_millis(2_500));
    assert_eq!(other.call(&["token", "alice"]).token(), token);
    assert_eq!(stage.server.token_requests().len(), 2);
    owner.process().signal(Signal::CONT);
    let renewed = owner.reply(&renewal).token();
    assert_eq!(other.call(&["renew", "alice", &token.access_token]).token(), renewed);
    assert_eq!(stage.server.token_requests().len(), 2);
    stage.assert_no_token_was_used_twice();
}
