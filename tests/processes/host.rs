//! What a host program may do: close, exit, send itself signals, open thousands of clients, load the library twice.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::stage::{GRACE, LIMIT, STRICT, Stage, Token, Worker, library, wait_for};

/// A worker whose renewal the server has read and keeps for this long.
fn with_open_renewal(stage: &Stage, delay: Duration, config: Value) -> (Worker, Token, String) {
    let (worker, token) = stage.open_with_session(config);
    stage.delay_next(delay);
    let renewal = worker.threads(1, &["renew", "alice"]);
    stage.wait_for_requests(2);
    (worker, token, renewal)
}

// ---- exit

#[test]
fn a_normal_exit_lets_an_open_renewal_settle() {
    let stage = Stage::new(STRICT);
    let (worker, ..) = with_open_renewal(&stage, Duration::from_millis(500), json!({}));
    worker.tell(&["end", "exit"]);
    assert!(worker.wait().success());
    let described = stage.open(json!({})).describe();
    assert_eq!((&described["generation"], &described["attempt"]), (&json!(3), &json!(null)));
    assert_eq!(stage.server.token_requests().len(), 2);
    stage.assert_no_token_was_used_twice();
}

/// However a process ends in the middle of a renewal: the next one settles it.
fn an_early_end_loses_nothing(config: Value, end: impl Fn(&Worker)) {
    let stage = Stage::new(GRACE);
    let (worker, token, _) = with_open_renewal(&stage, LIMIT, config);
    end(&worker);
    worker.wait();
    // The server has not even dealt with it.
    assert_eq!(stage.server.token_requests()[1].processed_ms, None);
    let next = stage.open(json!({}));
    assert!(!next.describe()["attempt"].is_null());
    assert_eq!(next.call(&["renew", "alice", &token.access_token]).token().generation, 3);
    assert_eq!(next.describe()["attempt"], json!(null));
    let presentations: Vec<_> = stage.server.families()[0].refresh_tokens.iter().map(|it| it.presentations).collect();
    assert_eq!(presentations, [1, 2, 0]);
}

#[test]
fn exit_waits_no_longer_than_exit_wait_ms_and_the_next_process_replays() {
    an_early_end_loses_nothing(json!({"exit_wait_ms": 50}), |worker| {
        worker.tell(&["end", "exit"]);
        assert!(worker.wait().success());
    });
}

#[test]
fn an_exit_without_exit_handlers_loses_nothing() {
    an_early_end_loses_nothing(json!({}), |worker| _ = worker.tell(&["end", "_exit"]));
}

#[test]
fn an_end_by_sigterm_loses_nothing() {
    an_early_end_loses_nothing(json!({}), |worker| worker.process().signal(Signal::TERM));
}

// ---- close

#[test]
fn close_returns_within_its_bound_and_waiters_are_told_at_once() {
    let stage = Stage::new(STRICT);
    let (worker, token, renewal) = with_open_renewal(&stage, Duration::from_secs(8), json!({"max_wait_ms": 50_000}));
    let waiting = worker.threads(3, &["renew", "alice", &token.access_token]);
    worker.call(&["sleep", "100"]).ok();
    let closed = Instant::now();
    worker.call(&["close", "200"]).failure("TIMED_OUT");
    assert!(closed.elapsed() >= Duration::from_millis(190));
    worker.reply(&renewal).failure("CLOSED");
    (0..3).for_each(|_| _ = worker.reply(&waiting).failure("CLOSED"));
    println!("closed, and everyone told, in {:?}", closed.elapsed());
    assert_eq!(stage.server.token_requests()[1].processed_ms, None, "all that happened before the server's answer");

    for command in [
        &["token", "alice"][..],
        &["renew", "alice"],
        &["save", "alice", "{\"refresh_token\":\"x\"}"],
        &["describe", "alice"],
        &["list"],
        &["peek", "alice"],
    ] {
        worker.call(command).failure("CLOSED");
    }
    // Closing again is harmless, and waits for what is still open.
    worker.call(&["close", "30000"]).ok();
    assert_eq!(stage.open(json!({})).describe()["generation"], 3);
    worker.call(&["close", "0"]).ok();
    worker.call(&["free"]).ok();
    stage.assert_no_token_was_used_twice();
}

// ---- signals and threads

#[test]
fn a_hosts_signals_run_on_its_own_threads_and_break_nothing() {
    let stage = Stage::new(STRICT);
    stage.server.update(|options| options.latency_ms = 5);
    let (worker, _) = stage.open_with_session(json!({}));
    // So many threads has the host itself.
    let idle = |worker: &Worker| (worker.process().threads().len() == 1).then_some(());
    worker.call(&["signals", "on"]).ok();
    let renewals = worker.threads(2, &["repeat", "renew", "alice"]);
    wait_for("a thread of the library", || {
        worker.process().threads().contains(&"evergrant\n".to_owned()).then_some(())
    });
    wait_for("40 renewals", || (stage.renewals() >= 40).then_some(()));
    for name in worker.process().threads() {
        assert!(["worker\n", "evergrant\n"].contains(&&*name), "a thread is called {name:?}");
    }
    worker.call(&["stop"]).ok();
    (0..2).for_each(|_| _ = worker.reply(&renewals).ok());
    let handled = worker.call(&["signals", "off"]).ok();
    println!("signals handled: {handled}");
    assert!(handled["host"].as_u64() > Some(100), "{handled}");
    assert_eq!(handled["foreign"], 0);
    let stopped = Instant::now();
    wait_for("the library's threads to end", || idle(&worker));
    println!("the library's threads were gone after {:?}", stopped.elapsed());
    stage.assert_no_token_was_used_twice();
}

// ---- many clients

#[test]
fn three_thousand_clients_share_one_store_connection_owner_file_and_no_thread() {
    const CLIENTS: usize = 3_000;
    let stage = Stage::new(STRICT);
    stage.server.update(|options| {
        let template = options.clients[0].clone();
        options.clients = (0..CLIENTS)
            .map(|number| evergrant_test_server::Client { id: format!("client-{number}"), ..template.clone() })
            .collect();
    });
    let memory = |worker: &Worker| {
        let status = fs::read_to_string(format!("/proc/{}/statm", worker.pid())).unwrap();
        status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
    };
    let worker = stage.open(json!({"client_id": "client-0"}));
    let (descriptors, kib) = (worker.process().descriptors(), memory(&worker));
    let opening = Instant::now();
    let mut inside = Duration::ZERO;
    for number in 1..CLIENTS {
        let reply = worker.call(&["open", &stage.config(json!({"client_id": format!("client-{number}")}))]);
        reply.ok();
        inside += reply.took();
    }
    println!(
        "a client costs {:?} to open ({:?} from outside) and {} bytes",
        inside / CLIENTS as u32,
        opening.elapsed() / CLIENTS as u32,
        (memory(&worker) - kib) * 1024 / CLIENTS
    );
    assert!(worker.process().descriptors() <= descriptors + 2, "{} descriptors", worker.process().descriptors());
    assert_eq!(worker.process().threads().len(), 1);
    assert_eq!(fs::read_dir(stage.path().join("s.db-owners")).unwrap().count(), 1);
    // All of them work, each with sessions of its own.
    for number in ["0", "1500", "2999"] {
        worker.call(&["use", number]).ok();
        let token = stage.server.sign_in(&format!("client-{number}"), "user", "api").refresh_token;
        worker.call(&["save", "alice", &json!({"refresh_token": token}).to_string()]).ok();
        assert_eq!(worker.call(&["token", "alice"]).token().generation, 2);
        assert_eq!(worker.call(&["list"]).ok()["sessions"].as_array().unwrap().len(), 1);
    }
    assert!(worker.process().descriptors() <= descriptors + 8, "{} descriptors", worker.process().descriptors());
    assert_eq!(fs::read_dir(stage.path().join("s.db-owners")).unwrap().count(), 1);
    // And they go one by one without taking the store along.
    for number in 0..CLIENTS - 1 {
        worker.tell(&["use", &number.to_string()]);
        worker.tell(&["close", "0"]);
        worker.call(&["free"]).ok();
    }
    worker.call(&["use", &(CLIENTS - 1).to_string()]).ok();
    assert_eq!(worker.call(&["renew", "alice"]).token().generation, 3);
}

// ---- two copies

#[test]
fn a_second_copy_of_the_library_is_refused_on_the_same_store_only() {
    let stage = Stage::new(STRICT);
    let copy = stage.path().join("another.so");
    fs::copy(library(), &copy).unwrap();
    let copy = copy.to_str().unwrap();
    let (worker, token) = stage.open_with_session(json!({}));
    let message = worker.call(&["second", copy, &stage.config(json!({}))]).failure("STORE");
    assert!(message.contains("two copies"), "{message}");
    assert!(message.contains("s.db"), "{message}");
    // The first copy is none the worse for it.
    assert_eq!(worker.call(&["renew", "alice", &token.access_token]).token().generation, 3);
    let elsewhere = format!("sqlite:{}", stage.path().join("other.db").display());
    worker.call(&["second", copy, &stage.config(json!({"store": elsewhere}))]).ok();
    assert_eq!(worker.call(&["renew", "alice"]).token().generation, 4);
    // Nor does another process see anything wrong.
    assert_eq!(stage.open(json!({})).describe()["generation"], 4);
}
