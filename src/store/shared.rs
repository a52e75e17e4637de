//! What machines with different clocks share: in the store, a token's life is on the store's clock; in this process, on
//! its own wall clock.
//!
//! How far the one is ahead of the other is known as well as a round trip lets it. Whoever reads takes the most that it
//! can be, whoever writes the least: so a life gets shorter by a round trip at worst, and never longer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Listed, Now, Store, Wake, Warning, Watch};
use crate::clock;
use crate::error::Result;
use crate::process::lock;
use crate::session::record::{Id, Key, Owner, Record};

/// A store that several machines share.
pub struct Shared {
    store: Arc<dyn Store>,
    wall_ms: fn() -> i64,
    ahead: Mutex<Ahead>,
}

/// How many milliseconds the store's clock is ahead of ours, as the last load has shown. Every write follows a load.
#[derive(Clone, Copy, Default)]
struct Ahead {
    least: i64,
    most: i64,
}

impl Shared {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self::with_clock(store, clock::wall_ms)
    }

    fn with_clock(store: Arc<dyn Store>, wall_ms: fn() -> i64) -> Self {
        Self { store, wall_ms, ahead: Mutex::default() }
    }

    fn load_as(&self, load: impl FnOnce() -> Result<(Option<Record>, Now)>) -> Result<(Option<Record>, Now)> {
        let before_ms = (self.wall_ms)();
        let (record, now) = load()?;
        let ahead = Ahead { least: now.ms - (self.wall_ms)(), most: now.ms - before_ms };
        *lock(&self.ahead) = ahead;
        Ok((record.map(|record| later(record, -ahead.most)), now))
    }
}

/// With its life this much later.
fn later(mut record: Record, ms: i64) -> Record {
    if let Some(life) = &mut record.life {
        life.from_ms = life.from_ms.saturating_add(ms);
        life.until_ms = life.until_ms.map(|until_ms| until_ms.saturating_add(ms));
    }
    record
}

impl Store for Shared {
    fn load(&self, key: &Key) -> Result<(Option<Record>, Now)> {
        self.load_as(|| self.store.load(key))
    }

    fn load_within(&self, key: &Key, limit: Duration) -> Result<(Option<Record>, Now)> {
        self.load_as(|| self.store.load_within(key, limit))
    }

    fn compare_and_swap(&self, key: &Key, expected: Option<i64>, record: &Record) -> Result<bool> {
        let ahead = *lock(&self.ahead);
        self.store.compare_and_swap(key, expected, &later(record.clone(), ahead.least))
    }

    fn delete(&self, key: &Key, version: i64) -> Result<bool> {
        self.store.delete(key, version)
    }

    fn list(&self, namespace: &str, after: Option<&str>, limit: u32) -> Result<Vec<Listed>> {
        self.store.list(namespace, after, limit)
    }

    fn owner(&self) -> Result<Owner> {
        self.store.owner()
    }

    fn life_of(&self, owner: &Owner) -> super::Life {
        self.store.life_of(owner)
    }

    fn leave(&self, clean: bool) {
        self.store.leave(clean);
    }

    fn warnings(&self, told: usize) -> Vec<Warning> {
        self.store.warnings(told)
    }

    fn is_local(&self) -> bool {
        self.store.is_local()
    }

    fn watch(&self, grant: Id, wake: Wake) -> Option<Box<dyn Watch>> {
        self.store.watch(grant, wake)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::suite::{key, record};
    use crate::token::{Expiry, Life};

    /// A server, with the right time.
    struct Server(MemoryStore);

    impl Store for Server {
        fn load(&self, key: &Key) -> Result<(Option<Record>, Now)> {
            let (record, _) = self.0.load(key)?;
            Ok((record, Now { ms: clock::wall_ms(), clock: super::super::UNIX_CLOCK.to_owned() }))
        }
        fn compare_and_swap(&self, key: &Key, expected: Option<i64>, record: &Record) -> Result<bool> {
            self.0.compare_and_swap(key, expected, record)
        }
        fn delete(&self, key: &Key, version: i64) -> Result<bool> {
            self.0.delete(key, version)
        }
        fn list(&self, namespace: &str, after: Option<&str>, limit: u32) -> Result<Vec<Listed>> {
            self.0.list(namespace, after, limit)
        }
        fn owner(&self) -> Result<Owner> {
            self.0.owner()
        }
        fn life_of(&self, owner: &Owner) -> super::super::Life {
            self.0.life_of(owner)
        }
        fn leave(&self, clean: bool) {
            self.0.leave(clean);
        }
        fn is_local(&self) -> bool {
            false
        }
    }

    const MINUTES_MS: i64 = 5 * 60_000;

    fn fast() -> i64 {
        clock::wall_ms() + MINUTES_MS
    }

    fn slow() -> i64 {
        clock::wall_ms() - MINUTES_MS
    }

    #[test]
    fn a_life_is_as_long_on_machines_with_other_clocks_and_never_longer() {
        const LIFE_MS: i64 = 2000;
        for (writer, reader) in [(fast as fn() -> i64, slow as fn() -> i64), (slow, fast)] {
            let server: Arc<dyn Store> = Arc::new(Server(MemoryStore::new().unwrap()));
            let theirs = Shared::with_clock(Arc::clone(&server), writer);
            let ours = Shared::with_clock(server, reader);
            theirs.load(&key("a")).unwrap();
            let from_ms = writer();
            let life = Life { from_ms, until_ms: Some(from_ms + LIFE_MS), expiry: Expiry::Known };
            let written = Record { life: Some(life), ..record(1) };
            assert!(theirs.compare_and_swap(&key("a"), None, &written).unwrap());
            let at_most_ms = reader() + LIFE_MS;
            // Claims and the like write it again.
            for version in 1..4 {
                let found = ours.load(&key("a")).unwrap().0.unwrap();
                assert!(
                    ours.compare_and_swap(&key("a"), Some(version), &Record { version: version + 1, ..found }).unwrap()
                );
            }
            let found = ours.load(&key("a")).unwrap().0.unwrap().life.unwrap();
            let until_ms = found.until_ms.unwrap();
            assert!(until_ms <= at_most_ms, "{} ms longer", until_ms - at_most_ms);
            assert!(until_ms > at_most_ms - MINUTES_MS / 5, "{} ms shorter", at_most_ms - until_ms);
            assert_eq!(until_ms - found.from_ms, LIFE_MS);
        }
    }
}
