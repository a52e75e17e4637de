//! A store that goes back in time: its files are replaced by an older copy, as from a backup. `tests/aside.rs` has what
//! the directory beside it heals.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::stage::{STRICT, Stage, Worker, wait_for};

/// The database and its log as they were.
struct Past(Vec<(PathBuf, Vec<u8>)>);

impl Past {
    fn of(stage: &Stage) -> Self {
        let files = ["s.db", "s.db-wal"].map(|name| stage.path().join(name));
        Self(files.into_iter().filter_map(|path| Some((path.clone(), fs::read(path).ok()?))).collect())
    }

    /// As a backup is put back: new files in place of the ones that are there.
    fn restore(&self, stage: &Stage) {
        for name in ["s.db-wal", "s.db-shm"] {
            let _ = fs::remove_file(stage.path().join(name));
        }
        // The database last: whoever sees it sees its log, too.
        for (path, bytes) in self.0.iter().rev() {
            let new = stage.path().join("new");
            fs::write(&new, bytes).expect("a file");
            fs::rename(&new, path).expect("a new name");
        }
    }
}

/// A worker that has seen this session grow from generation 2, of which the copy is, to 4.
fn grown(more: Value) -> (Stage, Worker, Past) {
    let stage = Stage::new(STRICT);
    let (worker, _) = stage.open_with_session(more);
    let past = Past::of(&stage);
    worker.call(&["renew", "alice"]).ok();
    assert_eq!(worker.call(&["renew", "alice"]).token().generation, 4);
    (stage, worker, past)
}

/// What this machine remembers beside the database goes back, too.
fn forget_what_is_aside(stage: &Stage) {
    fs::remove_dir_all(stage.path().join("s.db-aside")).expect("a directory");
}

fn assert_goes_on(stage: &Stage, generation: u64) {
    let next = stage.open(json!({}));
    assert_eq!(next.call(&["renew", "alice"]).token().generation, generation);
    let described = next.describe();
    assert_eq!((&described["state"], &described["attempt"]), (&json!("active"), &Value::Null));
    stage.assert_no_token_was_used_twice();
}

/// Nobody knows that the refresh token was used: the server says so, once, and everybody is told the same.
fn assert_ends(stage: &Stage, reason: &str) {
    let worker = stage.open(json!({"max_wait_ms": 50_000}));
    let requests = stage.server.token_requests().len();
    for party in [&worker, &worker, &stage.open(json!({}))] {
        let reply = party.call(&["renew", "alice"]);
        reply.failure("SIGN_IN_REQUIRED");
        assert_eq!(reply.answer["reason"], reason, "{reply:?}");
    }
    assert_eq!(stage.server.token_requests().len(), requests + 1);
    assert_eq!(stage.family("user").revoked.map(|revoked| revoked.why), Some("reuse"));
    assert_eq!(worker.describe()["reason"], reason);
    worker.call(&["save", "alice", &stage.sign_in()]).ok();
    assert_eq!(stage.open(json!({})).call(&["token", "alice"]).token().generation, 2);
}

#[test]
fn a_process_that_has_seen_more_writes_it_back_before_it_renews() {
    let (stage, worker, past) = grown(json!({}));
    past.restore(&stage);
    assert_eq!(stage.open(json!({})).describe()["generation"], 2);
    assert_eq!(worker.call(&["renew", "alice"]).token().generation, 5);
    assert_goes_on(&stage, 6);
}

#[test]
fn a_process_that_has_seen_more_heals_the_store_for_those_that_come_later() {
    let (stage, worker, past) = grown(json!({"recheck_s": 1}));
    past.restore(&stage);
    let reader = stage.open(json!({}));
    // It is asked for no more than its token.
    wait_for("it to look at the store", || {
        worker.call(&["token", "alice"]).token();
        (reader.describe()["generation"] == 4).then_some(())
    });
    drop(worker);
    assert_goes_on(&stage, 5);
}

#[test]
fn an_answer_that_finds_the_store_of_an_earlier_time_is_written_all_the_same() {
    let (stage, worker, past) = grown(json!({}));
    stage.delay_next(Duration::from_millis(500));
    let renewal = worker.tell(&["renew", "alice"]);
    stage.wait_for_requests(4);
    past.restore(&stage);
    let renewed = worker.reply(&renewal).token();
    assert_eq!(renewed.generation, 5);
    assert_eq!(worker.call(&["token", "alice"]).token(), renewed);
    drop(worker);
    assert_goes_on(&stage, 6);
}

#[test]
fn without_any_memory_the_session_ends_as_used_elsewhere() {
    let (stage, worker, past) = grown(json!({}));
    worker.exit();
    past.restore(&stage);
    forget_what_is_aside(&stage);
    assert_ends(&stage, "used_elsewhere_or_revoked");
}

/// As it was in the middle of a renewal: the copy says that its token may have been used.
#[test]
fn without_any_memory_a_renewal_that_was_under_way_ends_as_rotation_lost() {
    let (stage, worker, _) = grown(json!({}));
    stage.delay_next(Duration::from_millis(500));
    let renewal = worker.tell(&["renew", "alice"]);
    stage.wait_for_requests(4);
    let past = Past::of(&stage);
    worker.reply(&renewal).token();
    worker.exit();
    past.restore(&stage);
    forget_what_is_aside(&stage);
    assert_ends(&stage, "rotation_lost");
}

/// What one process remembers is not the latest, and it is the one that renews.
fn behind(aside: bool) -> (Stage, [Worker; 2]) {
    let stage = Stage::new(STRICT);
    let (latest, _) = stage.open_with_session(json!({}));
    let past = Past::of(&stage);
    latest.call(&["renew", "alice"]).ok();
    let behind = stage.open(json!({}));
    assert_eq!(behind.call(&["token", "alice"]).token().generation, 3);
    latest.call(&["renew", "alice"]).ok();
    past.restore(&stage);
    if !aside {
        forget_what_is_aside(&stage);
    }
    (stage, [behind, latest])
}

#[test]
fn a_memory_that_is_behind_looks_aside() {
    let (stage, [behind, latest]) = behind(true);
    // Newer than what it knew, and nothing was sent for it.
    assert_eq!(behind.call(&["renew", "alice"]).token().generation, 4);
    assert_eq!(latest.call(&["renew", "alice"]).token().generation, 5);
    assert_goes_on(&stage, 6);
}

#[test]
fn a_memory_that_is_behind_ends_the_session_for_all_and_says_so() {
    let (stage, [behind, latest]) = behind(false);
    for party in [&behind, &latest, &stage.open(json!({}))] {
        let reply = party.call(&["renew", "alice"]);
        reply.failure("SIGN_IN_REQUIRED");
        assert_eq!(reply.answer["reason"], "used_elsewhere_or_revoked", "{reply:?}");
    }
    latest.call(&["save", "alice", &stage.sign_in()]).ok();
    assert_eq!(behind.call(&["renew", "alice"]).token().generation, 2);
}
