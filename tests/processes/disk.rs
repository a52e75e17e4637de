//! Read-only, full and shared disks. These tests mount file systems.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::stage::{STRICT, Stage, Token, wait_for};

/// A mounted file system; unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(stage: &Stage, name: &str, command: &[&str]) -> Self {
        let path = stage.path().join(name);
        fs::create_dir(&path).expect("a directory");
        run(&[command, &[path.to_str().expect("UTF-8")]].concat());
        Self(path)
    }

    fn tmpfs(stage: &Stage, name: &str, size: &str) -> Self {
        Self::new(stage, name, &["mount", "-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
    }

    /// The same files at another place, where nobody can write them.
    fn read_only(&self, stage: &Stage, name: &str) -> Self {
        let mount = Self::new(stage, name, &["mount", "--bind", self.0.to_str().expect("UTF-8")]);
        run(&["mount", "-o", "remount,bind,ro", mount.0.to_str().expect("UTF-8")]);
        mount
    }

    fn config(&self) -> Value {
        json!({"store": format!("sqlite:{}", self.0.join("s.db").display()), "early_renewal": "off"})
    }

    /// Takes all space that is left, until the answer is dropped.
    fn fill(&self) -> Filler {
        let path = self.0.join("filler");
        let mut file = File::create(&path).expect("a file");
        while file.write_all(&[1; 4096]).is_ok() {}
        Filler(path)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a worker of a test that failed may still be there.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

struct Filler(PathBuf);

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn run(command: &[&str]) {
    let out = Command::new(command[0]).args(&command[1..]).output();
    let out = out.unwrap_or_else(|error| panic!("{}: {error} (run tests/setup.sh)", command[0]));
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{}: {errors}(this test mounts file systems: run it as root)", command.join(" "));
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory").flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

// ---- read-only

#[test]
fn a_reader_on_a_read_only_disk_sees_what_others_renew_and_sends_nothing() {
    let stage = Stage::new(STRICT);
    let disk = Mount::tmpfs(&stage, "disk", "8m");
    let view = disk.read_only(&stage, "view");
    let save_and_renew = || {
        let (writer, token) = stage.open_with_session(disk.config());
        // Who closes the store last leaves nothing in the database's log.
        writer.call(&["close", "5000"]).ok();
        writer.call(&["free"]).ok();
        let alone = ["s.db", "s.db-aside", "s.db-owners", "s.db.key"];
        wait_for("the log to be gone", || (names(&disk.0) == alone).then_some(()));
        writer.exit();
        token
    };
    let first = save_and_renew();
    let files = || [names(&disk.0), names(&disk.0.join("s.db-owners"))];
    let before = files();

    let mut config = view.config();
    (config["renews"], config["recheck_s"]) = (json!(false), json!(1));
    let reader = stage.open(config);
    assert_eq!(reader.call(&["token", "alice"]).token(), first);
    assert_eq!(reader.call(&["peek", "alice"]).ok(), first.access_token);
    assert_eq!(files(), before, "the reader has made a file");

    // It never sends, writes or spends.
    let requests = stage.server.log().len();
    let options = json!({"max_wait_ms": 200}).to_string();
    let message = reader.call(&["renew", "alice", &first.access_token, &options]).failure("TIMED_OUT");
    assert!(message.contains("renews: false"), "{message}");
    let message = reader.call(&["save", "alice", &stage.sign_in()]).failure("STORE");
    assert!(message.contains("renews: false"), "{message}");
    assert_eq!(stage.server.log().len(), requests);

    // It looks again, without being asked for more than a token.
    let sees = |token: Token| {
        wait_for("the reader to look again", || (reader.call(&["token", "alice"]).token() == token).then_some(()));
    };
    sees(save_and_renew());
    // Also while a writer has the store open, and when that one was killed.
    let (writer, token) = stage.open_with_session(disk.config());
    sees(token);
    sees(writer.call(&["renew", "alice"]).token());
    writer.kill();
    sees(stage.open_with_session(disk.config()).1);
}

#[test]
fn a_client_that_renews_is_refused_on_a_read_only_disk() {
    let stage = Stage::new(STRICT);
    let disk = Mount::tmpfs(&stage, "disk", "8m");
    let view = disk.read_only(&stage, "view");
    stage.open(disk.config()).exit();
    let message = stage.worker().call(&["open", &stage.config(view.config())]).failure("STORE");
    assert!(message.contains("read-only") && message.contains("renews"), "{message}");
}

// ---- network

#[test]
fn network_file_systems_are_refused_and_local_ones_are_not() {
    let stage = Stage::new(STRICT);
    let files = stage.path().join("files");
    fs::create_dir(&files).unwrap();
    let files = files.to_str().unwrap();
    let remote = Mount::new(&stage, "remote", &["bindfs", "-o", "subtype=sshfs", files]);
    let message = stage.worker().call(&["open", &stage.config(remote.config())]).failure("STORE");
    for part in ["sshfs", "postgres://", "network file system"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(names(&remote.0), [""; 0], "nothing was made there");
    // A tmpfs, and (as everywhere else in these tests) the file system of the temporary directory.
    let local = Mount::tmpfs(&stage, "local", "8m");
    for config in [local.config(), json!({})] {
        let (_, token) = stage.open_with_session(config);
        assert_eq!(token.generation, 2);
    }
}

// ---- full

#[test]
fn on_a_full_disk_nothing_is_sent() {
    let stage = Stage::new(STRICT);
    let disk = Mount::tmpfs(&stage, "disk", "1m");
    let (worker, token) = stage.open_with_session(disk.config());
    let filler = disk.fill();
    for _ in 0..3 {
        let message = worker.call(&["renew", "alice"]).failure("STORE");
        assert!(message.contains("disk is full"), "{message}");
    }
    assert_eq!(stage.server.token_requests().len(), 1);
    // The token is valid all the same, and as soon as there is space, all is well.
    assert_eq!(worker.call(&["token", "alice"]).token(), token);
    drop(filler);
    assert_eq!(worker.call(&["renew", "alice"]).token().generation, 3);
    stage.assert_no_token_was_used_twice();
}

#[test]
fn an_answer_that_a_full_disk_cannot_take_is_served_and_committed_later_without_a_second_send() {
    let stage = Stage::new(STRICT);
    let disk = Mount::tmpfs(&stage, "disk", "1m");
    let (worker, token) = stage.open_with_session(disk.config());
    stage.delay_next(Duration::from_millis(500));
    let renewal = worker.threads(1, &["renew", "alice"]);
    stage.wait_for_requests(2);
    let filler = disk.fill();
    let renewed = worker.reply(&renewal).token();
    assert_eq!((renewed.generation, renewed.uncommitted), (3, true));
    assert_ne!(renewed.access_token, token.access_token);
    let served = worker.call(&["token", "alice"]).token();
    assert_eq!((&served.access_token, served.uncommitted), (&renewed.access_token, true));
    // Others wait for it, or use what is still valid.
    let other = stage.worker();
    drop(filler);
    let committed = wait_for("the commit", || {
        let token = worker.call(&["token", "alice"]).token();
        (!token.uncommitted).then_some(token)
    });
    assert_eq!(committed.access_token, renewed.access_token);
    other.call(&["open", &stage.config(disk.config())]).ok();
    assert_eq!(other.call(&["token", "alice"]).token(), committed);
    assert_eq!(stage.server.token_requests().len(), 2);
    stage.assert_no_token_was_used_twice();
}
