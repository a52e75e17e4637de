//! Where records are kept.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Server;
use crate::error::Result;
use crate::host;
use crate::secret::Secret;
use crate::session::record::{Id, Key, Owner, Record, State};

use aside::Aside;
use seal::Keys;

pub mod aside;
pub mod memory;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod roots;
mod row;
pub mod seal;
#[cfg(all(test, any(feature = "postgres", feature = "redis")))]
#[path = "../../tests/common/servers.rs"]
mod servers;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod shared;
#[cfg(test)]
mod suite;

// POSIX record locks, file modes, file system types: Unix has them.
#[cfg(unix)]
mod file_system;
#[cfg(unix)]
mod files;
#[cfg(unix)]
mod key_file;
#[cfg(unix)]
pub mod owner;
#[cfg(unix)]
pub mod sqlite;

/// An owner on this machine with a new random handle.
fn new_owner() -> Result<Owner> {
    Ok(Owner { handle: Id(u128::from_be_bytes(seal::random()?)), host: host::name(), boot: host::boot_id().to_owned() })
}

/// Opens a store that several machines share. Connects nothing. `read_only`: for clients that never renew.
pub fn open_shared(server: Server, url: &Secret, keys: Keys, read_only: bool) -> Result<Arc<dyn Store>> {
    match server {
        #[cfg(feature = "postgres")]
        Server::Postgres => Ok(Arc::new(shared::Shared::new(postgres::open(url, keys, read_only)?))),
        #[cfg(feature = "redis")]
        Server::Redis => Ok(Arc::new(shared::Shared::new(redis::open(url, keys, read_only)?))),
        #[cfg(not(all(feature = "postgres", feature = "redis")))]
        _ => {
            let _ = (url, keys, read_only);
            Err(crate::Error::invalid(format!("this library was built without {server:?} stores")))
        }
    }
}

/// The clock of every shared store: Unix time of the server that answers. It is one clock for all servers: after a
/// failover the deadlines that the old one wrote are compared with the new one's time, and the 30 s in every deadline
/// are more than synchronised clocks differ by.
#[cfg(any(feature = "postgres", feature = "redis"))]
const UNIX_CLOCK: &str = "unix";

/// A moment on a store's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds.
    pub ms: i64,
    /// Which clock: moments of different clocks cannot be compared. A local store's clock is named by the boot id; all
    /// shared stores have one name, for Unix time.
    pub clock: String,
}

/// What is known of the process that made an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It holds its lock.
    Alive,
    /// We got its lock, or it ran under another boot of this machine.
    Dead,
    /// Nothing: another machine, or its owner file is gone.
    Unknown,
}

/// One row of a list page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The session's name.
    pub session: String,
    /// Its state.
    pub state: State,
    /// Its record's version.
    pub version: i64,
    /// The end of its access token's life, Unix time in milliseconds.
    pub expires_at_ms: Option<i64>,
}

/// Something about a store that whoever operates it should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// From the set of reasons.
    pub reason: &'static str,
    /// In words.
    pub message: String,
}

/// Called from any thread: it must not wait.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Somebody waits for other parties to write, until this is dropped.
pub trait Watch: Send + Sync {
    /// Whether the store tells of it at the moment.
    fn hears(&self) -> bool;
}

/// A place for records with one writing operation, compare-and-swap.
///
/// Every function may be called from any thread. Errors are [`crate::error::Status::Store`] and say what to do.
pub trait Store: Send + Sync {
    /// The record under this key, and the store's clock, in one round trip.
    fn load(&self, key: &Key) -> Result<(Option<Record>, Now)>;

    /// The same for one who can do without: a server that gives no answer within this time counts as away.
    fn load_within(&self, key: &Key, _limit: Duration) -> Result<(Option<Record>, Now)> {
        self.load(key)
    }

    /// Writes `record` if the record under this key has the version `expected` (`None`: if there is none).
    /// `false`: it has not, and nothing was written. Durable when it returns `true`. After an error the outcome is
    /// unknown: load again, and recognise your own attempt id.
    fn compare_and_swap(&self, key: &Key, expected: Option<i64>, record: &Record) -> Result<bool>;

    /// Deletes the record under this key if it has this version.
    fn delete(&self, key: &Key, version: i64) -> Result<bool>;

    /// At most `limit` records after the name `after`, ordered bytewise, forgotten ones left out.
    fn list(&self, namespace: &str, after: Option<&str>, limit: u32) -> Result<Vec<Listed>>;

    /// Who writes through this store.
    fn owner(&self) -> Result<Owner>;

    /// Whether another owner still lives.
    fn life_of(&self, owner: &Owner) -> Life;

    /// Called once, before the last reference goes: whether no attempt of this owner is left open.
    fn leave(&self, clean: bool);

    /// Where this machine keeps what the store could not take, and what it has seen of it; `None`: nowhere.
    fn aside(&self) -> Option<&Aside> {
        None
    }

    /// What has turned out so far, less the first `told`. Every client tells it in its events.
    fn warnings(&self, _told: usize) -> Vec<Warning> {
        Vec::new()
    }

    /// Has `wake` called when another party has written a record of this grant without an attempt in it, as far as the
    /// store can tell. `None`: it never can.
    fn watch(&self, _grant: Id, _wake: Wake) -> Option<Box<dyn Watch>> {
        None
    }

    /// Whether all parties are processes of this machine: then an owner that is known alive is waited for longer.
    fn is_local(&self) -> bool;
}
