//! What this machine keeps beside a store, in a directory of its own (the state directory): answers that the store could
//! not take, and the newest generation of each session, by which a store that went back in time is noticed.
//!
//! | file | what | written |
//! |---|---|---|
//! | `pending-<attempt id>-<session>` | an answer that waits to be committed | durably |
//! | `seen/<session>` | a record, or the fact that its session was signed out or forgotten | at leisure |
//!
//! `<session>` is a hash of the namespace and the name. Files are whole or absent: each is written under another name
//! first. Their content is sealed with the store's keys and bound to its place. What cannot be read, whatever the
//! reason, is as good as absent: nothing here is ever an error for who wants a token.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::seal::{Keys, random};
use crate::config::short_hash;
use crate::process;
use crate::secret::SecretBytes;
use crate::session::protocol::Sent;
use crate::session::record::{Id, Key, Owner, Record, Secrets, State};
use crate::token::{Answer, Life};

/// How many sessions are remembered: those that this machine renewed last.
pub const REMEMBERED: usize = 1024;
/// So many new ones come before somebody counts again.
const UNCOUNTED: usize = 32;
/// A draft older than this was left behind by a crash.
const DRAFT: Duration = Duration::from_secs(60);
/// More than any file has.
const LARGEST: u64 = 16 << 20;

/// An answer that the store could not take.
#[derive(Clone, Serialize, Deserialize)]
pub struct Pending {
    /// What was sent for it.
    pub sent: Sent,
    /// The answer.
    pub answer: Answer,
    /// The life of its access token.
    pub life: Option<Life>,
    /// Who holds it.
    pub owner: Owner,
    /// How long the exchange took.
    pub duration_ms: u64,
}

/// A record with the parts that serializing leaves out.
#[derive(Serialize, Deserialize)]
struct Whole {
    version: i64,
    record: Record,
    secrets: Secrets,
}

/// The directory of one store. It is made when it is first needed.
pub struct Aside {
    directory: PathBuf,
    keys: Keys,
    /// New files since the last count.
    uncounted: AtomicUsize,
}

impl Aside {
    /// In this directory, sealed with the store's keys.
    pub fn new(directory: PathBuf, keys: Keys) -> Self {
        Self { directory, keys, uncounted: AtomicUsize::new(UNCOUNTED) }
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    // ---- answers

    /// Keeps an answer until it is [settled](Self::settled). It outlives this process, and a power failure.
    pub fn keep(&self, key: &Key, pending: &Pending) -> io::Result<()> {
        let _inside = process::enter();
        make_directory(&self.directory)?;
        let path = self.path_of_pending(key, pending.sent.attempt);
        let sealed = self.seal("pending", key, pending)?;
        replace(&path, &sealed, |file| file.sync_all())?;
        sync(&self.directory)
    }

    /// The answers that are kept for a session.
    pub fn pending(&self, key: &Key) -> Vec<Pending> {
        let _inside = process::enter();
        let files = self.files_of(key).into_iter();
        files.filter_map(|path| self.open("pending", key, &path)).collect()
    }

    /// The record shows it: the answer is not needed any more.
    pub fn settled(&self, key: &Key, attempt: Id) {
        let _inside = process::enter();
        let _ = fs::remove_file(self.path_of_pending(key, attempt));
    }

    fn files_of(&self, key: &Key) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Vec::new() };
        let name = name_of(key);
        let ours = |file: &str| file.starts_with("pending-") && file.ends_with(&name);
        let paths = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(ours));
        paths.map(|entry| entry.path()).collect()
    }

    fn path_of_pending(&self, key: &Key, attempt: Id) -> PathBuf {
        self.directory.join(format!("pending-{attempt}-{}", name_of(key)))
    }

    // ---- generations

    /// Remembers a committed record: of a session the newest generation, of a tombstone that it is one. Not durable: it
    /// costs no wait, and what is lost is only remembered less well.
    pub fn remember(&self, key: &Key, record: &Record) -> io::Result<()> {
        let _inside = process::enter();
        if record.state == State::Forgotten {
            for path in self.files_of(key) {
                fs::remove_file(path)?;
            }
        }
        let directory = self.directory.join("seen");
        let path = directory.join(name_of(key));
        // Somebody who committed later may have been here before.
        let before: Option<Whole> = self.open("seen", key, &path);
        if before.is_some_and(|seen| seen.record.grant == record.grant && seen.version > record.version) {
            return Ok(());
        }
        let is_new = !path.exists();
        let sealed = self.seal("seen", key, &essence(record))?;
        let written = replace(&path, &sealed, |_| Ok(()));
        if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            make_directory(&self.directory)?;
            make_directory(&directory)?;
            replace(&path, &sealed, |_| Ok(()))?;
        } else {
            written?;
        }
        if is_new && self.uncounted.fetch_add(1, Ordering::Relaxed) >= UNCOUNTED {
            self.uncounted.store(1, Ordering::Relaxed);
            prune(&directory)?;
        }
        Ok(())
    }

    /// What is remembered of a session.
    pub fn recall(&self, key: &Key) -> Option<Record> {
        let _inside = process::enter();
        let Whole { version, record, secrets } =
            self.open("seen", key, &self.directory.join("seen").join(name_of(key)))?;
        Some(Record { version, secrets, ..record })
    }

    // ---- both

    fn seal(&self, kind: &str, key: &Key, content: &impl Serialize) -> io::Result<Vec<u8>> {
        // Written twice, so that the memory of the second time is large enough not to move, which would leave copies.
        let mut length = Length(0);
        serde_json::to_writer(&mut length, content)?;
        let mut text = SecretBytes::new(Vec::with_capacity(length.0));
        serde_json::to_writer(&mut *text, content)?;
        self.keys.seal(&place(kind, key), 0, "", &text).map_err(io::Error::other)
    }

    fn open<T: DeserializeOwned>(&self, kind: &str, key: &Key, path: &Path) -> Option<T> {
        let file = File::open(path).ok()?;
        let length = file.metadata().ok()?.len().min(LARGEST);
        let mut sealed = Vec::with_capacity(length as usize + 1);
        file.take(LARGEST).read_to_end(&mut sealed).ok()?;
        let text = self.keys.open(&place(kind, key), 0, "", &sealed).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

/// What sealing binds to. No session has a name like this.
fn place(kind: &str, key: &Key) -> Key {
    Key { namespace: key.namespace.clone(), session: format!("\0{kind}\0{}", key.session).into() }
}

/// A session as a file's name.
fn name_of(key: &Key) -> String {
    short_hash(&[&key.namespace, &key.session])
}

/// The part of a record by which a store that went back in time is noticed and healed.
fn essence(record: &Record) -> Whole {
    let mut record = Record {
        attempt: None,
        back_off: None,
        known: Default::default(),
        history: Vec::new(),
        others: Default::default(),
        ..record.clone()
    };
    let Secrets { refresh_token, access_token, members, .. } = std::mem::take(&mut record.secrets);
    let secrets = match record.state {
        State::Active | State::Ended => Secrets { refresh_token, access_token, members, ..Secrets::default() },
        State::SignedOut | State::Forgotten => Secrets::default(),
    };
    Whole { version: record.version, record, secrets }
}

/// Makes a directory for this user only, if it is missing.
fn make_directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Ok(()) => sync(path.parent().unwrap_or(path)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes the names in a directory as durable as what they name.
fn sync(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

/// Gives a file this content, all at once.
fn replace(path: &Path, content: &[u8], finish: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let number = u64::from_be_bytes(random().map_err(io::Error::other)?);
    let draft = path.with_file_name(format!("draft-{number:016x}"));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options
        .open(&draft)
        .and_then(|mut file| file.write_all(content).and_then(|()| finish(&file)))
        .and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

/// Removes the oldest, so that there is room for as many as come uncounted, and what crashes have left.
fn prune(directory: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)?.flatten() {
        // One that is gone in the meantime needs no pruning.
        let Ok(written) = entry.metadata().and_then(|found| found.modified()) else { continue };
        if !entry.file_name().to_string_lossy().starts_with("draft-") {
            files.push((written, entry.path()));
        } else if SystemTime::now().duration_since(written).is_ok_and(|age| age > DRAFT) {
            let _ = fs::remove_file(entry.path());
        }
    }
    files.sort_unstable();
    let surplus = files.len().saturating_sub(REMEMBERED - UNCOUNTED);
    for (_, path) in files.drain(..surplus) {
        let _ = fs::remove_file(path);
    }
    Ok(())
}

/// Counts what is written.
struct Length(usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
