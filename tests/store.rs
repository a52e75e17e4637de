//! The SQLite store with real processes, real deaths and real disks.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evergrant::secret::Secret;
use evergrant::session::record::{Id, Key, Known, Owner, Record, Secrets, State};
use evergrant::store::sqlite::{SqliteOptions, SqliteStore};
use evergrant::store::{Life, Store};
use evergrant::{Result, Status};

fn options(path: &Path) -> SqliteOptions {
    SqliteOptions { path: path.to_owned(), make_directory: false, keys: None, read_only: false }
}

fn open(path: &Path) -> Result<Arc<SqliteStore>> {
    SqliteStore::open(options(path))
}

fn key(session: &str) -> Key {
    Key { namespace: "n".into(), session: session.into() }
}

/// `generation` counts what the tests count.
fn record(version: i64, generation: u64) -> Record {
    Record {
        version,
        grant: Id(1),
        generation,
        state: State::Active,
        reason: None,
        life: None,
        renewed_at_ms: 0,
        made_by: None,
        attempt: None,
        back_off: None,
        known: Known::default(),
        history: Vec::new(),
        signature_mismatch: false,
        moved: None,
        arrived: Vec::new(),
        delete_after_ms: None,
        others: Default::default(),
        secrets: Secrets { refresh_token: Some(Secret::new("x".repeat(900))), ..Default::default() },
    }
}

/// Runs one role of this file in a process of its own; it prints lines and ends when its input does.
fn start(role: &str, path: &Path) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["role", "--exact", "--nocapture", "--ignored"])
        .env("EVERGRANT_TEST_ROLE", role)
        .env("EVERGRANT_TEST_PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said =
        lines.map_while(|line| line.ok()).filter_map(|line| line.split_once("says ").map(|(_, said)| said.to_owned()));
    (child, said)
}

#[test]
#[ignore = "started by the other tests in processes of their own"]
fn role() {
    let Ok(role) = std::env::var("EVERGRANT_TEST_ROLE") else { return };
    let path = PathBuf::from(std::env::var("EVERGRANT_TEST_PATH").unwrap());
    match role.as_str() {
        "live" => {
            let store = open(&path).unwrap();
            let owner = store.owner().unwrap();
            println!("says {} {} {}", owner.handle, owner.boot, owner.host);
            std::io::stdin().lines().for_each(drop);
        }
        // Says how it is with every owner that it is told of.
        "look" => {
            let store = open(&path).unwrap();
            println!("says ready");
            for line in std::io::stdin().lines() {
                println!("says {:?}", store.life_of(&owner(&line.unwrap())));
            }
        }
        "count" => {
            let store = open(&path).unwrap();
            let mut done = 0;
            while done < COUNT {
                let found = store.load(&key("counter")).unwrap().0;
                let expected = found.as_ref().map(|found| found.version);
                let next = record(expected.unwrap_or(0) + 1, found.map_or(0, |found| found.generation) + 1);
                done += u64::from(store.compare_and_swap(&key("counter"), expected, &next).unwrap());
            }
            println!("says done");
        }
        "write until killed" => {
            let store = open(&path).unwrap();
            let mut version = store.load(&key("a")).unwrap().0.map(|found| found.version);
            loop {
                let next = version.unwrap_or(0) + 1;
                assert!(store.compare_and_swap(&key("a"), version, &record(next, 0)).unwrap());
                println!("says {next}");
                version = Some(next);
            }
        }
        other => panic!("{other}"),
    }
}

const COUNT: u64 = 10;

fn owner(said: &str) -> Owner {
    let mut words = said.splitn(3, ' ').map(str::to_owned);
    let mut word = || words.next().unwrap();
    let handle = Id(u128::from_str_radix(&word(), 16).unwrap());
    Owner { handle, boot: word(), host: word() }
}

#[test]
fn death_is_known_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let store = open(&path).unwrap();
    let (mut child, mut said) = start("live", &path);
    let other = owner(&said.next().unwrap());
    assert_eq!(store.life_of(&other), Life::Alive);
    assert_eq!(store.life_of(&other), Life::Alive, "looking does not disturb it");
    // Neither the boot id nor the host decides against a held lock.
    assert_eq!(store.life_of(&Owner { boot: "x".into(), host: "y".into(), ..other.clone() }), Life::Alive);

    // A third process that looks at everybody, and leaves, takes nobody's lock away.
    let (mut third, mut third_said) = start("live", &path);
    third_said.next().unwrap();
    drop(third.stdin.take());
    third.wait().unwrap();
    assert_eq!(store.life_of(&other), Life::Alive);

    // However old it is, the entry of a living owner stays.
    let entry = directory.path().join("s.db-owners").join(other.handle.to_string());
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(1_000_000);
    for _ in 0..2 {
        fs::OpenOptions::new().write(true).open(&entry).unwrap().set_modified(long_ago).unwrap();
        drop(open(&path).unwrap());
    }
    assert_eq!(fs::metadata(&entry).unwrap().len(), 0);

    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(store.life_of(&other), Life::Dead);
    assert_eq!(store.life_of(&other), Life::Dead, "the proof stays");
    drop(store);
    assert_eq!(open(&path).unwrap().life_of(&other), Life::Dead, "also for a process that is restarted");
}

#[test]
fn a_lock_that_other_code_dropped_is_taken_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let store = open(&path).unwrap();
    let me = store.owner().unwrap();
    let (mut looker, mut said) = start("look", &path);
    assert_eq!(said.next().as_deref(), Some("ready"));
    let mut input = looker.stdin.take().unwrap();
    let mut look = || {
        writeln!(input, "{} {} {}", me.handle, me.boot, me.host).unwrap();
        said.next().unwrap()
    };
    assert_eq!(look(), "Alive");
    drop(fs::File::open(directory.path().join("s.db-owners").join(me.handle.to_string())).unwrap());
    assert_eq!(look(), "Dead", "what POSIX says of such locks");
    assert!(store.compare_and_swap(&key("a"), None, &record(1, 1)).unwrap());
    assert_eq!(look(), "Alive", "before a claim is written, its owner can be known to live");
    drop(input);
    looker.wait().unwrap();
}

#[test]
fn many_processes_make_one_store_and_lose_no_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let processes = 64;
    let mut children: Vec<_> = (0..processes).map(|_| start("count", &path)).collect();
    for (child, said) in &mut children {
        assert_eq!(said.next().as_deref(), Some("done"));
        assert!(child.wait().unwrap().success());
    }
    let found = open(&path).unwrap().load(&key("counter")).unwrap().0.unwrap();
    assert_eq!(found.generation, processes * COUNT);
    assert_eq!(found.version as u64, processes * COUNT);
}

#[test]
fn what_was_said_to_be_written_outlives_its_writer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    for run in 0..8 {
        let (mut child, mut said) = start("write until killed", &path);
        let first: i64 = said.next().unwrap().parse().unwrap();
        let start = Instant::now();
        let last = said
            .by_ref()
            .inspect(|_| {
                if start.elapsed() > Duration::from_millis(20 + 13 * run) {
                    let _ = child.kill();
                }
            })
            .last();
        child.wait().unwrap();
        let last = last.map_or(first, |last| last.parse().unwrap());
        let found = open(&path).unwrap().load(&key("a")).unwrap().0.unwrap();
        assert!(found.version == last || found.version == last + 1, "{} after {last}", found.version);
    }
}

#[test]
fn threads_swap_one_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("s.db")).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut done = 0;
                while done < COUNT {
                    let found = store.load(&key("counter")).unwrap().0;
                    let expected = found.as_ref().map(|found| found.version);
                    let next = record(expected.unwrap_or(0) + 1, found.map_or(0, |found| found.generation) + 1);
                    done += u64::from(store.compare_and_swap(&key("counter"), expected, &next).unwrap());
                }
            });
        }
    });
    assert_eq!(store.load(&key("counter")).unwrap().0.unwrap().generation, 8 * COUNT);
}

/// A small file system of its own, where this user may mount one.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted = mount(&["-t", "tmpfs", "-o", &options, "evergrant-test"], directory.path());
        if !mounted {
            eprintln!("skipped: this user may not mount");
        }
        mounted.then_some(Self(directory))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("s.db")
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        soon(|| mount(&["-o", &options], self.0.path()).then_some(()));
    }
}

/// Children that other tests are starting hold our files open between fork and exec.
fn soon<T>(mut work: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        match work() {
            Some(done) => return done,
            None => assert!(start.elapsed() < Duration::from_secs(5)),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[cfg(target_os = "linux")]
fn mount(arguments: &[&str], directory: &Path) -> bool {
    let run = Command::new("mount").args(arguments).arg(directory).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

#[cfg(not(target_os = "linux"))]
fn mount(_arguments: &[&str], _directory: &Path) -> bool {
    false
}

#[test]
fn a_full_disk_is_an_error_that_heals() {
    let Some(disk) = Disk::new("1m") else { return };
    let store = open(&disk.path()).unwrap();
    assert!(store.compare_and_swap(&key("a"), None, &record(1, 1)).unwrap());
    let ballast = disk.0.path().join("ballast");
    let _ = fs::write(&ballast, vec![0; 2 << 20]);
    let mut version = 1;
    let error = loop {
        match store.compare_and_swap(&key("a"), Some(version), &record(version + 1, 1)) {
            Ok(swapped) => assert!(swapped),
            Err(error) => break error,
        }
        version += 1;
        assert!(version < 10_000);
    };
    assert_eq!(error.status, Status::Store);
    assert!(error.message.contains("free some space") && error.message.contains("s.db"), "{error}");
    assert_eq!(store.load(&key("a")).unwrap().0.unwrap().version, version, "the last one stands");
    fs::remove_file(&ballast).unwrap();
    assert!(soon(|| store.compare_and_swap(&key("a"), Some(version), &record(version + 1, 1)).ok()));

    let _ = fs::write(&ballast, vec![0; 2 << 20]);
    let error = open(&disk.0.path().join("new.db")).err().expect("a full disk");
    assert!(error.message.contains("full"), "{error}");
}

#[test]
fn a_read_only_disk_serves_readers() {
    let Some(disk) = Disk::new("4m") else { return };
    let store = open(&disk.path()).unwrap();
    assert!(store.compare_and_swap(&key("a"), None, &record(1, 7)).unwrap());
    drop(store);
    disk.remount("ro");
    let error = open(&disk.path()).err().expect("a read-only disk");
    assert!(error.message.contains("renews") && error.message.contains("read-only"), "{error}");

    let reader = SqliteStore::open(SqliteOptions { read_only: true, ..options(&disk.path()) }).unwrap();
    assert_eq!(reader.load(&key("a")).unwrap().0.unwrap().generation, 7);
    disk.remount("rw");
    let writer = open(&disk.path()).unwrap();
    assert!(writer.compare_and_swap(&key("a"), Some(1), &record(2, 8)).unwrap());
    drop(writer);
    disk.remount("ro");
    assert_eq!(reader.load(&key("a")).unwrap().0.unwrap().generation, 8, "it looks again");
}

#[test]
fn a_disk_that_turns_read_only_is_an_error_that_heals() {
    let Some(disk) = Disk::new("4m") else { return };
    let (mut child, mut said) = start("live", &disk.path());
    said.next().unwrap();
    // Nothing holds a file open for writing at the moment of the remount, as after an I/O error.
    child.kill().unwrap();
    child.wait().unwrap();
    disk.remount("ro");
    let error = open(&disk.path()).err().expect("a read-only disk");
    assert!(error.message.contains("read-only"), "{error}");
    disk.remount("rw");
    assert!(open(&disk.path()).unwrap().compare_and_swap(&key("a"), None, &record(1, 1)).unwrap());
}

#[test]
fn a_log_on_a_read_only_disk_is_not_passed_over() {
    let Some(disk) = Disk::new("4m") else { return };
    let (mut child, mut said) = start("write until killed", &disk.path());
    let last = said.nth(3).unwrap();
    child.kill().unwrap();
    let last = said.last().unwrap_or(last).parse().unwrap();
    child.wait().unwrap();
    disk.remount("ro");
    let reader = SqliteStore::open(SqliteOptions { read_only: true, ..options(&disk.path()) });
    let found = reader.unwrap().load(&key("a")).unwrap().0.unwrap().version;
    assert!(found == last || found == last + 1, "{found} after {last}");
    disk.remount("rw");
    fs::remove_file(disk.0.path().join("s.db-shm")).unwrap();
    disk.remount("ro");
    match SqliteStore::open(SqliteOptions { read_only: true, ..options(&disk.path()) }) {
        Ok(reader) => assert!(reader.load(&key("a")).unwrap().0.unwrap().version >= last),
        Err(error) => assert!(error.message.contains("-wal"), "{error}"),
    }
}
