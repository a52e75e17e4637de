//! Owner files: how processes on one machine know which of them have died.
//!
//! Every process that has a local store open holds a POSIX record lock on a file of its own in `<database>-owners/`
//! for as long as it lives; the kernel lets go of it at the very moment when the process dies, however it dies. Who
//! gets that lock knows that the owner is dead.
//!
//! - Such a lock is not inherited by a forked child (flock's is, and would keep a dead parent "alive").
//! - Closing *any* descriptor of a file drops all locks that the process has on it. So a process opens its own file
//!   once, and never opens a file of which its own `HERE` says that it is this process's.
//! - A held lock proves life whatever the boot id says (some containers are given boot ids of their own), and a lock
//!   that can be had proves death. Only where the file is missing does the boot id decide. Host names prove nothing:
//!   containers on one machine have different ones, machines made from one image the same.
//! - Two copies of this library in one process have two SQLites, which cannot see each other's locks and would write
//!   at once. The second one finds the first one's descriptors and refuses.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

use super::Life;
use super::files;
use crate::error::{Error, Result};
use crate::host;
use crate::process::{self, Inside};
use crate::session::record::{Id, Owner};

/// How many other entries are looked at when a store is opened.
const SWEPT: usize = 32;
/// An entry stays this long after its owner was found dead, for those who have yet to learn of it.
const KEPT: Duration = Duration::from_secs(3600);

/// What this copy of the library has open in this process. Locked while any entry is open but not listed here.
static HERE: Mutex<Vec<Open>> = Mutex::new(Vec::new());

struct Open {
    process: u32,
    database: PathBuf,
    handle: Id,
}

fn here() -> MutexGuard<'static, Vec<Open>> {
    HERE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This process among all that have one database open.
pub struct Owners {
    database: PathBuf,
    directory: PathBuf,
    me: Owner,
    /// Held open for its lock; `None` for a reader, and in a forked child.
    file: Mutex<Option<File>>,
    clean: AtomicBool,
    /// We are in `HERE`.
    listed: AtomicBool,
}

impl Owners {
    /// Makes and locks this process's file. To be called before SQLite opens `database`, a canonical path.
    pub fn join(database: &Path) -> Result<Self> {
        let mut owners = Self::new(database)?;
        let _inside = process::enter();
        match fs::DirBuilder::new().mode(0o700).create(&owners.directory) {
            Ok(()) => files::sync_directory_of(&owners.directory)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(files::explain("make", &owners.directory, &error)),
        }
        let path = owners.path_of(owners.me.handle);
        let mut here = here();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| files::explain("make", &path, &error))?;
        // Waits only for somebody who is just looking whether we are alive.
        while let Err(error) = fcntl_lock(&file, FlockOperation::LockExclusive) {
            if error != Errno::INTR {
                return Err(files::explain("lock", &path, &error.into()));
            }
        }
        *owners.file.get_mut().unwrap_or_else(PoisonError::into_inner) = Some(file);
        owners.enlist(&mut here)?;
        drop(here);
        owners.sweep();
        Ok(owners)
    }

    /// The same for a process that only reads and has no file.
    pub fn watch(database: &Path) -> Result<Self> {
        let owners = Self::new(database)?;
        let _inside = process::enter();
        owners.enlist(&mut here())?;
        Ok(owners)
    }

    fn new(database: &Path) -> Result<Self> {
        Ok(Self {
            database: database.to_owned(),
            directory: files::beside(database, "-owners"),
            me: super::new_owner()?,
            file: Mutex::new(None),
            clean: AtomicBool::new(true),
            listed: AtomicBool::new(false),
        })
    }

    /// Our file is made before we look for those of another copy: of two copies at the same moment, one sees the other.
    fn enlist(&self, here: &mut Vec<Open>) -> Result<()> {
        let process = std::process::id();
        let first = !here.iter().any(|open| open.process == process && open.database == self.database);
        here.push(Open { process, database: self.database.clone(), handle: self.me.handle });
        self.listed.store(true, Ordering::Release);
        match self.foreign_descriptor(here, first) {
            None => Ok(()),
            Some(found) => {
                self.leave_under(here);
                Err(Error::store(format!(
                    "{} is open in this process, but not by this copy of evergrant: two copies of the library (a \
                     system library and one inside a package, for example), or evergrant and another SQLite, cannot \
                     use {} in one process without damage. Load only one copy, or give the other one a store of its \
                     own.",
                    found.display(),
                    self.database.display()
                )))
            }
        }
    }

    /// A descriptor of this process that points into this store and was not opened by this copy of the library.
    /// (Where there is no /proc, two copies are not noticed.)
    fn foreign_descriptor(&self, here: &[Open], first: bool) -> Option<PathBuf> {
        let database = ["", "-wal", "-shm"].map(|suffix| files::beside(&self.database, suffix));
        for entry in fs::read_dir("/proc/self/fd").ok()?.flatten() {
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            if first && database.contains(&target) {
                return Some(target);
            }
            if target.parent() == Some(&self.directory) {
                let name = target.file_name().unwrap_or_default().to_string_lossy();
                let name = name.trim_end_matches(" (deleted)");
                if !here.iter().any(|open| open.handle.to_string() == name) {
                    return Some(target);
                }
            }
        }
        None
    }

    /// Who we are.
    pub fn me(&self) -> &Owner {
        &self.me
    }

    /// Takes our lock again: other code of this process that opened and closed our file has dropped it without a word.
    pub fn hold(&self, _inside: &Inside) {
        if let Some(file) = &*self.file() {
            let _ = fcntl_lock(file, FlockOperation::NonBlockingLockExclusive);
        }
    }

    /// Whether `owner` lives.
    pub fn life_of(&self, owner: &Owner) -> Life {
        let _inside = process::enter();
        let here = here();
        if owner.handle == self.me.handle || is_here(&here, owner.handle) {
            return Life::Alive;
        }
        match File::open(self.path_of(owner.handle)) {
            Ok(entry) => match fcntl_lock(&entry, FlockOperation::NonBlockingLockShared) {
                Ok(()) => Life::Dead,
                Err(Errno::AGAIN | Errno::ACCESS) => Life::Alive,
                Err(_) => Life::Unknown,
            },
            // A file may be missing for many reasons, but nobody outlives a boot. Where the system names no boots,
            // the name is an estimate.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && owner.boot != self.me.boot
                    && !owner.boot.starts_with(host::ESTIMATED) =>
            {
                Life::Dead
            }
            Err(_) => Life::Unknown,
        }
    }

    /// Removes entries of long dead owners. The first finder only marks an entry (one byte long): a process that is
    /// restarted after a crash must not remove the proof of that crash.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let names: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        // Begins anywhere: living owners at the front must not hide dead ones for ever.
        let from = self.me.handle.0 as usize % names.len().max(1);
        let here = here();
        for path in names.iter().cycle().skip(from).take(names.len().min(SWEPT)) {
            let handle = path.file_name().and_then(|name| u128::from_str_radix(name.to_str()?, 16).ok());
            if handle.is_some_and(|handle| is_here(&here, Id(handle))) {
                continue;
            }
            let old = |path: &Path| {
                let age = SystemTime::now().duration_since(fs::symlink_metadata(path).ok()?.modified().ok()?);
                Some(age.ok()? > KEPT)
            };
            if old(path) != Some(true) {
                continue;
            }
            let Ok(entry) = OpenOptions::new().read(true).write(true).open(path) else { continue };
            if fcntl_lock(&entry, FlockOperation::NonBlockingLockShared).is_err() {
                continue;
            }
            let marked = entry.metadata().is_ok_and(|entry| entry.len() > 0);
            let _ = if marked { fs::remove_file(path) } else { entry.set_len(1) };
        }
    }

    /// Says whether our file may go when we go: only when no attempt of ours is left open, since the file is what
    /// tells others of our end. Without this word it stays.
    pub fn leave(&self, clean: bool) {
        self.clean.store(clean, Ordering::Release);
    }

    /// In a forked child: closes the parent's descriptor. The lock is the parent's and stays.
    pub fn child(&self) {
        self.file().take();
        self.unlist(&mut here());
    }

    fn file(&self) -> MutexGuard<'_, Option<File>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path_of(&self, handle: Id) -> PathBuf {
        self.directory.join(handle.to_string())
    }

    fn leave_under(&self, here: &mut Vec<Open>) {
        if let Some(file) = self.file().take() {
            if self.clean.load(Ordering::Acquire) {
                let _ = fs::remove_file(self.path_of(self.me.handle));
            }
            drop(file);
        }
        self.unlist(here);
    }

    fn unlist(&self, here: &mut Vec<Open>) {
        here.retain(|open| open.handle != self.me.handle);
        self.listed.store(false, Ordering::Release);
    }
}

fn is_here(here: &[Open], handle: Id) -> bool {
    // The process id guards a child that was forked while the parent was opening a store.
    here.iter().any(|open| open.handle == handle && open.process == std::process::id())
}

impl Drop for Owners {
    fn drop(&mut self) {
        // Nothing is left to do in a forked child, nor after an open that failed.
        if self.listed.load(Ordering::Acquire) {
            let _inside = process::enter();
            self.leave_under(&mut here());
        }
    }
}
