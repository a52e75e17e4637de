//! A store that lives and dies with its client.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::PoisonError;

use super::{Life, Listed, Now, Store};
use crate::clock;
use crate::error::Result;
use crate::session::record::{Key, Owner, Record, State};
use crate::sync::{Mutex, MutexGuard};

/// Records in memory, ordered by key.
pub struct MemoryStore {
    records: Mutex<BTreeMap<Key, Record>>,
    owner: Owner,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Result<Self> {
        Ok(Self { records: Mutex::default(), owner: super::new_owner()? })
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<Key, Record>> {
        // Every write below is a single assignment: a panic leaves the map whole.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn load(&self, key: &Key) -> Result<(Option<Record>, Now)> {
        let record = self.records().get(key).cloned();
        Ok((record, Now { ms: clock::monotonic_ms(), clock: crate::host::boot_id().to_owned() }))
    }

    fn compare_and_swap(&self, key: &Key, expected: Option<i64>, record: &Record) -> Result<bool> {
        debug_assert_ne!(expected, Some(record.version), "every write has a version of its own");
        let record = record.clone();
        match (self.records().entry(key.clone()), expected) {
            (Entry::Vacant(place), None) => {
                place.insert(record);
                Ok(true)
            }
            (Entry::Occupied(mut place), Some(version)) if place.get().version == version => {
                place.insert(record);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn delete(&self, key: &Key, version: i64) -> Result<bool> {
        let mut records = self.records();
        let found = records.get(key).is_some_and(|record| record.version == version);
        if found {
            records.remove(key);
        }
        Ok(found)
    }

    fn list(&self, namespace: &str, after: Option<&str>, limit: u32) -> Result<Vec<Listed>> {
        // No session has an empty name.
        let from = Key { namespace: namespace.into(), session: after.unwrap_or_default().into() };
        let listed = self
            .records()
            .range((Bound::Excluded(from), Bound::Unbounded))
            .take_while(|(key, _)| &*key.namespace == namespace)
            .filter(|(_, record)| record.state != State::Forgotten)
            .take(limit as usize)
            .map(|(key, record)| Listed {
                session: key.session.to_string(),
                state: record.state,
                version: record.version,
                expires_at_ms: record.life.and_then(|life| life.until_ms),
            })
            .collect();
        Ok(listed)
    }

    fn owner(&self) -> Result<Owner> {
        Ok(self.owner.clone())
    }

    fn life_of(&self, owner: &Owner) -> Life {
        if owner.handle == self.owner.handle { Life::Alive } else { Life::Unknown }
    }

    fn leave(&self, _clean: bool) {}

    fn is_local(&self) -> bool {
        true
    }
}
