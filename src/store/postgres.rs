//! A shared store in PostgreSQL (`postgres://…`), for parties on several machines.
//!
//! One row per session as in [`super::sqlite`]; the clock is the server's `clock_timestamp()`, read by the statement
//! that reads the row. Every call is one statement that commits by itself, unnamed and without any state of the
//! connection. So it works through a pooler that gives each transaction another connection, and on servers that only
//! speak PostgreSQL's protocol.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::Row as Cells;
use tokio_postgres::types::{ToSql, Type};

use self::connect::{Connection, Connector};
use self::listen::Listener;
use super::pool::{CALL, Does, Pool};
use super::row::Row;
use super::seal::Keys;
use super::{Life, Listed, Now, Store, UNIX_CLOCK, Wake, Warning, Watch, new_owner};
use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::session::record::{Id, Key, Owner, Record, State};

mod connect;
mod listen;
mod schema;
mod tls;
mod trouble;
mod url;

// The clock is read after the row, or its absence, was seen: then nothing in it is of the future.
const LOAD: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
        s.version, s.state, s.expires_at_ms, s.record, s.sealed
    FROM (SELECT 1) AS one LEFT JOIN evergrant_session AS s ON s.namespace = $1 AND s.session = $2";
// A claim must be on the disk before its refresh token is sent, whatever the database's default is.
const INSERT: &str = "INSERT INTO evergrant_session (namespace, session, version, state, expires_at_ms, record, sealed)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING
    RETURNING CASE current_setting('synchronous_commit')
        WHEN 'off' THEN set_config('synchronous_commit', 'on', true) END";
// Only our columns: a newer version's keep their values.
const UPDATE: &str = "UPDATE evergrant_session
    SET version = $3, state = $4, expires_at_ms = $5, record = $6, sealed = $7
    WHERE namespace = $1 AND session = $2 AND version = $8
    RETURNING CASE current_setting('synchronous_commit')
        WHEN 'off' THEN set_config('synchronous_commit', 'on', true) END";
const DELETE: &str = "DELETE FROM evergrant_session WHERE namespace = $1 AND session = $2 AND version = $3";
// No session has an empty name.
const LIST: &str = "SELECT session, state, version, expires_at_ms FROM evergrant_session
    WHERE namespace = $1 AND session > $2 AND state <> 'forgotten' ORDER BY session LIMIT $3";

/// A store in one PostgreSQL database.
pub struct PostgresStore {
    keys: Keys,
    read_only: bool,
    owner: Owner,
    pool: Pool<Connector>,
    listener: Arc<Listener>,
}

type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

fn text<'a>(value: &'a (impl ToSql + Sync)) -> Parameter<'a> {
    (value, Type::TEXT)
}

fn number<'a>(value: &'a (impl ToSql + Sync)) -> Parameter<'a> {
    (value, Type::INT8)
}

/// Connects nothing.
pub fn open(url: &Secret, keys: Keys, read_only: bool) -> Result<Arc<dyn Store>> {
    let server = url::parse(url)?;
    let pool = Pool::new(Connector::new(server, read_only)?);
    Ok(Arc::new(PostgresStore { keys, read_only, owner: new_owner()?, pool, listener: Arc::default() }))
}

impl PostgresStore {
    fn rows(&self, limit: Duration, statement: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Cells>> {
        self.pool.call(Does::Read(limit), |connection, until| {
            connection.query(until, statement, parameters).map_err(trouble::Failed::trouble)
        })
    }

    /// Whether the one row was written. Those who wait for a record of `settled` are told.
    fn wrote(&self, statement: &str, parameters: &[Parameter<'_>], settled: Option<Id>) -> Result<bool> {
        if self.read_only {
            return Err(Error::store(format!(
                "{} is not written by this client, whose configuration says renews: false.",
                self.pool.name()
            )));
        }
        let work = |connection: &mut Connection, until: Instant| {
            let settled = settled.filter(|_| self.pool.connector().notifies());
            loop {
                let changed = match settled {
                    Some(grant) => connection.execute_and_tell(until, statement, parameters, &grant.to_string()),
                    None => connection.execute(until, statement, parameters),
                };
                match changed {
                    Ok(changed) => return Ok(changed == 1),
                    // A server that isolates more strictly: it was certainly not written.
                    Err(failed) if trouble::is_conflict(&failed) && Instant::now() < until => {}
                    Err(failed) => return Err(failed.trouble()),
                }
            }
        };
        self.pool.call(Does::Write, work)
    }

    fn unreadable(&self, session: &str, why: impl std::fmt::Display) -> Error {
        Error::store(format!("the session \"{session}\" in {} cannot be read: {why}.", self.pool.name())).about(session)
    }
}

impl Store for PostgresStore {
    fn load(&self, key: &Key) -> Result<(Option<Record>, Now)> {
        self.load_within(key, CALL)
    }

    fn load_within(&self, key: &Key, limit: Duration) -> Result<(Option<Record>, Now)> {
        let rows = self.rows(limit, LOAD, &[text(&&*key.namespace), text(&&*key.session)])?;
        let read = |cells: &Cells| -> std::result::Result<_, tokio_postgres::Error> {
            let row = match cells.try_get::<_, Option<i64>>(1)? {
                None => None,
                Some(version) => Some(Row {
                    version,
                    state: cells.try_get(2)?,
                    expires_at_ms: cells.try_get(3)?,
                    record: cells.try_get(4)?,
                    sealed: cells.try_get(5)?,
                }),
            };
            Ok((row, Now { ms: cells.try_get(0)?, clock: UNIX_CLOCK.to_owned() }))
        };
        let found = rows.first().and_then(|cells| read(cells).ok());
        let (row, now) = found.ok_or_else(|| self.unreadable(&key.session, schema::NOT_OURS))?;
        let record = row.map(|row| row.open(&self.keys, key)).transpose();
        Ok((record.map_err(|problem| self.unreadable(&key.session, problem.in_shared_store()))?, now))
    }

    fn compare_and_swap(&self, key: &Key, expected: Option<i64>, record: &Record) -> Result<bool> {
        debug_assert_ne!(expected, Some(record.version), "every write has a version of its own");
        let row = Row::seal(&self.keys, key, record)?;
        let (namespace, session) = (&*key.namespace, &*key.session);
        let mut parameters = vec![
            text(&namespace),
            text(&session),
            number(&row.version),
            text(&row.state),
            number(&row.expires_at_ms),
            text(&row.record),
            (&row.sealed, Type::BYTEA),
        ];
        match &expected {
            None => self.wrote(INSERT, &parameters, None),
            Some(expected) => {
                parameters.push(number(expected));
                self.wrote(UPDATE, &parameters, record.attempt.is_none().then_some(record.grant))
            }
        }
    }

    fn delete(&self, key: &Key, version: i64) -> Result<bool> {
        self.wrote(DELETE, &[text(&&*key.namespace), text(&&*key.session), number(&version)], None)
    }

    fn list(&self, namespace: &str, after: Option<&str>, limit: u32) -> Result<Vec<Listed>> {
        let after = after.unwrap_or_default();
        let limit = i64::from(limit);
        let rows = self.rows(CALL, LIST, &[text(&namespace), text(&after), number(&limit)])?;
        let read = |cells: &Cells| {
            let state: String = cells.try_get(1).ok()?;
            Some(Listed {
                session: cells.try_get(0).ok()?,
                state: State::named(&state)?,
                version: cells.try_get(2).ok()?,
                expires_at_ms: cells.try_get(3).ok()?,
            })
        };
        let unreadable = || Error::store(format!("{} cannot be read: {}.", self.pool.name(), schema::NOT_OURS));
        rows.iter().map(|cells| read(cells).ok_or_else(unreadable)).collect()
    }

    fn owner(&self) -> Result<Owner> {
        Ok(self.owner.clone())
    }

    fn life_of(&self, owner: &Owner) -> Life {
        if owner.handle == self.owner.handle { Life::Alive } else { Life::Unknown }
    }

    fn leave(&self, _clean: bool) {}

    fn warnings(&self, told: usize) -> Vec<Warning> {
        self.pool.connector().warnings(told)
    }

    fn is_local(&self) -> bool {
        false
    }

    fn watch(&self, grant: Id, wake: Wake) -> Option<Box<dyn Watch>> {
        Some(self.listener.watch(&self.pool, grant, wake))
    }
}

#[cfg(test)]
mod tests;
