//! Processes on a store that machines share.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::servers::{Postgres, Redis};
use crate::stage::{STRICT, Stage, wait_for};

fn on(url: String) -> Value {
    json!({
        "store": url,
        "encryption_key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "max_wait_ms": 50_000,
    })
}

#[test]
fn children_use_their_parents_client_on_postgresql_while_its_threads_are_inside() {
    let postgres = Postgres::shared();
    children_use_their_parents_client(on(postgres.url(&postgres.database())));
}

#[test]
fn children_use_their_parents_client_on_redis_while_its_threads_are_inside() {
    let redis = Redis::start();
    children_use_their_parents_client(on(redis.url()));
}

fn children_use_their_parents_client(config: Value) {
    const THREADS: usize = 4;
    const CHILDREN: usize = 10;
    let stage = Stage::new(STRICT);
    let (parent, _) = stage.open_with_session(config.clone());
    let hammer = parent.threads(THREADS, &["repeat", "renew", "alice"]);
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
    for worker in [&parent, &stage.open(config)] {
        let described = worker.describe();
        assert_eq!(described["generation"], stage.renewals() + 1, "{described}");
        assert_eq!((&described["state"], &described["attempt"]), (&json!("active"), &json!(null)));
    }
    stage.assert_no_token_was_used_twice();
}

#[test]
fn a_process_that_was_stopped_in_the_middle_on_postgresql_goes_on_where_it_was() {
    let postgres = Postgres::shared();
    let database = postgres.database();
    goes_on_where_it_was(on(postgres.url(&database)), || postgres.end_connections(&database));
}

#[test]
fn a_process_that_was_stopped_in_the_middle_on_redis_goes_on_where_it_was() {
    let redis = Redis::start();
    goes_on_where_it_was(on(redis.url()), || drop(redis.cli(&["CLIENT", "KILL", "TYPE", "normal"])));
}

fn goes_on_where_it_was(config: Value, end_connections: impl FnOnce()) {
    let stage = Stage::new(STRICT);
    let (worker, token) = stage.open_with_session(config.clone());
    let other = stage.open(config);
    stage.delay_next(std::time::Duration::from_millis(300));
    let renewal = worker.tell(&["renew", "alice", &token.access_token]);
    stage.wait_for_requests(2);
    worker.process().signal(Signal::STOP);
    // The answer comes, the others wait, and its connections to the store go.
    let waiting = other.tell(&["renew", "alice", &token.access_token]);
    wait_for("the answer", || (stage.renewals() == 2).then_some(()));
    end_connections();
    worker.process().signal(Signal::CONT);
    let renewed = worker.reply(&renewal).token();
    assert_eq!(renewed.generation, token.generation + 1);
    assert_eq!(other.reply(&waiting).token().access_token, renewed.access_token);
    assert_eq!(stage.renewals(), 2);
    stage.assert_no_token_was_used_twice();
}
