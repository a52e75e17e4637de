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
    /// Make what it is in, too.
    in_home: bool,
    keys: Keys,
    /// New files since the last count.
    uncounted: AtomicUsize,
}

impl Aside {
    /// In this directory, sealed with the store's keys.
    pub fn new(directory: PathBuf, keys: Keys) -> Self {
        Self { directory, in_home: false, keys, uncounted: AtomicUsize::new(UNCOUNTED) }
    }

    /// In a home directory, where nothing may be yet.
    pub fn in_home(directory: PathBuf, keys: Keys) -> Self {
        Self { in_home: true, ..Self::new(directory, keys) }
    }

    fn make(&self) -> io::Result<()> {
        if self.in_home
            && let Some(parent) = self.directory.parent()
            && !parent.exists()
        {
            builder().recursive(true).create(parent)?;
        }
        make_directory(&self.directory)
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    // ---- answers

    /// Keeps an answer until it is [settled](Self::settled). It outlives this process, and a power failure.
    pub fn keep(&self, key: &Key, pending: &Pending) -> io::Result<()> {
        let _inside = process::enter();
        self.make()?;
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
        let sealed = self.seal("seen", key, &essence(record))?;
        let mut is_new = true;
        let mut make_room = |_: &File| {
            // ext4 writes to the disk where a name is given to another file, but not where it is free. Who looks between
            // the two remembers nothing, which is no worse than not to have looked.
            is_new = fs::remove_file(&path).is_err();
            Ok(())
        };
        let written = replace(&path, &sealed, &mut make_room);
        if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            self.make()?;
            make_directory(&directory)?;
            replace(&path, &sealed, &mut make_room)?;
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
        State::Active | State::Ended | State::Moving => {
            Secrets { refresh_token, access_token, members, ..Secrets::default() }
        }
        State::SignedOut | State::Forgotten | State::Moved => Secrets::default(),
    };
    Whole { version: record.version, record, secrets }
}

/// For this user only.
fn builder() -> DirBuilder {
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Makes a directory for this user only, if it is missing.
fn make_directory(path: &Path) -> io::Result<()> {
    match builder().create(path) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::session::protocol::{self, Fresh, Moment};
    use crate::store::Now;

    const CANARY: &str = "CaNaRyToKeN";

    fn keys(seed: u8) -> Keys {
        Keys::new(&[[seed; 32]]).unwrap()
    }

    fn key(session: &str) -> Key {
        Key { namespace: "n".into(), session: session.into() }
    }

    fn aside(directory: &Path) -> Aside {
        Aside::new(directory.join("s.db-aside"), keys(1))
    }

    fn answer() -> Answer {
        Answer::from_json(&format!(r#"{{"refresh_token": "{CANARY}-2", "access_token": "{CANARY}-3"}}"#)).unwrap()
    }

    fn pending(attempt: u128) -> Pending {
        let refresh_token = Secret::new(format!("{CANARY}-1"));
        let sent = Sent { attempt: Id(attempt), grant: Id(2), generation: 3, sends: 4, refresh_token };
        let owner = Owner { handle: Id(5), host: "host".into(), boot: "boot".into() };
        Pending { sent, answer: answer(), life: None, owner, duration_ms: 6 }
    }

    fn record(version: i64) -> Record {
        let now = Now { ms: 0, clock: "clock".into() };
        let moment = Moment { now: &now, wall_ms: 0, party: "party", duration_ms: 0, life: None, jitter: 0 };
        let fresh = Fresh { version, grant: Id(2), fingerprint_key: Secret::new(CANARY) };
        protocol::save(None, &answer(), fresh, None, &moment).unwrap()
    }

    fn files(directory: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory).unwrap().flatten() {
            if entry.path().is_dir() { found.extend(files(&entry.path())) } else { found.push(entry.path()) }
        }
        found
    }

    #[test]
    fn an_answer_is_kept_until_it_is_settled() {
        let directory = tempfile::tempdir().unwrap();
        let aside = aside(directory.path());
        assert!(aside.pending(&key("a")).is_empty());
        aside.keep(&key("a"), &pending(1)).unwrap();
        aside.keep(&key("a"), &pending(2)).unwrap();
        aside.keep(&key("b"), &pending(3)).unwrap();
        let mut kept = aside.pending(&key("a"));
        kept.sort_by_key(|pending| pending.sent.attempt);
        assert_eq!(kept.iter().map(|pending| pending.sent.attempt.0).collect::<Vec<_>>(), [1, 2]);
        let whole = |pending: &Pending| format!("{}", serde_json::to_value(pending).unwrap());
        assert_eq!(whole(&kept[0]), whole(&pending(1)));
        aside.settled(&key("a"), Id(1));
        aside.settled(&key("a"), Id(1));
        assert_eq!(aside.pending(&key("a")).len(), 1);
        assert_eq!(aside.pending(&key("b")).len(), 1);
    }

    #[test]
    fn the_latest_of_a_grant_is_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let aside = aside(directory.path());
        assert_eq!(aside.recall(&key("a")), None);
        let newer = Record { generation: 7, ..record(20) };
        aside.remember(&key("a"), &newer).unwrap();
        let seen = aside.recall(&key("a")).unwrap();
        assert_eq!((seen.version, seen.grant, seen.generation), (20, Id(2), 7));
        assert_eq!(seen.secrets.refresh_token, newer.secrets.refresh_token);
        assert_eq!(seen.secrets.members, newer.secrets.members);
        assert_eq!(aside.recall(&key("b")), None);
        // Somebody who was slow.
        aside.remember(&key("a"), &record(19)).unwrap();
        assert_eq!(aside.recall(&key("a")).unwrap().version, 20);
        // Versions of another grant may have begun anywhere.
        aside.remember(&key("a"), &Record { grant: Id(3), ..record(1) }).unwrap();
        assert_eq!(aside.recall(&key("a")).unwrap().grant, Id(3));
    }

    #[test]
    fn of_a_tombstone_nothing_is_kept_but_that_it_is_one() {
        let directory = tempfile::tempdir().unwrap();
        let aside = aside(directory.path());
        aside.keep(&key("a"), &pending(1)).unwrap();
        for state in [State::SignedOut, State::Forgotten] {
            aside.remember(&key("a"), &Record { state, ..record(20) }).unwrap();
            let seen = aside.recall(&key("a")).unwrap();
            assert_eq!((seen.state, seen.grant), (state, Id(2)));
            assert!(seen.secrets == Secrets::default());
        }
        // Forgetting leaves no answer behind.
        assert_eq!(files(directory.path()).len(), 1);
    }

    #[test]
    fn only_this_user_can_read_it_and_no_token_stands_in_it() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let aside = aside(directory.path());
        aside.keep(&key("a"), &pending(1)).unwrap();
        aside.remember(&key("a"), &record(1)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for path in [aside.directory(), &aside.directory().join("seen")] {
            assert_eq!(mode(path), 0o700);
        }
        let files = files(directory.path());
        assert_eq!(files.len(), 2);
        for file in files {
            assert_eq!(mode(&file), 0o600);
            let content = fs::read(&file).unwrap();
            assert!(!content.windows(CANARY.len()).any(|part| part == CANARY.as_bytes()));
        }
    }

    #[test]
    fn what_is_not_as_it_was_written_is_as_good_as_absent() {
        let directory = tempfile::tempdir().unwrap();
        let aside = aside(directory.path());
        aside.keep(&key("a"), &pending(1)).unwrap();
        aside.remember(&key("a"), &record(1)).unwrap();
        for path in files(directory.path()) {
            let whole = fs::read(&path).unwrap();
            let found = || aside.pending(&key("a")).len() + usize::from(aside.recall(&key("a")).is_some());
            assert_eq!(found(), 2);
            for at in 0..whole.len() {
                let mut changed = whole.clone();
                changed[at] ^= 1 << (at % 8);
                fs::write(&path, changed).unwrap();
                assert_eq!(found(), 1, "byte {at} of {path:?}");
            }
            for length in [0, 1, 20, whole.len() - 1] {
                fs::write(&path, &whole[..length]).unwrap();
                assert_eq!(found(), 1, "{path:?} cut at {length}");
            }
            fs::write(&path, whole).unwrap();
        }
        // Under another session's name, of the other kind, or under another key.
        for path in files(directory.path()) {
            let name = path.file_name().unwrap().to_string_lossy().replace(&name_of(&key("a")), &name_of(&key("b")));
            fs::copy(&path, path.with_file_name(name)).unwrap();
        }
        assert!(aside.pending(&key("b")).is_empty() && aside.recall(&key("b")).is_none());
        let [first, second] = ["pending", "seen"].map(|kind| files_of_kind(directory.path(), kind));
        let swapped = fs::read(&first).unwrap();
        fs::copy(&second, &first).unwrap();
        fs::write(&second, swapped).unwrap();
        assert!(aside.pending(&key("a")).is_empty() && aside.recall(&key("a")).is_none());
        let stranger = Aside::new(aside.directory().to_owned(), keys(2));
        aside.keep(&key("c"), &pending(1)).unwrap();
        assert!(stranger.pending(&key("c")).is_empty());
        assert_eq!(aside.pending(&key("c")).len(), 1, "it is left alone");
    }

    fn files_of_kind(directory: &Path, kind: &str) -> PathBuf {
        let name = name_of(&key("a"));
        let of_kind = |path: &PathBuf| {
            let path = path.to_string_lossy();
            path.contains(&format!("/{kind}")) && path.ends_with(&name)
        };
        files(directory).into_iter().find(of_kind).unwrap()
    }

    #[test]
    fn the_sessions_that_were_renewed_last_are_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let aside = aside(directory.path());
        let names: Vec<_> = (0..REMEMBERED + 200).map(|n| n.to_string()).collect();
        for (at, name) in names.iter().enumerate() {
            aside.remember(&key(name), &record(1)).unwrap();
            // This one is renewed again and again.
            aside.remember(&key("0"), &record(at as i64)).unwrap();
            let path = aside.directory().join("seen").join(name_of(&key(name)));
            // In order, whatever the clock's tick.
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(at as u64);
            File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
        }
        let kept = fs::read_dir(aside.directory().join("seen")).unwrap().count();
        assert!((REMEMBERED - UNCOUNTED..=REMEMBERED).contains(&kept), "{kept}");
        assert!(aside.recall(&key("0")).is_some());
        for name in &names[names.len() - (REMEMBERED - UNCOUNTED - 1)..] {
            assert!(aside.recall(&key(name)).is_some(), "{name}");
        }
        assert!(aside.recall(&key("1")).is_none());
    }
}
