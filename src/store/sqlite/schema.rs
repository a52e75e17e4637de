//! The database's schema and its versions.
//!
//! `user_version` = major × 1000 + minor. A newer minor only adds columns that have defaults, tables, indexes and JSON
//! members: it is used as it is, and what it added is kept. A newer major is refused.

use rusqlite::{Connection, TransactionBehavior};

use super::trouble::Failure;
use crate::error::Error;

/// "EVGR": tells `file` and us whose database this is.
const APPLICATION_ID: i32 = 0x4556_4752;
const MAJOR: i32 = 1;
/// The statements that lead from minor version i to i + 1.
const STEPS: &[&str] = &[];

// `state` and `expires_at_ms` repeat what the record says, so that a list needs no key. They stand before the long
// columns, so that a list reads no overflow pages. Not WITHOUT ROWID: rows of 1 to 3 KiB in the inner pages of a tree
// make it deep (100,000 sessions: a load takes twice as long).
const CREATE: &str = "
    CREATE TABLE session(
        namespace     TEXT    NOT NULL,
        session       TEXT    NOT NULL,
        version       INTEGER NOT NULL,
        state         TEXT    NOT NULL,
        expires_at_ms INTEGER,
        record        TEXT    NOT NULL,
        sealed        BLOB    NOT NULL,
        PRIMARY KEY(namespace, session)
    ) STRICT;
    CREATE TABLE meta(name TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
";

enum Found {
    Nothing,
    Minor(usize),
}

/// Makes the schema, or brings it up to date.
pub fn prepare(connection: &mut Connection) -> Result<(), Failure> {
    prepare_with(connection, STEPS)
}

fn prepare_with(connection: &mut Connection, steps: &[&str]) -> Result<(), Failure> {
    let done = |found| matches!(found, Found::Minor(minor) if minor >= steps.len());
    let found = look(connection)?;
    // Only now that the file is known to be ours, or empty.
    let mode: String = connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(Error::store("its file system has no shared memory: set store to a path on a local disk.").into());
    }
    if done(found) {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster.
    let from = match look(&transaction)? {
        Found::Nothing => {
            transaction.execute_batch(CREATE)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            0
        }
        Found::Minor(minor) => minor,
    };
    for step in steps.iter().skip(from) {
        transaction.execute_batch(step)?;
    }
    if from <= steps.len() {
        transaction.pragma_update(None, "user_version", MAJOR * 1000 + steps.len() as i32)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Checks a database that must not be changed.
pub fn check(connection: &Connection) -> Result<(), Failure> {
    let transaction = connection.unchecked_transaction()?;
    match look(&transaction)? {
        Found::Minor(_) => Ok(()),
        Found::Nothing => Err(Error::store("it is empty: open it once with a client that renews.").into()),
    }
}

fn look(connection: &Connection) -> Result<Found, Failure> {
    let number = "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM \
                  pragma_user_version), (SELECT count(*) FROM sqlite_schema)";
    // One statement, one snapshot: another process may be making the schema.
    let (application, version, objects): (i32, i32, i64) =
        connection.query_row(number, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let minor = version % 1000;
    match (application, version / 1000) {
        (0, 0) if minor == 0 && objects == 0 => Ok(Found::Nothing),
        (APPLICATION_ID, MAJOR) => Ok(Found::Minor(minor as usize)),
        (APPLICATION_ID, major) => Err(Error::store(format!(
            "its schema has version {major}.{minor}, and this version of evergrant ({}) knows {MAJOR}.x only: {}. \
             Nothing was changed.",
            crate::VERSION,
            if major > MAJOR { "upgrade evergrant, or set store to another path" } else { "set store to another path" }
        ))
        .into()),
        _ => {
            Err(Error::store("it is another program's database: set store to a path of its own. Nothing was changed.")
                .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(connection: &Connection) -> i32 {
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn steps_are_taken_once_and_newer_minors_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = Connection::open(directory.path().join("s.db")).unwrap();
        prepare_with(&mut connection, &[]).ok().unwrap();
        assert_eq!(version(&connection), 1000);
        let steps = ["ALTER TABLE session ADD COLUMN a TEXT DEFAULT 'x'", "ALTER TABLE session ADD COLUMN b INTEGER"];
        prepare_with(&mut connection, &steps).ok().unwrap();
        prepare_with(&mut connection, &steps).ok().unwrap();
        assert_eq!(version(&connection), 1002);
        prepare_with(&mut connection, &[]).ok().unwrap();
        assert_eq!(version(&connection), 1002);
        connection.prepare("SELECT a, b FROM session").unwrap();
    }
}
