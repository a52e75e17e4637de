use std::os::unix::fs::PermissionsExt;

use rusqlite::Connection;
use serde_json::json;

use super::*;
use crate::secret::Secret;
use crate::session::record::{Id, Known, Secrets};
use crate::store::memory::MemoryStore;
use crate::token::{Expiry, Life as TokenLife};

fn options(path: &Path) -> SqliteOptions {
    SqliteOptions { path: path.to_owned(), make_directory: false, keys: None, read_only: false }
}

fn with_keys(path: &Path, seeds: &[u8]) -> SqliteOptions {
    let keys: Vec<[u8; 32]> = seeds.iter().map(|seed| [*seed; 32]).collect();
    SqliteOptions { keys: Some(Keys::new(&keys).unwrap()), ..options(path) }
}

fn key(session: &str) -> Key {
    Key { namespace: "https://login.example.com/token client".into(), session: session.into() }
}

fn record(version: i64) -> Record {
    Record {
        version,
        grant: Id(7),
        generation: 3,
        state: State::Active,
        reason: None,
        life: Some(TokenLife { from_ms: 1, until_ms: Some(1_700_000_000_000), expiry: Expiry::Known }),
        renewed_at_ms: 1,
        made_by: None,
        attempt: None,
        back_off: None,
        known: Known::default(),
        history: Vec::new(),
        signature_mismatch: false,
        moved: None,
        arrived: Vec::new(),
        delete_after_ms: None,
        others: Default::default(),
        secrets: Secrets {
            refresh_token: Some(Secret::new("refresh-canary")),
            access_token: Some(Secret::new("access-canary")),
            members: Some(Secret::new(r#"{"access_token":"access-canary","id":"https://x/\"y\""}"#)),
            spare: Some(Secret::new("spare-canary")),
            to_revoke: vec![Secret::new("revoke-canary")],
            fingerprint_key: Secret::new("fingerprint-canary"),
            others: Default::default(),
        },
    }
}

struct Place {
    directory: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sessions.db");
    Place { directory, path }
}

fn open(path: &Path) -> Arc<SqliteStore> {
    SqliteStore::open(options(path)).unwrap()
}

fn refusal(options: SqliteOptions) -> String {
    let error = SqliteStore::open(options).err().expect("must be refused");
    assert_eq!(error.status, crate::Status::Store);
    assert!(!error.message.contains('\n') && !error.message.contains("canary"), "{error}");
    assert!(error.message.ends_with(". No refresh token was spent."), "{error}");
    error.message.clone()
}

/// What every store must do.
fn keeps_the_contract(store: &dyn Store) {
    let (found, now) = store.load(&key("a")).unwrap();
    assert!(found.is_none());
    assert_eq!(now.clock, crate::host::boot_id());
    assert!(now.ms <= clock::monotonic_ms());

    assert!(!store.compare_and_swap(&key("a"), Some(1), &record(2)).unwrap(), "no record");
    assert!(store.compare_and_swap(&key("a"), None, &record(5)).unwrap());
    assert!(!store.compare_and_swap(&key("a"), None, &record(6)).unwrap(), "there is one");
    assert!(!store.compare_and_swap(&key("a"), Some(4), &record(6)).unwrap(), "another version");
    assert_eq!(store.load(&key("a")).unwrap().0, Some(record(5)));
    assert!(store.compare_and_swap(&key("a"), Some(5), &record(6)).unwrap());
    assert_eq!(store.load(&key("a")).unwrap().0, Some(record(6)));

    for (version, session) in ["B", "é", "ab", "\u{10000}"].into_iter().enumerate() {
        assert!(store.compare_and_swap(&key(session), None, &record(version as i64)).unwrap());
    }
    let forgotten = Record { state: State::Forgotten, life: None, ..record(1) };
    assert!(store.compare_and_swap(&key("gone"), None, &forgotten).unwrap());
    let other = Key { namespace: "other".into(), session: "a".into() };
    assert!(store.compare_and_swap(&other, None, &record(1)).unwrap());
    let names = |after, limit| {
        let listed = store.list(&key("a").namespace, after, limit).unwrap();
        listed.into_iter().map(|row| row.session).collect::<Vec<_>>()
    };
    assert_eq!(names(None, 9), ["B", "a", "ab", "é", "\u{10000}"]);
    assert_eq!(names(None, 2), ["B", "a"]);
    assert_eq!(names(Some("a"), 2), ["ab", "é"]);
    assert_eq!(names(Some("\u{10000}"), 2), [""; 0]);
    let first = store.list("other", None, 1).unwrap().remove(0);
    assert_eq!((first.version, first.state, first.expires_at_ms), (1, State::Active, Some(1_700_000_000_000)));

    assert!(!store.delete(&key("a"), 5).unwrap());
    assert!(store.delete(&key("a"), 6).unwrap());
    assert!(!store.delete(&key("a"), 6).unwrap());
    assert!(store.load(&key("a")).unwrap().0.is_none());

    let owner = store.owner().unwrap();
    assert_eq!(store.life_of(&owner), Life::Alive);
    assert_eq!(store.life_of(&Owner { handle: Id(1), ..owner }), Life::Unknown);
    assert!(store.is_local());
}

#[test]
fn memory_keeps_the_contract() {
    keeps_the_contract(&MemoryStore::new().unwrap());
}

#[test]
fn sqlite_keeps_the_contract() {
    let place = place();
    keeps_the_contract(&*open(&place.path));
    keeps_the_contract(&*SqliteStore::open(with_keys(&place.directory.path().join("other.db"), &[1])).unwrap());
}

#[test]
fn files_are_for_this_user_only_and_hold_no_secret() {
    let place = place();
    let store = open(&place.path);
    store.compare_and_swap(&key("a"), None, &record(1)).unwrap();
    let mut names = Vec::new();
    for entry in fs::read_dir(place.directory.path()).unwrap().flatten() {
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        names.push(entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            assert_eq!(mode, 0o700);
            for entry in fs::read_dir(entry.path()).unwrap().flatten() {
                assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            }
            continue;
        }
        assert_eq!(mode, 0o600, "{names:?}");
        // (Opening the database by hand drops our locks: nothing else uses it here.)
        let content = fs::read(entry.path()).unwrap();
        assert!(!content.windows(6).any(|part| part == b"canary"), "{names:?}");
    }
    names.sort();
    assert_eq!(names, ["sessions.db", "sessions.db-owners", "sessions.db-shm", "sessions.db-wal", "sessions.db.key"]);
}

#[test]
fn every_changed_byte_of_a_row_is_noticed() {
    let place = place();
    let store = open(&place.path);
    for session in ["a", "b"] {
        store.compare_and_swap(&key(session), None, &record(1)).unwrap();
    }
    let raw = Connection::open(&place.path).unwrap();
    let noticed = |session: &str, what: &str| {
        let error = store.load(&key(session)).expect_err(what);
        assert!(error.message.contains("sessions.db") && error.message.contains("damaged"), "{what}: {error}");
        assert_eq!(error.session.as_deref(), Some(session));
    };

    let (text, sealed): (String, Vec<u8>) = raw
        .query_row("SELECT record, sealed FROM session WHERE session = 'a'", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    let change = |at: usize, bytes: &[u8]| {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        changed
    };
    for at in 0..text.len() {
        let changed = String::from_utf8(change(at, text.as_bytes())).unwrap();
        raw.execute("UPDATE session SET record = ?1 WHERE session = 'a'", [changed]).unwrap();
        noticed("a", &format!("byte {at} of the record"));
    }
    raw.execute("UPDATE session SET record = ?1 WHERE session = 'a'", [&text]).unwrap();
    for at in 0..sealed.len() {
        raw.execute("UPDATE session SET sealed = ?1 WHERE session = 'a'", [change(at, &sealed)]).unwrap();
        // A changed key id or format looks like another key or a newer version.
        assert!(store.load(&key("a")).is_err(), "byte {at} of the sealed part");
    }
    raw.execute("UPDATE session SET sealed = ?1 WHERE session = 'a'", [&sealed]).unwrap();
    assert_eq!(store.load(&key("a")).unwrap().0, Some(record(1)));

    for (what, undo) in [
        ("version = 2", "version = 1"),
        ("state = 'ended'", "state = 'active'"),
        ("expires_at_ms = NULL", "expires_at_ms = 1700000000000"),
        ("expires_at_ms = 5", "expires_at_ms = 1700000000000"),
        ("record = CAST(x'ff' AS TEXT)", "record = (SELECT record FROM session WHERE session = 'b')"),
    ] {
        raw.execute(&format!("UPDATE session SET {what} WHERE session = 'a'"), []).unwrap();
        assert!(store.load(&key("a")).is_err(), "{what}");
        raw.execute(&format!("UPDATE session SET {undo} WHERE session = 'a'"), []).unwrap();
    }
    assert_eq!(store.load(&key("a")).unwrap().0, Some(record(1)));

    raw.execute_batch(
        "UPDATE session SET session = 'x' WHERE session = 'a'; UPDATE session SET session = 'a' WHERE session = 'b';
         UPDATE session SET session = 'b' WHERE session = 'x'",
    )
    .unwrap();
    noticed("a", "rows swapped");
    noticed("b", "rows swapped");
}

#[test]
fn an_older_sealed_part_does_not_open_in_a_newer_row() {
    let place = place();
    let store = open(&place.path);
    store.compare_and_swap(&key("a"), None, &record(1)).unwrap();
    let raw = Connection::open(&place.path).unwrap();
    let old: Vec<u8> = raw.query_row("SELECT sealed FROM session", [], |row| row.get(0)).unwrap();
    store.compare_and_swap(&key("a"), Some(1), &record(2)).unwrap();
    raw.execute("UPDATE session SET sealed = ?1", [old]).unwrap();
    assert!(store.load(&key("a")).unwrap_err().message.contains("damaged"));
    assert!(store.list(&key("a").namespace, None, 9).is_ok(), "a list needs no key");
}

#[test]
fn a_wrong_key_is_noticed_at_open_and_keys_rotate() {
    let place = place();
    let store = SqliteStore::open(with_keys(&place.path, &[1])).unwrap();
    drop(store);
    drop(SqliteStore::open(with_keys(&place.path, &[2])).unwrap());
    let store = SqliteStore::open(with_keys(&place.path, &[1])).expect("without sessions any key will do");
    store.compare_and_swap(&key("a"), None, &record(1)).unwrap();
    store.compare_and_swap(&key("b"), None, &record(1)).unwrap();
    drop(store);
    let message = refusal(with_keys(&place.path, &[2]));
    assert!(message.contains("another encryption key") && message.contains("sessions.db"), "{message}");
    let message = refusal(options(&place.path));
    assert!(message.contains("restore the key file") && message.contains("sessions.db.key"), "{message}");
    assert!(!place.directory.path().join("sessions.db.key").exists(), "no key is made over sessions");

    let store = SqliteStore::open(with_keys(&place.path, &[2, 1])).unwrap();
    assert_eq!(store.load(&key("a")).unwrap().0, Some(record(1)));
    store.compare_and_swap(&key("a"), Some(1), &record(2)).unwrap();
    drop(store);
    let store = SqliteStore::open(with_keys(&place.path, &[2])).unwrap();
    assert_eq!(store.load(&key("a")).unwrap().0, Some(record(2)));
    let error = store.load(&key("b")).unwrap_err();
    assert!(error.message.contains("another encryption key"), "{error}");
}

#[test]
fn a_lost_key_file_is_never_replaced() {
    let place = place();
    let key_file = place.directory.path().join("sessions.db.key");
    let store = open(&place.path);
    store.compare_and_swap(&key("a"), None, &record(1)).unwrap();
    drop(store);
    let saved = fs::read(&key_file).unwrap();
    fs::remove_file(&key_file).unwrap();
    assert!(refusal(options(&place.path)).contains("restore the key file"));
    assert!(!key_file.exists());
    fs::write(&key_file, saved).unwrap();
    assert_eq!(open(&place.path).load(&key("a")).unwrap().0, Some(record(1)));
}

#[test]
fn what_a_newer_minor_version_wrote_is_kept() {
    let place = place();
    let store = open(&place.path);
    let mut newer = record(1);
    newer.others.insert("colour".into(), json!("blue"));
    newer.secrets.others.insert("device_secret".into(), json!("canary"));
    store.compare_and_swap(&key("a"), None, &newer).unwrap();
    drop(store);
    let raw = Connection::open(&place.path).unwrap();
    raw.execute_batch(
        "ALTER TABLE session ADD COLUMN hue TEXT DEFAULT 'x'; UPDATE session SET hue = 'y'; PRAGMA user_version = 1007",
    )
    .unwrap();
    drop(raw);
    let store = open(&place.path);
    let found = store.load(&key("a")).unwrap().0.unwrap();
    assert_eq!(found, newer);
    store.compare_and_swap(&key("a"), Some(1), &Record { version: 2, ..found }).unwrap();
    store.compare_and_swap(&key("b"), None, &record(1)).unwrap();
    assert_eq!(store.load(&key("a")).unwrap().0.unwrap().others["colour"], "blue");
    drop(store);
    let raw = Connection::open(&place.path).unwrap();
    let (hue, version): (String, i32) = raw
        .query_row(
            "SELECT hue, (SELECT user_version FROM pragma_user_version) FROM session WHERE session = 'a'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert_eq!((hue.as_str(), version), ("y", 1007));
}

#[test]
fn other_databases_are_refused_and_left_alone() {
    let place = place();
    drop(open(&place.path));
    Connection::open(&place.path).unwrap().execute_batch("PRAGMA user_version = 2001").unwrap();
    let message = refusal(options(&place.path));
    assert!(message.contains("2.1") && message.contains("1.x") && message.contains("upgrade"), "{message}");

    let foreign = place.directory.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES(1)").unwrap();
    let before = fs::read(&foreign).unwrap();
    assert!(refusal(options(&foreign)).contains("another program's database"));
    assert_eq!(fs::read(&foreign).unwrap(), before);

    let text = place.directory.path().join("text");
    for times in [1, 1000] {
        fs::write(&text, "not a database ".repeat(times)).unwrap();
        assert!(refusal(options(&text)).contains("damaged"));
        assert_eq!(fs::read(&text).unwrap(), "not a database ".repeat(times).as_bytes());
    }
}

#[test]
fn a_truncated_file_is_refused_and_left_alone() {
    let place = place();
    let store = open(&place.path);
    for n in 0..50 {
        store.compare_and_swap(&key(&n.to_string()), None, &record(1)).unwrap();
    }
    drop(store);
    let whole = fs::read(&place.path).unwrap();
    assert!(!files::beside(&place.path, "-wal").exists(), "closing copies the log back");
    for length in [1, 100, 4096, 4097, 8192, whole.len() / 2, whole.len() - 1] {
        fs::write(&place.path, &whole[..length]).unwrap();
        let refused = SqliteStore::open(options(&place.path)).and_then(|store| {
            for n in 0..50 {
                store.load(&key(&n.to_string()))?;
            }
            Ok(())
        });
        let error = refused.expect_err(&format!("{length} bytes"));
        assert!(error.message.contains("damaged"), "{length}: {error}");
        assert_eq!(fs::read(&place.path).unwrap(), whole[..length]);
    }
    let emptied = fs::File::create(&place.path).unwrap();
    emptied.set_modified(std::time::SystemTime::now() - Duration::from_secs(120)).unwrap();
    drop(emptied);
    assert!(refusal(options(&place.path)).contains("damaged"));
    assert_eq!(fs::metadata(&place.path).unwrap().len(), 0);
}

#[test]
fn a_missing_directory_is_made_only_for_the_default_path() {
    let place = place();
    let path = place.directory.path().join("a/b/sessions.db");
    assert!(refusal(options(&path)).contains("create the directory"));
    drop(SqliteStore::open(SqliteOptions { make_directory: true, ..options(&path) }).unwrap());
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_restored_backup_is_seen_and_a_removed_file_is_not_made_anew() {
    let place = place();
    let store = open(&place.path);
    store.compare_and_swap(&key("a"), None, &record(1)).unwrap();
    drop(store);
    let backup = place.directory.path().join("backup");
    fs::copy(&place.path, &backup).unwrap();
    let store = open(&place.path);
    store.compare_and_swap(&key("a"), Some(1), &record(2)).unwrap();
    assert_eq!(store.load(&key("a")).unwrap().0, Some(record(2)));
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(files::beside(&place.path, suffix)).unwrap();
    }
    assert!(store.load(&key("a")).unwrap_err().message.contains("any more"));
    assert!(!place.path.exists());
    fs::rename(&backup, &place.path).unwrap();
    assert_eq!(store.load(&key("a")).unwrap().0, Some(record(1)));
    assert!(store.compare_and_swap(&key("a"), Some(1), &record(3)).unwrap());
    assert_eq!(store.load(&key("a")).unwrap().0, Some(record(3)));
}

#[test]
fn connections_close_for_a_fork_and_open_again() {
    let place = place();
    let store = open(&place.path);
    store.compare_and_swap(&key("a"), None, &record(1)).unwrap();
    let database = place.path.canonicalize().unwrap();
    let descriptors = || {
        let links = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with(&*database.to_string_lossy())).count()
    };
    assert!(descriptors() > 1);
    store.prepare();
    assert_eq!(descriptors(), 1, "the owner file");
    assert_eq!(store.load(&key("a")).unwrap().0, Some(record(1)));
    assert!(store.compare_and_swap(&key("a"), Some(1), &record(2)).unwrap());

    // What a forked child does.
    store.prepare();
    store.child();
    assert_eq!(descriptors(), 0);
    assert!(store.load(&key("a")).unwrap_err().message.contains("fork"));
    drop(store);
    assert_eq!(fs::read_dir(files::beside(&place.path, "-owners")).unwrap().count(), 1, "the parent's file stays");
    assert_eq!(open(&place.path).load(&key("a")).unwrap().0, Some(record(2)));
}

#[test]
fn only_a_clean_leave_removes_the_owner_file() {
    let place = place();
    let owners = files::beside(&place.path, "-owners");
    let entries = || fs::read_dir(&owners).unwrap().count();
    let store = open(&place.path);
    assert_eq!(entries(), 1);
    store.leave(true);
    drop(store);
    assert_eq!(entries(), 0);
    let first = open(&place.path);
    let second = open(&place.path);
    assert_eq!(second.life_of(&first.owner().unwrap()), Life::Alive, "of this process, and not opened again");
    let owner = first.owner().unwrap();
    drop(first);
    assert_eq!(entries(), 2);
    assert_eq!(second.life_of(&owner), Life::Dead);
    fs::remove_file(owners.join(owner.handle.to_string())).unwrap();
    assert_eq!(second.life_of(&owner), Life::Unknown, "a missing file proves nothing");
    assert_eq!(second.life_of(&Owner { boot: "another".into(), ..owner.clone() }), Life::Dead);
    assert_eq!(second.life_of(&Owner { boot: "booted-at-7".into(), ..owner }), Life::Unknown);
}

#[test]
fn entries_of_the_dead_are_kept_for_an_hour_after_they_are_found() {
    let place = place();
    let owners = files::beside(&place.path, "-owners");
    let store = open(&place.path);
    let living = owners.join(store.owner().unwrap().handle.to_string());
    let dead = owners.join("0".repeat(32));
    let age = |path: &Path| {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(4000)).unwrap();
    };
    let reopen = || drop(open(&place.path));
    fs::write(&dead, "").unwrap();
    reopen();
    assert_eq!(fs::metadata(&dead).unwrap().len(), 0, "too young");
    age(&dead);
    reopen();
    assert_eq!(fs::metadata(&dead).unwrap().len(), 1, "marked");
    reopen();
    assert!(dead.exists());
    age(&dead);
    reopen();
    assert!(!dead.exists() && living.exists());
}

#[test]
fn another_copy_of_the_library_is_noticed() {
    let place = place();
    drop(open(&place.path));
    // Another copy has a list of its own: to this one its descriptor is a stranger's.
    let stranger = fs::File::create(files::beside(&place.path, "-owners").join("f".repeat(32))).unwrap();
    for read_only in [false, true] {
        let message = refusal(SqliteOptions { read_only, ..options(&place.path) });
        assert!(message.contains("two copies") && message.contains("sessions.db"), "{message}");
    }
    drop(stranger);
    drop(open(&place.path));
    let other_sqlite = Connection::open(&place.path).unwrap();
    other_sqlite.query_row("SELECT count(*) FROM session", [], |row| row.get::<_, i64>(0)).unwrap();
    assert!(refusal(options(&place.path)).contains("another SQLite"));
    drop(other_sqlite);
    let entries = fs::read_dir(files::beside(&place.path, "-owners")).unwrap().flatten();
    let before = entries.filter(|entry| entry.file_name().to_string_lossy() != "f".repeat(32)).count();
    assert_eq!(before, 2, "who was refused leaves nothing behind");
}

#[test]
fn a_reader_writes_nothing() {
    let place = place();
    let read_only = || SqliteOptions { read_only: true, ..options(&place.path) };
    assert!(refusal(read_only()).contains("does not exist"));
    assert_eq!(fs::read_dir(place.directory.path()).unwrap().count(), 0);
    let writer = open(&place.path);
    writer.compare_and_swap(&key("a"), None, &record(1)).unwrap();
    let reader = SqliteStore::open(read_only()).unwrap();
    assert_eq!(reader.load(&key("a")).unwrap().0, Some(record(1)));
    assert_eq!(reader.life_of(&writer.owner().unwrap()), Life::Alive);
    let error = reader.compare_and_swap(&key("a"), Some(1), &record(2)).unwrap_err();
    assert!(error.message.contains("renews: false"), "{error}");
    assert!(reader.delete(&key("a"), 1).is_err());
    writer.compare_and_swap(&key("a"), Some(1), &record(2)).unwrap();
    assert_eq!(reader.load(&key("a")).unwrap().0, Some(record(2)));
    assert_eq!(fs::read_dir(files::beside(&place.path, "-owners")).unwrap().count(), 1);
}

#[test]
fn a_commit_is_on_the_disk() {
    let place = place();
    let store = open(&place.path);
    let pragma = |name: &'static str| {
        let read =
            |connection: &Connection| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
        (store.database.read(read).unwrap(), store.database.write(|connection, _| read(connection)).unwrap())
    };
    assert_eq!(pragma("synchronous"), (2, 2), "FULL");
    assert_eq!(pragma("secure_delete"), (1, 1));
    assert_eq!(pragma("trusted_schema"), (0, 0));
    assert_eq!(pragma("busy_timeout"), (0, 0));
}

#[test]
fn no_statement_scans() {
    let place = place();
    drop(open(&place.path));
    let raw = Connection::open(&place.path).unwrap();
    for sql in [LOAD, UPDATE, DELETE, LIST] {
        let mut statement = raw.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let nothing = vec![rusqlite::types::Null; statement.parameter_count()];
        let plan: Vec<String> = statement
            .query_map(rusqlite::params_from_iter(nothing), |row| row.get(3))
            .unwrap()
            .collect::<std::result::Result<_, _>>()
            .unwrap();
        assert!(plan.len() == 1 && plan[0].starts_with("SEARCH session USING INDEX"), "{sql}: {plan:?}");
    }
}
