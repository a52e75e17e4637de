//! The local store: one SQLite file for the processes of one machine.
//!
//! | file | what |
//! |---|---|
//! | `<path>`, `-wal`, `-shm` | the database, in write-ahead mode |
//! | `<path>.key` | the default encryption key |
//! | `<path>-owners/` | who has it open ([`super::owner`]) |
//! | `<path>-aside/` | what could not be committed, and what was seen ([`super::aside`]) |

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use self::database::Database;
use self::trouble::{DAMAGED, Failure};
use super::aside::Aside;
pub use super::files::canonical;
use super::owner::Owners;
use super::row::{Problem, Row};
use super::seal::Keys;
use super::{Life, Listed, Now, Store, file_system, files, key_file};
use crate::clock;
use crate::error::{Error, Result};
use crate::process::{self, AtFork};
use crate::session::record::{Key, Owner, Record, State};

mod database;
mod schema;
mod trouble;

const LOAD: &str =
    "SELECT version, state, expires_at_ms, record, sealed FROM session WHERE namespace = ?1 AND session = ?2";
const INSERT: &str = "INSERT INTO session(namespace, session, version, state, expires_at_ms, record, sealed)
    VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING";
// Only our columns: a newer version's keep their values.
const UPDATE: &str = "UPDATE session SET version = ?3, state = ?4, expires_at_ms = ?5, record = ?6, sealed = ?7
    WHERE namespace = ?1 AND session = ?2 AND version = ?8";
const DELETE: &str = "DELETE FROM session WHERE namespace = ?1 AND session = ?2 AND version = ?3";
// No session has an empty name.
const LIST: &str = "SELECT session, state, version, expires_at_ms FROM session
    WHERE namespace = ?1 AND session > ?2 AND state <> 'forgotten' ORDER BY session LIMIT ?3";

/// How to open a store.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// The database file.
    pub path: PathBuf,
    /// Make its directory if it is missing: for the default path only.
    pub make_directory: bool,
    /// `None`: the key file beside the database, generated when the store is new.
    pub keys: Option<Keys>,
    /// Change nothing on the disk: for clients that never renew.
    pub read_only: bool,
}

/// A store in one SQLite file. A process opens a file once (see [`canonical`]).
pub struct SqliteStore {
    keys: Keys,
    aside: Aside,
    read_only: bool,
    // Dropped in this order: who has left has nothing open.
    database: Database,
    owners: Owners,
}

impl SqliteStore {
    /// Opens or makes the store.
    pub fn open(options: SqliteOptions) -> Result<Arc<Self>> {
        Self::open_unspent(options).map_err(|mut error| {
            error.message.push_str(" No refresh token was spent.");
            error
        })
    }

    fn open_unspent(options: SqliteOptions) -> Result<Arc<Self>> {
        let SqliteOptions { path, make_directory, keys, read_only } = options;
        let path = canonical(&path, make_directory && !read_only)?;
        file_system::refuse_network(path.parent().unwrap_or(&path))?;
        // Before SQLite opens the database: its locks do not survive another copy of SQLite in this process.
        let owners = if read_only { Owners::watch(&path)? } else { Owners::join(&path)? };
        if !read_only {
            make_file(&path)?;
        }
        let database = Database::new(path, read_only);
        let keys = match keys {
            Some(keys) => keys,
            None => default_keys(&database, read_only)?,
        };
        check_keys(&database, &keys, read_only)?;
        owners.leave(false);
        let aside = Aside::new(files::beside(database.path(), "-aside"), keys.clone());
        let store = Arc::new(Self { keys, aside, read_only, database, owners });
        let at_fork: Weak<Self> = Arc::downgrade(&store);
        process::register(at_fork);
        Ok(store)
    }

    /// Its canonical path.
    pub fn path(&self) -> &Path {
        self.database.path()
    }

    fn damaged(&self, key: &Key, why: &str) -> Error {
        Error::store(format!("the session \"{}\" in {} cannot be read: {why}.", key.session, self.path().display()))
            .about(&key.session)
    }

    fn open_row(&self, key: &Key, row: Row) -> Result<Record> {
        row.open(&self.keys, key).map_err(|problem| {
            self.damaged(
                key,
                match problem {
                    Problem::OtherKey => OTHER_KEY,
                    Problem::Newer => Problem::NEWER,
                    Problem::Damaged => DAMAGED,
                },
            )
        })
    }

    fn refuse_if_read_only(&self) -> Result<()> {
        match self.read_only {
            false => Ok(()),
            true => Err(Error::store(format!(
                "{} is not written by this client, whose configuration says renews: false.",
                self.path().display()
            ))),
        }
    }
}

const OTHER_KEY: &str = "it was sealed with another encryption key: add that key to encryption_key (a list: the first \
                         seals, all open; the default one is in the .key file beside the database)";

/// Makes the database file before SQLite does, so that nobody else can ever read it. It is never opened here if it
/// exists: closing it would drop the locks of this process's connections.
fn make_file(path: &Path) -> Result<()> {
    let _inside = process::enter();
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => files::sync_directory_of(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => refuse_emptied(path),
        Err(error) => Err(files::explain("make", path, &error)),
    }
}

/// SQLite would take an empty file, or one too short to be a database, for a new database.
fn refuse_emptied(path: &Path) -> Result<()> {
    const SHORTEST: u64 = 512;
    let Ok(found) = fs::metadata(path) else { return Ok(()) };
    let emptied = match found.len() {
        // The key is made after the schema. (A minute's grace for a process that is making the schema over a key that
        // was left behind.)
        0 => {
            let age = found.modified().ok().and_then(|at| at.elapsed().ok());
            age.is_some_and(|age| age > Duration::from_secs(60)) && key_file::path_of(path).exists()
        }
        length => length < SHORTEST,
    };
    if emptied {
        return Err(Failure::Said(Error::store(format!("{DAMAGED}."))).explain(path));
    }
    Ok(())
}

fn default_keys(database: &Database, read_only: bool) -> Result<Keys> {
    if let Some(keys) = key_file::read(database.path())? {
        return Ok(keys);
    }
    let in_use = has_sessions(database)?;
    match key_file::read(database.path())? {
        // Another process has just made it.
        Some(keys) => Ok(keys),
        None if in_use || read_only => Err(Error::store(format!(
            "{} is missing, and with it the key of the sessions in {}: restore the key file, or set encryption_key. \
             Nothing was changed.",
            key_file::path_of(database.path()).display(),
            database.path().display()
        ))),
        None => key_file::create(database.path()),
    }
}

fn has_sessions(database: &Database) -> Result<bool> {
    database.read(|connection| connection.query_row("SELECT EXISTS(SELECT 1 FROM session)", [], |row| row.get(0)))
}

/// Notices a wrong key at once: the database knows the id of the key that seals.
fn check_keys(database: &Database, keys: &Keys, read_only: bool) -> Result<()> {
    let known: Option<Vec<u8>> = database.read(|connection| {
        connection.query_row("SELECT value FROM meta WHERE name = 'key_id'", [], |row| row.get(0)).optional()
    })?;
    match known {
        Some(id) if id == keys.sealing() => return Ok(()),
        Some(id) if !keys.has(&id) && has_sessions(database)? => {
            return Err(Failure::Said(Error::store(format!("{OTHER_KEY}."))).explain(database.path()));
        }
        _ if read_only => return Ok(()),
        _ => {}
    }
    database.write(|connection, _| {
        connection.execute(
            "INSERT INTO meta(name, value) VALUES('key_id', ?1) ON CONFLICT DO UPDATE SET value = excluded.value",
            [keys.sealing()],
        )
    })?;
    Ok(())
}

impl Store for SqliteStore {
    fn load(&self, key: &Key) -> Result<(Option<Record>, Now)> {
        let (row, ms) = self.database.read(|connection| {
            let row = connection
                .prepare_cached(LOAD)?
                .query_row(params![&*key.namespace, &*key.session], |row| {
                    Ok(Row {
                        version: row.get(0)?,
                        state: row.get(1)?,
                        expires_at_ms: row.get(2)?,
                        record: row.get(3)?,
                        sealed: row.get(4)?,
                    })
                })
                .optional()?;
            // After the row: then nothing in it is of the future. An attempt's end, now + L, is no earlier than the
            // caller's b0 + L either way, and a row that has changed since fails the compare-and-swap.
            Ok((row, clock::monotonic_ms()))
        })?;
        let record = row.map(|row| self.open_row(key, row)).transpose()?;
        Ok((record, Now { ms, clock: crate::host::boot_id().to_owned() }))
    }

    fn compare_and_swap(&self, key: &Key, expected: Option<i64>, record: &Record) -> Result<bool> {
        debug_assert_ne!(expected, Some(record.version), "every write has a version of its own");
        self.refuse_if_read_only()?;
        let Row { version, state, expires_at_ms, record, sealed } = Row::seal(&self.keys, key, record)?;
        let (namespace, session) = (&*key.namespace, &*key.session);
        let changed = self.database.write(|connection, inside| {
            self.owners.hold(inside);
            match expected {
                None => connection.prepare_cached(INSERT)?.execute(params![
                    namespace,
                    session,
                    version,
                    state,
                    expires_at_ms,
                    record,
                    sealed
                ]),
                Some(expected) => connection.prepare_cached(UPDATE)?.execute(params![
                    namespace,
                    session,
                    version,
                    state,
                    expires_at_ms,
                    record,
                    sealed,
                    expected
                ]),
            }
        })?;
        Ok(changed == 1)
    }

    fn delete(&self, key: &Key, version: i64) -> Result<bool> {
        self.refuse_if_read_only()?;
        let changed = self.database.write(|connection, _| {
            connection.prepare_cached(DELETE)?.execute(params![&*key.namespace, &*key.session, version])
        })?;
        Ok(changed == 1)
    }

    fn list(&self, namespace: &str, after: Option<&str>, limit: u32) -> Result<Vec<Listed>> {
        let rows: Vec<(String, String, i64, Option<i64>)> = self.database.read(|connection| {
            connection
                .prepare_cached(LIST)?
                .query_map(params![namespace, after.unwrap_or_default(), limit], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                })?
                .collect()
        })?;
        rows.into_iter()
            .map(|(session, state, version, expires_at_ms)| match State::named(&state) {
                Some(state) => Ok(Listed { session, state, version, expires_at_ms }),
                None => Err(Failure::Said(Error::store(DAMAGED)).explain(self.path())),
            })
            .collect()
    }

    fn owner(&self) -> Result<Owner> {
        Ok(self.owners.me().clone())
    }

    fn life_of(&self, owner: &Owner) -> Life {
        self.owners.life_of(owner)
    }

    fn leave(&self, clean: bool) {
        self.owners.leave(clean);
    }

    fn aside(&self) -> Option<&Aside> {
        Some(&self.aside)
    }

    fn is_local(&self) -> bool {
        true
    }
}

impl AtFork for SqliteStore {
    fn prepare(&self) {
        self.database.close_for_fork();
    }

    fn child(&self) {
        self.database.disown();
        self.owners.child();
    }
}

#[cfg(test)]
mod tests;
