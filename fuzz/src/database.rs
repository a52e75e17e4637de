//! Database files of any bytes: a record that loads is the one that was written, an error is the store's and says what
//! to do, and damage to one row costs that row.
//!
//! `w` and a whole write-ahead log beside a good database, `t` and patches of one row's text, `p` and patches of a good
//! database (3 bytes where, 1 byte by what it is changed); else a whole file.

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use evergrant::session::record::{Key, Record};
use evergrant::store::Store;
use evergrant::store::seal::Keys;
use evergrant::store::sqlite::{SqliteOptions, SqliteStore};
use evergrant::{Error, Result, Status};
use tempfile::TempDir;

use super::check_error;
use super::sealed::record;

/// The row that `t` damages stands between two others.
const SESSIONS: [&str; 3] = ["alice", "bob", "carol"];
const DAMAGED: &str = "bob";
const MARK: &str = "the only text of its kind in this database";

struct Good {
    file: Vec<u8>,
    records: Vec<Record>,
}

pub fn run(data: &[u8]) {
    static GOOD: OnceLock<Good> = OnceLock::new();
    let good = GOOD.get_or_init(make);
    let directory = directory();
    let path = directory.path().join("sessions.db");
    let Some((what, rest)) = data.split_first() else { return };
    let mut file = good.file.clone();
    match what {
        b'w' => fs::write(directory.path().join("sessions.db-wal"), rest).expect("write"),
        b't' => {
            let at = file.windows(MARK.len()).position(|part| part == MARK.as_bytes()).expect("the mark");
            patch(&mut file[at..at + MARK.len()], rest);
        }
        b'p' => patch(&mut file, rest),
        _ => file = data.to_vec(),
    }
    fs::write(&path, &file).expect("write");
    let whole = file == good.file;
    let store = match open(&path) {
        Ok(store) => store,
        Err(error) => {
            check(&error, &path);
            assert!(!whole && *what != b't', "a good database is refused: {error}");
            return;
        }
    };
    for (session, written) in SESSIONS.into_iter().zip(&good.records) {
        let loaded = load(&store, session, written, &path);
        let good_row = whole || (*what == b't' && session != DAMAGED);
        assert!(!good_row || loaded, "a row that nobody has damaged is lost: {session}");
        assert!(*what != b't' || good_row || !loaded, "a damaged row is read");
    }
    match store.list("namespace", None, 10) {
        Ok(rows) => assert!(!whole || rows.len() == SESSIONS.len(), "rows are lost"),
        Err(error) => check(&error, &path),
    }
    let new = record(1, 1, "canary-new-token");
    match store.compare_and_swap(&key("dora"), None, &new) {
        Ok(true) => drop(load(&store, "dora", &new, &path)),
        Ok(false) => assert!(!whole, "a session that is not there cannot be written"),
        Err(error) => {
            check(&error, &path);
            assert!(!whole, "a good database cannot be written: {error}");
        }
    }
    for (session, written) in SESSIONS.into_iter().zip(&good.records) {
        load(&store, session, written, &path);
    }
}

/// Whether the record is there. If it is, it is what was written.
fn load(store: &SqliteStore, session: &str, written: &Record, path: &Path) -> bool {
    match store.load(&key(session)) {
        Ok((Some(record), _)) => {
            assert_eq!(record, *written, "another record than was written");
            true
        }
        Ok((None, _)) => false,
        Err(error) => {
            check(&error, path);
            false
        }
    }
}

fn check(error: &Error, path: &Path) {
    check_error(error);
    assert_eq!(error.status, Status::Store, "{error}");
    assert!(error.message.contains(&*path.to_string_lossy()), "it names no file: {error}");
    assert!(!error.message.contains("canary"), "it shows a secret: {error}");
}

fn patch(bytes: &mut [u8], patches: &[u8]) {
    for patch in patches.chunks_exact(4) {
        let at = u32::from_be_bytes([0, patch[0], patch[1], patch[2]]) as usize % bytes.len();
        bytes[at] ^= patch[3];
    }
}

fn make() -> Good {
    let directory = directory();
    let path = directory.path().join("sessions.db");
    let store = open(&path).expect("a new store");
    let records = SESSIONS.map(|session| {
        // The last one is longer than a page.
        let length = if session == "carol" { 9_000 } else { 900 };
        let mut record = record(40, 3, &format!("canary-{}", "x".repeat(length)));
        record.reason = (session == DAMAGED).then(|| MARK.to_owned());
        assert!(store.compare_and_swap(&key(session), None, &record).expect("a write"));
        record
    });
    drop(store);
    Good { file: fs::read(&path).expect("read"), records: records.into() }
}

fn open(path: &Path) -> Result<Arc<SqliteStore>> {
    let keys = Keys::new(&[[7; 32]])?;
    SqliteStore::open(SqliteOptions {
        path: path.to_owned(),
        make_directory: false,
        keys: Some(keys),
        read_only: false,
    })
}

fn key(session: &str) -> Key {
    Key { namespace: "namespace".into(), session: session.into() }
}

/// In memory, where there is such a place: every commit waits for the disk.
fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}
