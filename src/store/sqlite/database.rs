//! The connections to one database file.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::super::files;
use super::super::seal::random;
use super::schema;
use super::trouble::Failure;
use crate::error::{Error, Result};
use crate::process::{self, Inside};

/// How long other connections' locks are waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Two connections, so that a load never waits for another session's fsync. They are opened when they are needed and
/// closed by every fork.
pub struct Database {
    path: PathBuf,
    read_only: bool,
    reader: Slot,
    writer: Slot,
    /// We are in a forked child and must not be used.
    inherited: AtomicBool,
}

type Slot = Mutex<Option<Open>>;

struct Open {
    connection: Connection,
    file: FileId,
    /// The file can change without notice: look again every time.
    once: bool,
}

/// Device and inode: a restored backup is another file under the same name.
type FileId = (u64, u64);

impl Database {
    /// Opens nothing yet.
    pub fn new(path: PathBuf, read_only: bool) -> Self {
        Self { path, read_only, reader: Slot::default(), writer: Slot::default(), inherited: AtomicBool::new(false) }
    }

    /// Its canonical path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` on the connection for reading, as often as it takes to find the database unlocked.
    pub fn read<T>(&self, mut work: impl FnMut(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        self.run(&self.reader, |connection, _| work(connection))
    }

    /// The same on the connection for writing.
    pub fn write<T>(&self, work: impl FnMut(&Connection, &Inside) -> rusqlite::Result<T>) -> Result<T> {
        self.run(&self.writer, work)
    }

    fn run<T>(&self, slot: &Slot, mut work: impl FnMut(&Connection, &Inside) -> rusqlite::Result<T>) -> Result<T> {
        let mut since = None;
        let mut pause = Duration::from_micros(100);
        loop {
            // SQLite itself never waits: a fork must not wait for it.
            let failure = match self.try_once(slot, &mut work) {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            if !failure.is_busy() || since.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
                return Err(failure.explain(&self.path));
            }
            let [jitter] = random()?;
            std::thread::sleep(pause.mul_f32(0.5 + f32::from(jitter) / 256.0));
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    fn try_once<T>(
        &self,
        slot: &Slot,
        work: &mut impl FnMut(&Connection, &Inside) -> rusqlite::Result<T>,
    ) -> std::result::Result<T, Failure> {
        let inside = process::enter();
        if self.inherited.load(Ordering::Acquire) {
            return Err(Error::store("it was opened before a fork: open the client again in the child.").into());
        }
        let mut slot = lock(slot);
        let file = self.identify()?;
        if slot.as_ref().is_some_and(|open| open.file != file) {
            *slot = None;
        }
        let open = match &mut *slot {
            Some(open) => open,
            empty => {
                let (connection, once) = self.connect()?;
                empty.insert(Open { connection, file, once })
            }
        };
        let done = work(&open.connection, &inside).map_err(Failure::from);
        if open.once || done.as_ref().is_err_and(|failure| !failure.is_busy()) {
            *slot = None;
        }
        done
    }

    fn identify(&self) -> Result<FileId> {
        match std::fs::metadata(&self.path) {
            Ok(file) => Ok((file.dev(), file.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::store(format!(
                "{} does not exist{}.",
                self.path.display(),
                if self.read_only {
                    ": open it once with a client that renews, or correct store"
                } else {
                    " any more: restore it, or open the client again to start with an empty store"
                }
            ))),
            Err(error) => Err(files::explain("find", &self.path, &error)),
        }
    }

    fn connect(&self) -> std::result::Result<(Connection, bool), Failure> {
        if !self.read_only {
            let mut connection = open(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            schema::prepare(&mut connection)?;
            return Ok((connection, false));
        }
        let readable =
            open(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(Failure::from).and_then(|connection| {
                schema::check(&connection)?;
                Ok(connection)
            });
        match readable {
            Ok(connection) => Ok((connection, false)),
            // SQLite cannot make its shared memory there, and nobody can write there.
            Err(failure) if failure.is_read_only() && is_on_read_only_disk(&self.path) => {
                let log = files::beside(&self.path, "-wal");
                if std::fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
                    return Err(Error::store(format!(
                        "a part of it is still in {}: before the files are put on a read-only disk, close all clients \
                         that write it, or run `PRAGMA wal_checkpoint(TRUNCATE)` on it.",
                        log.display()
                    ))
                    .into());
                }
                let connection = open(&immutable(&self.path), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
                schema::check(&connection)?;
                Ok((connection, true))
            }
            Err(failure) => Err(failure),
        }
    }

    /// Closes the connections before a fork: a child that opens a database whose connection it has inherited in its
    /// memory loses committed writes. What is in the log stays there: a fork must be quick.
    pub fn close_for_fork(&self) {
        for slot in [&self.reader, &self.writer] {
            if let Some(open) = lock(slot).take() {
                let _ = open.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            }
        }
    }

    /// From now on every use is an error.
    pub fn disown(&self) {
        self.inherited.store(true, Ordering::Release);
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // In a forked child there are no connections.
        if !self.inherited.load(Ordering::Acquire) {
            let _inside = process::enter();
            *lock(&self.reader) = None;
            *lock(&self.writer) = None;
        }
    }
}

fn lock(slot: &Slot) -> MutexGuard<'_, Option<Open>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // FULL: a commit is on the disk when it returns. The log is copied back after 100 pages
    // (400 KiB, some fifty renewals): what is written over is durable sooner than what makes a file longer.
    connection.execute_batch(
        "PRAGMA synchronous=FULL; PRAGMA fullfsync=ON; PRAGMA checkpoint_fullfsync=ON; PRAGMA secure_delete=ON;
         PRAGMA cell_size_check=ON; PRAGMA temp_store=MEMORY; PRAGMA mmap_size=0; PRAGMA wal_autocheckpoint=100;
         PRAGMA journal_size_limit=8388608;",
    )?;
    Ok(connection)
}

/// Tells SQLite that nobody writes this file, so that it needs neither locks nor shared memory.
fn immutable(path: &Path) -> PathBuf {
    const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/');
    format!("file://{}?immutable=1", percent_encode(path.as_os_str().as_bytes(), PATH)).into()
}

fn is_on_read_only_disk(path: &Path) -> bool {
    use rustix::fs::StatVfsMountFlags;
    rustix::fs::statvfs(path).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}
