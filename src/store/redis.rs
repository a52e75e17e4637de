//! A shared store in Redis or Valkey (`redis://…`), for parties on several machines.
//!
//! ```text
//! evergrant:{NAMESPACE}:session:NAME   a hash: version, state, expires_at_ms, record, sealed
//! evergrant:{NAMESPACE}:sessions       a sorted set: the names, all with score 0, which sorts them bytewise
//! ```
//!
//! NAMESPACE is a hash; the braces keep all keys of a namespace on one node of a cluster. No key expires. What is done
//! with a session is one script, sent whole with each call: it works after a failover, and through a proxy.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::{Cmd, RedisResult, Value, cmd, pipe};

use self::connect::{Common, Connection, Connector, text};
use self::trouble::Failed;
use super::pool::{CALL, Does, Pool, Trouble};
use super::row::Row;
use super::seal::Keys;
use super::{Life, Listed, Now, Store, UNIX_CLOCK, Warning, new_owner};
use crate::config::short_hash;
use crate::error::{Error, Result};
use crate::process::lock;
use crate::secret::Secret;
use crate::session::record::{Key, Owner, Record, State};

mod connect;
mod safety;
mod trouble;
mod url;

const SCRIPT: &str = include_str!("redis/record.lua");
const NOT_OURS: &str = "what is under its keys is not what evergrant writes";
/// Redirections, and masters that are none any more, that one call follows.
const TURNS: usize = 4;

type Node = (String, u16);

/// A store in one database of a Redis server, or in a cluster.
pub struct RedisStore {
    keys: Keys,
    read_only: bool,
    owner: Owner,
    common: Arc<Common>,
    pool: Arc<Pool<Connector>>,
    cluster: Mutex<Cluster>,
}

/// What redirections have told.
#[derive(Default)]
struct Cluster {
    nodes: HashMap<Node, Arc<Pool<Connector>>>,
    /// Where a namespace is, by its hash.
    homes: HashMap<String, Node>,
}

/// What a server did with a command.
enum Turn<T> {
    Done(T),
    /// It certainly did nothing, because the keys are at this node.
    Moved(Node),
    /// It certainly did nothing, and another server might.
    NotHere(Trouble),
}

/// Connects nothing.
pub fn open(url: &Secret, keys: Keys, read_only: bool) -> Result<Arc<dyn Store>> {
    let common = Common::new(url::parse(url)?);
    let pool = Arc::new(Pool::new(Connector::new(&common, common.server.hosts.clone())));
    Ok(Arc::new(RedisStore { keys, read_only, owner: new_owner()?, common, pool, cluster: Mutex::default() }))
}

/// Where the keys of a namespace are.
struct Place(String);

impl Place {
    fn of(namespace: &str) -> Self {
        Self(short_hash(&[namespace]))
    }

    fn session(&self, name: &str) -> String {
        format!("evergrant:{{{}}}:session:{name}", self.0)
    }

    fn names(&self) -> String {
        format!("evergrant:{{{}}}:sessions", self.0)
    }

    fn script(&self, session: &str, what: &str) -> Cmd {
        let mut eval = cmd("EVAL");
        eval.arg(SCRIPT).arg(2).arg(self.session(session)).arg(self.names()).arg(what);
        eval
    }
}

impl RedisStore {
    fn call<T>(
        &self,
        place: &Place,
        does: Does,
        mut work: impl FnMut(&Connector, &mut Connection, Instant) -> std::result::Result<T, Failed>,
    ) -> Result<T> {
        let mut trouble = None;
        for _ in 0..TURNS {
            let home = lock(&self.cluster).at(place);
            let pool = home.as_ref().unwrap_or(&self.pool);
            let turn = pool.call(does, |connection, until| match work(pool.connector(), connection, until) {
                Ok(value) => Ok(Turn::Done(value)),
                Err(failed) => match failed.moved_to() {
                    Some(node) => Ok(Turn::Moved(node)),
                    None if failed.is_unwritten() => Ok(Turn::NotHere(failed.trouble())),
                    None => Err(failed.trouble()),
                },
            });
            match turn {
                Ok(Turn::Done(value)) => return Ok(value),
                Ok(Turn::Moved(node)) => lock(&self.cluster).move_to(place, node, &self.common),
                Ok(Turn::NotHere(why)) => {
                    lock(&self.cluster).leave(place);
                    pool.forget();
                    trouble = Some(why);
                }
                Err(error) => {
                    // The other nodes know who has taken its place.
                    lock(&self.cluster).leave(place);
                    return Err(error);
                }
            }
        }
        let why = trouble.unwrap_or_else(|| Trouble::Away("its cluster sends from node to node".to_owned()));
        Err(self.pool.error(&why))
    }

    /// Whether the record was written.
    fn wrote(&self, place: &Place, script: &Cmd) -> Result<bool> {
        if self.read_only {
            return Err(Error::store(format!(
                "{} is not written by this client, whose configuration says renews: false.",
                self.pool.name()
            )));
        }
        let mut commands = pipe();
        commands.ignore_errors().add_command(script.clone());
        commands.cmd("INFO").arg("replication");
        let written = self.call(place, Does::Write, |connector, connection, until| {
            let mut answers = connection.pipeline(until, &commands)?.into_iter();
            let written = answers.next().unwrap_or(Ok(Value::Nil))?;
            if let (Value::Int(1), Some(replication)) = (&written, answers.next()) {
                connector.replicate(connection, replication)?;
            }
            Ok(written)
        })?;
        match written {
            Value::Int(written) => Ok(written == 1),
            _ => Err(Error::store(format!("{} cannot be used: {NOT_OURS}.", self.pool.name()))),
        }
    }

    fn unreadable(&self, session: &str, why: impl std::fmt::Display) -> Error {
        Error::store(format!("the session \"{session}\" in {} cannot be read: {why}.", self.pool.name())).about(session)
    }
}

impl Cluster {
    fn at(&self, place: &Place) -> Option<Arc<Pool<Connector>>> {
        self.homes.get(&place.0).and_then(|node| self.nodes.get(node)).map(Arc::clone)
    }

    fn move_to(&mut self, place: &Place, node: Node, common: &Arc<Common>) {
        let pool = || Arc::new(Pool::new(Connector::new(common, vec![node.clone()])));
        self.nodes.entry(node.clone()).or_insert_with(pool);
        self.homes.insert(place.0.clone(), node);
    }

    fn leave(&mut self, place: &Place) {
        self.homes.remove(&place.0);
    }
}

/// A time and a record, as the script returns them. `None`: neither.
fn found(value: &Value) -> Option<(Option<Row>, Now)> {
    let Value::Array(parts) = value else { return None };
    let [Value::Array(time), Value::Array(fields)] = &parts[..] else { return None };
    let number = |at: usize| text(time.get(at)?)?.parse::<i64>().ok();
    let now = Now { ms: number(0)? * 1000 + number(1)? / 1000, clock: UNIX_CLOCK.to_owned() };
    let [version, state, expires_at_ms, record, Value::BulkString(sealed)] = &fields[..] else {
        return fields.iter().all(|field| *field == Value::Nil).then_some((None, now));
    };
    let row = Row {
        version: text(version)?.parse().ok()?,
        state: text(state)?,
        expires_at_ms: moment(expires_at_ms)?,
        record: text(record)?,
        sealed: sealed.clone(),
    };
    Some((Some(row), now))
}

/// A moment that may be none.
fn moment(value: &Value) -> Option<Option<i64>> {
    match &*text(value)? {
        "" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

impl Store for RedisStore {
    fn load(&self, key: &Key) -> Result<(Option<Record>, Now)> {
        self.load_within(key, CALL)
    }

    fn load_within(&self, key: &Key, limit: Duration) -> Result<(Option<Record>, Now)> {
        let place = Place::of(&key.namespace);
        let script = place.script(&key.session, "load");
        let value = self.call(&place, Does::Read(limit), |_, connection, until| connection.query(until, &script))?;
        let (row, now) = found(&value).ok_or_else(|| self.unreadable(&key.session, NOT_OURS))?;
        let record = row.map(|row| row.open(&self.keys, key)).transpose();
        Ok((record.map_err(|problem| self.unreadable(&key.session, problem.in_shared_store()))?, now))
    }

    fn compare_and_swap(&self, key: &Key, expected: Option<i64>, record: &Record) -> Result<bool> {
        debug_assert_ne!(expected, Some(record.version), "every write has a version of its own");
        let row = Row::seal(&self.keys, key, record)?;
        let or_empty = |number: Option<i64>| number.map(|number| number.to_string()).unwrap_or_default();
        let place = Place::of(&key.namespace);
        let mut script = place.script(&key.session, "swap");
        script.arg(&*key.session).arg(or_empty(expected)).arg(row.version).arg(row.state);
        script.arg(or_empty(row.expires_at_ms)).arg(row.record).arg(row.sealed);
        self.wrote(&place, &script)
    }

    fn delete(&self, key: &Key, version: i64) -> Result<bool> {
        let place = Place::of(&key.namespace);
        self.wrote(&place, place.script(&key.session, "delete").arg(&*key.session).arg(version))
    }

    fn list(&self, namespace: &str, after: Option<&str>, limit: u32) -> Result<Vec<Listed>> {
        let place = Place::of(namespace);
        let mut first = after.map_or_else(|| "-".to_owned(), |after| format!("({after}"));
        let mut listed = Vec::new();
        loop {
            let wanted = limit as usize - listed.len();
            let mut page = cmd("ZRANGEBYLEX");
            page.arg(place.names()).arg(&first).arg("+").arg("LIMIT").arg(0).arg(wanted);
            let rows = self.call(&place, Does::Read(CALL), |_, connection, until| {
                let names: Vec<String> = match connection.query(until, &page)? {
                    Value::Array(names) => names.iter().filter_map(text).collect(),
                    _ => Vec::new(),
                };
                let mut commands = pipe();
                commands.ignore_errors();
                for name in &names {
                    commands.cmd("HMGET").arg(place.session(name)).arg(&["version", "state", "expires_at_ms"]);
                }
                let rows = if names.is_empty() { Vec::new() } else { connection.pipeline(until, &commands)? };
                let rows: RedisResult<Vec<Value>> = rows.into_iter().collect();
                Ok(names.into_iter().zip(rows?).collect::<Vec<_>>())
            })?;
            let read = rows.len();
            first = rows.last().map(|(name, _)| format!("({name}")).unwrap_or(first);
            for (session, row) in rows {
                let Value::Array(fields) = &row else { return Err(self.unreadable(&session, NOT_OURS)) };
                match &fields[..] {
                    // Deleted in between.
                    [Value::Nil, ..] => {}
                    [version, state, expires_at_ms] => listed.push(Listed {
                        version: text(version).and_then(|version| version.parse().ok()).unwrap_or_default(),
                        state: text(state)
                            .and_then(|state| State::named(&state))
                            .ok_or_else(|| self.unreadable(&session, NOT_OURS))?,
                        expires_at_ms: moment(expires_at_ms).flatten(),
                        session,
                    }),
                    _ => return Err(self.unreadable(&session, NOT_OURS)),
                }
            }
            if read < wanted || listed.len() == limit as usize {
                return Ok(listed);
            }
        }
    }

    fn owner(&self) -> Result<Owner> {
        Ok(self.owner.clone())
    }

    fn life_of(&self, owner: &Owner) -> Life {
        if owner.handle == self.owner.handle { Life::Alive } else { Life::Unknown }
    }

    fn leave(&self, _clean: bool) {}

    fn warnings(&self, told: usize) -> Vec<Warning> {
        self.common.warnings(told)
    }

    fn is_local(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
