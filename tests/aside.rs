//! What a machine keeps beside its store: an answer that could not be committed outlives its process, and a store that
//! went back in time is noticed by who has never seen it before.

#![cfg(unix)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::*;
use evergrant_test_server::{Fault, FaultKind};
use rusqlite::Connection;
use serde_json::{Value, json};

impl Scene {
    fn aside(&self) -> PathBuf {
        self.directory.path().join("sessions.db-aside")
    }

    /// The answers that wait to be committed.
    fn pending(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.aside()).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("pending-")).collect()
    }

    /// A second process with a session in memory, whose refresh token has been used once.
    fn renewed_party(&self) -> Party {
        let mut party = self.party(json!({}));
        let refresh_token = self.sign_in().refresh_token;
        let token = json!({"refresh_token": refresh_token});
        party.ask(json!({"do": "save", "session": SESSION, "token": token})).unwrap();
        party.of("renew", SESSION).unwrap();
        party
    }

    /// A second process that holds an answer which it cannot commit, and the token in it. The store is away.
    fn uncommitted(&self) -> (Party, Value) {
        let (party, _, token) = self.uncommitted_after();
        (party, token)
    }

    /// The same, and the token before that one.
    fn uncommitted_after(&self) -> (Party, Value, Value) {
        let mut party = self.renewed_party();
        let before = party.of("token", SESSION).unwrap();
        self.server.fault(Fault::from(FaultKind::Delay).before(300));
        let requests = self.requests();
        party.begin(json!({"do": "renew", "session": SESSION}));
        eventually("the request", || self.requests() > requests);
        self.take_away();
        let token = party.answer().unwrap();
        assert_eq!(token["uncommitted"], true, "{token}");
        assert_eq!(self.pending().len(), 1);
        (party, before, token)
    }

    fn take_away(&self) {
        fs::rename(self.store(), self.directory.path().join("away")).unwrap();
    }

    fn bring_back(&self) {
        fs::rename(self.directory.path().join("away"), self.store()).unwrap();
    }

    fn backup(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let parts = ["", "-wal"].map(|part| PathBuf::from(format!("{}{part}", self.store().display())));
        parts.into_iter().filter_map(|part| Some((part.clone(), fs::read(&part).ok()?))).collect()
    }

    /// Puts an older copy in the place of the database. Nobody has it open.
    fn restore(&self, backup: &[(PathBuf, Vec<u8>)]) {
        for part in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{part}", self.store().display()));
        }
        backup.iter().for_each(|(path, content)| fs::write(path, content).unwrap());
    }

    fn assert_no_token_was_used_twice(&self) {
        for family in self.server.families() {
            assert!(family.reuses == 0, "{family:?}");
            assert!(family.refresh_tokens.iter().all(|token| token.presentations <= 1), "{family:?}");
        }
    }
}

fn rolled_back(party: &mut Party) -> usize {
    let events = party.ask(json!({"do": "events"})).unwrap();
    let of = |event: &&Value| event["kind"] == "store_warning" && event["reason"] == "store_rolled_back";
    events.as_array().unwrap().iter().filter(of).count()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

// ---- answers

#[test]
fn an_answer_that_a_locked_store_could_not_take_outlives_its_process() {
    let scene = Scene::new(strict());
    let mut party = scene.renewed_party();
    scene.server.fault(Fault::from(FaultKind::Delay).before(500));
    party.begin(json!({"do": "renew", "session": SESSION, "options": {"max_wait_ms": 60_000}}));
    eventually("the request", || scene.requests() == 2);
    let other = Connection::open(scene.store()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let token = party.answer().unwrap();
    assert_eq!((&token["generation"], &token["uncommitted"]), (&json!(3), &json!(true)));
    let [file] = &scene.pending()[..] else { panic!("{:?}", scene.pending()) };
    assert_eq!((mode(file), mode(&scene.aside())), (0o600, 0o700));
    party.kill();
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);

    let mut next = scene.party(json!({}));
    let served = next.of("renew", SESSION).unwrap();
    assert_eq!(served["access_token"], token["access_token"]);
    assert_eq!((&served["generation"], &served["uncommitted"]), (&json!(3), &Value::Null));
    assert_eq!((scene.requests(), scene.pending().len()), (2, 0));
    assert_eq!(next.of("describe", SESSION).unwrap()["attempt"], Value::Null);
    assert_eq!(next.of("renew", SESSION).unwrap()["generation"], 4);
    scene.assert_no_token_was_used_twice();
}

#[test]
fn whoever_looks_at_the_session_first_settles_it() {
    for first in ["access_token", "describe"] {
        let scene = Scene::new(strict());
        let (party, token) = scene.uncommitted();
        party.kill();
        scene.bring_back();
        let mut next = scene.party(json!({}));
        next.of(first, SESSION).unwrap();
        eventually("it is settled", || scene.pending().is_empty());
        assert_eq!(next.of("access_token", SESSION).unwrap(), token["access_token"]);
        assert_eq!(scene.requests(), 2);
    }
}

#[test]
fn who_takes_over_settles_it_and_does_not_replay() {
    let scene = Scene::new(strict());
    let mut other = scene.party(json!({"max_wait_ms": 60_000}));
    // It knows the session before there is anything aside.
    scene.saved(&scene.open(json!({})), SESSION);
    let first = other.of("token", SESSION).unwrap();
    scene.server.fault(Fault::from(FaultKind::Delay).before(300));
    let mut party = scene.party(json!({}));
    party.begin(json!({"do": "renew", "session": SESSION}));
    eventually("the request", || scene.requests() == 2);
    other.begin(json!({"do": "renew", "session": SESSION, "rejected": first["access_token"]}));
    scene.take_away();
    let token = party.answer().unwrap();
    assert_eq!(token["uncommitted"], true);
    other.answer().unwrap_err();
    party.kill();
    scene.bring_back();
    let renewal = json!({"do": "renew", "session": SESSION, "rejected": first["access_token"]});
    assert_eq!(other.ask(renewal).unwrap()["access_token"], token["access_token"]);
    assert_eq!((scene.requests(), scene.pending().len()), (2, 0));
    scene.assert_no_token_was_used_twice();
}

#[test]
fn a_closed_client_leaves_it_to_the_next() {
    let scene = Scene::new(strict());
    let (party, token) = scene.uncommitted();
    drop(party);
    assert_eq!(scene.pending().len(), 1);
    scene.bring_back();
    let client = scene.open(json!({}));
    // The token before it is still valid, and served meanwhile.
    client.access_token(SESSION, None).unwrap();
    eventually("it is settled", || scene.pending().is_empty());
    assert_eq!(text(client.access_token(SESSION, None)), token["access_token"]);
    assert_eq!(scene.requests(), 2);
}

#[test]
fn a_doubt_that_would_end_the_session_is_settled_instead() {
    let scene = Scene::new(strict());
    let (party, token) = scene.uncommitted();
    party.kill();
    scene.bring_back();
    let mut next = scene.party(json!({"lost_reply": "sign_in"}));
    assert_eq!(next.of("renew", SESSION).unwrap()["access_token"], token["access_token"]);
    assert_eq!(scene.requests(), 2);
}

#[test]
fn an_owner_that_lives_commits_by_itself() {
    let scene = Scene::new(strict());
    let (mut party, before, token) = scene.uncommitted_after();
    scene.bring_back();
    // Before that one tries again, or after.
    let mut other = scene.party(json!({}));
    assert!(other.of("describe", SESSION).is_ok());
    let renewal = json!({"do": "renew", "session": SESSION, "rejected": before["access_token"]});
    assert_eq!(other.ask(renewal).unwrap()["access_token"], token["access_token"], "it waits");
    eventually("the commit", || party.of("token", SESSION).unwrap()["uncommitted"].is_null());
    assert_eq!((scene.requests(), scene.pending().len()), (2, 0));
    let events = other.ask(json!({"do": "events"})).unwrap();
    assert!(events.as_array().unwrap().iter().all(|event| event["kind"] != "renewed"), "{events}");
}

#[test]
fn one_that_was_left_after_its_commit_changes_nothing() {
    let scene = Scene::new(strict());
    let (mut party, _) = scene.uncommitted();
    let [file] = &scene.pending()[..] else { panic!("{:?}", scene.pending()) };
    let content = fs::read(file).unwrap();
    scene.bring_back();
    eventually("the commit", || party.of("token", SESSION).unwrap()["uncommitted"].is_null());
    for generation in [3, 4, 5] {
        party = {
            party.kill();
            fs::write(file, &content).unwrap();
            scene.party(json!({}))
        };
        let described = party.of("describe", SESSION).unwrap();
        eventually("it is settled", || scene.pending().is_empty());
        assert_eq!(party.of("describe", SESSION).unwrap(), described);
        assert_eq!(described["generation"], generation);
        party.of("renew", SESSION).unwrap();
    }
    scene.assert_no_token_was_used_twice();
}

#[test]
fn a_sign_out_revokes_what_it_brought_and_forgetting_erases_it() {
    let scene = Scene::new(strict());
    let (party, _) = scene.uncommitted();
    party.kill();
    scene.bring_back();
    scene.party(json!({})).of("sign_out", SESSION).unwrap();
    eventually("the successor is revoked", || scene.server.families()[0].revoked.is_some());
    eventually("it is settled", || scene.pending().is_empty());

    let scene = Scene::new(strict());
    let (party, _) = scene.uncommitted();
    party.kill();
    scene.bring_back();
    scene.open(json!({})).forget(SESSION).unwrap();
    assert_eq!(scene.pending().len(), 0);
    assert!(scene.server.families()[0].revoked.is_none());
}

#[test]
fn what_nobody_can_read_is_left_alone() {
    let scene = Scene::new(grace(evergrant_test_server::GraceKind::SamePair));
    let (party, token) = scene.uncommitted();
    party.kill();
    let [file] = &scene.pending()[..] else { panic!("{:?}", scene.pending()) };
    let mut content = fs::read(file).unwrap();
    *content.last_mut().unwrap() ^= 1;
    fs::write(file, &content).unwrap();
    fs::create_dir(file.with_file_name(format!("pending-{}", "0".repeat(45)))).unwrap();
    fs::write(scene.aside().join("pending-"), "").unwrap();
    scene.bring_back();
    let mut next = scene.party(json!({}));
    // It is a doubt like any other.
    assert_eq!(next.of("renew", SESSION).unwrap()["access_token"], token["access_token"]);
    assert_eq!(scene.requests(), 3);
    assert_eq!(fs::read(file).unwrap(), content);
}

// ---- generations

#[test]
fn an_older_copy_of_the_store_is_healed_by_who_has_never_seen_it() {
    for behind in [1, 2] {
        let scene = Scene::new(strict());
        let mut party = scene.renewed_party();
        let backup = scene.backup();
        let mut token = Value::Null;
        for _ in 0..behind {
            token = party.of("renew", SESSION).unwrap();
        }
        party.kill();
        scene.restore(&backup);
        let mut next = scene.party(json!({}));
        assert_eq!(next.of("access_token", SESSION).unwrap(), token["access_token"]);
        eventually("it is written back", || {
            next.of("describe", SESSION).unwrap()["generation"] == token["generation"] || {
                next.of("token", SESSION).unwrap();
                false
            }
        });
        assert_eq!(next.of("renew", SESSION).unwrap()["generation"], 3 + behind);
        assert_eq!(rolled_back(&mut next), 1);
        scene.assert_no_token_was_used_twice();
    }
}

#[test]
fn a_renewal_from_an_older_copy_presents_what_this_machine_remembers() {
    let scene = Scene::new(strict());
    let mut party = scene.renewed_party();
    let backup = scene.backup();
    let token = party.of("renew", SESSION).unwrap();
    party.kill();
    scene.restore(&backup);
    let mut next = scene.party(json!({}));
    let renewed = next.ask(json!({"do": "renew", "session": SESSION, "rejected": token["access_token"]})).unwrap();
    assert_eq!(renewed["generation"], 4);
    assert_eq!(rolled_back(&mut next), 1);
    scene.assert_no_token_was_used_twice();
}

#[test]
fn a_reader_serves_what_this_machine_remembers_and_writes_nothing() {
    let scene = Scene::new(strict());
    let mut party = scene.renewed_party();
    let backup = scene.backup();
    let token = party.of("renew", SESSION).unwrap();
    party.kill();
    scene.restore(&backup);
    let mut reader = scene.party(json!({"renews": false}));
    assert_eq!(reader.of("access_token", SESSION).unwrap(), token["access_token"]);
    assert_eq!(scene.backup(), backup);
    assert_eq!(rolled_back(&mut reader), 0);
}

#[test]
fn an_older_copy_does_not_undo_a_sign_out() {
    let scene = Scene::new(strict());
    let mut party = scene.renewed_party();
    let backup = scene.backup();
    party.of("renew", SESSION).unwrap();
    party.of("sign_out", SESSION).unwrap();
    party.kill();
    scene.restore(&backup);
    let mut reader = scene.party(json!({"renews": false}));
    assert_eq!(reader.of("access_token", SESSION).unwrap_err()["reason"], "signed_out");
    let mut next = scene.party(json!({}));
    assert_eq!(next.of("access_token", SESSION).unwrap_err()["reason"], "signed_out");
    assert_eq!(rolled_back(&mut next), 1);
    // It stands in the store again.
    fs::remove_dir_all(scene.aside()).unwrap();
    assert_eq!(scene.open(json!({})).state(SESSION), "signed_out");
    assert_eq!(scene.requests(), 2);
}

#[test]
fn an_older_copy_does_not_undo_forgetting_nor_an_end() {
    let scene = Scene::new(strict());
    drop(scene.renewed_party());
    let backup = scene.backup();
    scene.open(json!({})).forget(SESSION).unwrap();
    scene.restore(&backup);
    let error = scene.open(json!({})).access_token(SESSION, None).unwrap_err();
    assert_eq!(error.reason.as_deref(), Some("no_session"));

    let scene = Scene::new(strict());
    let mut party = scene.renewed_party();
    let backup = scene.backup();
    party.of("renew", SESSION).unwrap();
    let newest = scene.server.families()[0].refresh_tokens.last().unwrap().token.clone();
    assert!(scene.server.revoke(&newest));
    let error = party.of("renew", SESSION).unwrap_err();
    party.kill();
    scene.restore(&backup);
    let requests = scene.requests();
    let again = scene.party(json!({})).of("access_token", SESSION).unwrap_err();
    assert_eq!((&again["status"], &again["reason"]), (&json!("SIGN_IN_REQUIRED"), &error["reason"]));
    assert_eq!(scene.requests(), requests);
}

#[test]
fn of_another_grant_nothing_is_taken() {
    let scene = Scene::new(strict());
    let mut party = scene.renewed_party();
    let backup = scene.backup();
    let refresh_token = scene.sign_in().refresh_token;
    party.ask(json!({"do": "save", "session": SESSION, "token": {"refresh_token": refresh_token}})).unwrap();
    for _ in 0..3 {
        party.of("renew", SESSION).unwrap();
    }
    party.kill();
    scene.restore(&backup);
    let mut next = scene.party(json!({}));
    assert_eq!(next.of("describe", SESSION).unwrap()["generation"], 2);
    assert_eq!(next.of("renew", SESSION).unwrap()["generation"], 3);
    assert_eq!(rolled_back(&mut next), 0);
    scene.assert_no_token_was_used_twice();
}

// ---- trouble

#[test]
fn a_directory_that_cannot_be_made_is_told_once() {
    let scene = Scene::new(strict());
    fs::write(scene.aside(), "in its place").unwrap();
    let client = scene.signed_in(json!({}));
    for generation in [2, 3, 4] {
        assert_eq!(token(client.renew(SESSION, None, None))["generation"], generation);
    }
    let warnings = client.events_of("store_warning");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0]["reason"], "state_directory");
    let message = warnings[0]["message"].as_str().unwrap();
    assert!(message.contains("sessions.db-aside"), "{message}");
    client.sign_out(SESSION).unwrap();
}
