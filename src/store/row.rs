//! One row of a store: a record as it is written, and back.

use super::seal::{Closed, Keys};
use crate::error::Result;
use crate::session::record::{Key, Record};

/// Its columns. All but the sealed part can be read by who operates the store.
pub struct Row {
    pub version: i64,
    pub state: String,
    pub expires_at_ms: Option<i64>,
    pub record: String,
    pub sealed: Vec<u8>,
}

impl Row {
    /// A record as it is to be written.
    pub fn seal(keys: &Keys, key: &Key, record: &Record) -> Result<Self> {
        let (plain, sealed) = keys.seal_record(key, record)?;
        Ok(Self {
            version: record.version,
            state: record.state.name().to_owned(),
            expires_at_ms: expires_at_ms(record),
            record: plain,
            sealed,
        })
    }

    /// The record that was written under this key; or what is wrong, and what to do.
    pub fn open(self, keys: &Keys, key: &Key) -> std::result::Result<Record, Problem> {
        let record =
            keys.open_record(key, self.version, &self.record, &self.sealed).map_err(|closed| match closed {
                Closed::OtherKey => Problem::OtherKey,
                Closed::OtherFormat => Problem::Newer,
                Closed::Damaged => Problem::Damaged,
            })?;
        // These two columns are not sealed, but repeat what is.
        if self.state != record.state.name() || self.expires_at_ms != expires_at_ms(&record) {
            return Err(Problem::Damaged);
        }
        Ok(record)
    }
}

/// Why a row does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// None of our keys has sealed it.
    OtherKey,
    /// A newer version of evergrant wrote it.
    Newer,
    /// It is not what was written.
    Damaged,
}

impl Problem {
    pub const NEWER: &str = "a newer version of evergrant wrote it: upgrade this one";

    /// In a shared store: what it is and what to do.
    #[cfg(any(feature = "postgres", feature = "redis"))]
    pub fn in_shared_store(self) -> &'static str {
        match self {
            Problem::OtherKey => {
                "it was sealed with another encryption key: all programs and machines on the store need the same one, \
                 in encryption_key, _file or _env (a list: the first seals, all open)"
            }
            Problem::Newer => Self::NEWER,
            Problem::Damaged => "it is damaged: restore it from a backup, or delete it and have the user sign in again",
        }
    }
}

fn expires_at_ms(record: &Record) -> Option<i64> {
    record.life.and_then(|life| life.until_ms)
}
