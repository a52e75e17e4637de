//! What the tests play on: a server, a directory, workers.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{self, Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, thread};

use evergrant_test_server::{Client, Entry, FamilyView, Fault, FaultKind, GraceKind, Options, Rotation, Server};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

/// For everything that must happen. Nothing takes this long unless it hangs.
pub const LIMIT: Duration = Duration::from_secs(60);

/// For a whole test.
fn overall() -> Duration {
    Duration::from_secs(if at_length() { 3600 } else { 150 })
}

/// `make prove`.
pub fn at_length() -> bool {
    env::var_os("EVERGRANT_KILLS").is_some()
}

/// Used refresh tokens end the family.
pub const STRICT: Rotation = Rotation::Strict;

/// Used refresh tokens still answer for a minute.
pub const GRACE: Rotation =
    Rotation::Grace { window_ms: 60_000, kind: GraceKind::SamePair, reuse: evergrant_test_server::Reuse::Revoke };

/// A server that knows "client".
pub fn server(rotation: Rotation) -> Server {
    Server::start(Options {
        clients: vec![Client::confidential("client", "secret")],
        rotation,
        access_token_life_ms: 3_600_000,
        ..Options::generic()
    })
}

/// A server, a directory for the store, and the errors of all workers. Tells everything when its test fails.
pub struct Stage {
    pub server: Server,
    directory: TempDir,
    seed: u64,
    until: Instant,
}

impl Stage {
    pub fn new(rotation: Rotation) -> Self {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
        let seed = env::var("EVERGRANT_SEED").map_or(clock, |seed| seed.parse().expect("EVERGRANT_SEED is a number"));
        Self {
            server: server(rotation),
            directory: tempfile::tempdir().expect("a directory"),
            seed,
            until: Instant::now() + overall(),
        }
    }

    /// Its own directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Random numbers of this test; `lane` makes several independent series.
    pub fn random(&self, lane: u64) -> Random {
        Random(Cell::new(self.seed.wrapping_add(lane.wrapping_mul(0x9e37_79b9_7f4a_7c15))))
    }

    /// The configuration of a client on this server, with these members laid over.
    pub fn config(&self, more: Value) -> String {
        let mut config = json!({
            "token_endpoint": self.server.token_endpoint(),
            "client_id": "client",
            "client_secret": "secret",
            "store": format!("sqlite:{}", self.path().join("s.db").display()),
        });
        for (name, value) in more.as_object().expect("an object") {
            config[name] = value.clone();
        }
        config.to_string()
    }

    /// A worker that has done nothing yet.
    pub fn worker(&self) -> Worker {
        self.start(Language::C.command())
    }

    /// The same, started by this command.
    pub fn start(&self, command: Command) -> Worker {
        Worker::start(command, self.path(), self.until)
    }

    /// A worker with an open client.
    pub fn open(&self, more: Value) -> Worker {
        self.open_in(Language::C, more)
    }

    /// A worker in that language with an open client.
    pub fn open_in(&self, language: Language, more: Value) -> Worker {
        let worker = self.start(language.command());
        worker.call(&["open", &self.config(more)]).ok();
        worker
    }

    /// A worker with an open client and a new session, "alice", that has its first token.
    pub fn open_with_session(&self, more: Value) -> (Worker, Token) {
        let worker = self.open(more);
        worker.call(&["save", "alice", &self.sign_in()]).ok();
        let token = worker.call(&["token", "alice"]).token();
        (worker, token)
    }

    /// A new sign-in, as an argument of `save`. The access token is left out: the first use renews.
    pub fn sign_in(&self) -> String {
        json!({"refresh_token": self.server.sign_in("client", "user", "api").refresh_token}).to_string()
    }

    /// The next token request is answered only after so long.
    pub fn delay_next(&self, before: Duration) {
        self.server.fault(Fault::from(FaultKind::Delay).before(before.as_millis() as u64));
    }

    /// Waits until the server has read so many token requests.
    pub fn wait_for_requests(&self, number: usize) -> Vec<Entry> {
        wait_for(&format!("{number} token requests"), || {
            let requests = self.server.token_requests();
            (requests.len() >= number).then_some(requests)
        })
    }

    /// Waits until no connection to the server is open: a dead process's request that is dealt with after its replay
    /// would end the session for another reason.
    pub fn wait_until_the_server_is_idle(&self) {
        // Connections are accepted in their order: with this one, all that the dead have left behind.
        let url = self.server.url();
        let address = url.split('/').nth(2).expect("host and port");
        let mut last = TcpStream::connect(address).expect("a connection");
        last.write_all(b"GET / HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n").expect("a request");
        last.read_to_end(&mut Vec::new()).expect("an answer");
        drop(last);
        let idle = || (self.server.stats().connections_open == 0).then_some(());
        wait_for("the server to be done with a dead process's request", idle);
    }

    /// The latest sign-in of this user, as the server knows it.
    pub fn family(&self, user: &str) -> FamilyView {
        let mut families = self.server.families();
        families.retain(|family| family.user == user);
        families.pop().expect("a family")
    }

    /// How many renewals the server has answered with tokens.
    pub fn renewals(&self) -> u64 {
        self.server.stats().outcomes.get("ok").copied().unwrap_or_default()
    }

    /// Nobody has presented a used refresh token, and nobody was refused.
    pub fn assert_no_token_was_used_twice(&self) {
        let stats = self.server.stats();
        assert_eq!(stats.outcomes.keys().copied().collect::<Vec<_>>(), ["ok"], "{stats:?}");
        for family in self.server.families() {
            assert!(family.revoked.is_none(), "{family:?}");
            let twice = family.refresh_tokens.iter().filter(|token| token.presentations > 1);
            assert_eq!(twice.count(), 0, "{family:?}");
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if thread::panicking() || at_length() {
            println!("EVERGRANT_SEED={}", self.seed);
        }
        if !thread::panicking() {
            return;
        }
        for entry in self.server.log().iter().rev().take(40).rev() {
            println!("server: {}", json!(entry));
        }
        println!("server: {:?}", self.server.stats());
        for file in fs::read_dir(self.path()).into_iter().flatten().flatten() {
            let path = file.path();
            if path.extension().is_some_and(|extension| extension == "stderr") {
                let text = fs::read_to_string(&path).unwrap_or_default();
                text.lines().for_each(|line| println!("{}: {line}", file.file_name().display()));
            }
        }
    }
}

/// A worker process. Killed when dropped.
pub struct Worker {
    child: RefCell<Child>,
    stdin: RefCell<ChildStdin>,
    lines: Receiver<Reply>,
    early: RefCell<VecDeque<Reply>>,
    tags: Cell<u32>,
    until: Instant,
}

impl Worker {
    fn start(mut command: Command, directory: &Path, until: Instant) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("worker-{}.stderr", NUMBER.fetch_add(1, Ordering::Relaxed));
        let errors = File::create(directory.join(name)).expect("a file for its errors");
        let mut child = command
            // Cargo's: whatever library lies in target/ would come before the one that was built for this run.
            .env_remove("LD_LIBRARY_PATH")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("a worker");
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                // A killed worker's last line may be half a line.
                let Some(reply) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { return };
                if send.send(reply).is_err() {
                    return;
                }
            }
        });
        Self {
            child: RefCell::new(child),
            stdin: RefCell::new(stdin),
            lines,
            early: RefCell::default(),
            tags: Cell::new(0),
            until,
        }
    }

    /// Tells it a command, and returns the tag that its replies will have.
    pub fn tell(&self, words: &[&str]) -> String {
        self.tags.set(self.tags.get() + 1);
        let tag = self.tags.get().to_string();
        let line = format!("{tag}\t{}\n", words.join("\t"));
        // A worker that is gone gives no reply: that is noticed where one is needed.
        let _ = self.stdin.borrow_mut().write_all(line.as_bytes());
        tag
    }

    /// The next reply with this tag; `None`: the worker is gone.
    pub fn reply_if_any(&self, tag: &str) -> Option<Reply> {
        let mut early = self.early.borrow_mut();
        if let Some(place) = early.iter().position(|reply| reply.tag == tag) {
            return early.remove(place);
        }
        let until = self.until.min(Instant::now() + LIMIT);
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(reply) if reply.tag == tag => return Some(reply),
                Ok(reply) => early.push_back(reply),
                Err(mpsc::RecvTimeoutError::Disconnected) => return None,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    panic!("worker {} hangs, or this test takes too long: no reply to {tag}", self.pid())
                }
            }
        }
    }

    /// Whether there is a reply with this tag.
    pub fn has_replied(&self, tag: &str) -> bool {
        let mut early = self.early.borrow_mut();
        early.extend(self.lines.try_iter());
        early.iter().any(|reply| reply.tag == tag)
    }

    /// The next reply with this tag.
    pub fn reply(&self, tag: &str) -> Reply {
        self.reply_if_any(tag).unwrap_or_else(|| panic!("worker {} is gone before its reply to {tag}", self.pid()))
    }

    /// Tells it a command and waits for the reply.
    pub fn call(&self, words: &[&str]) -> Reply {
        self.reply(&self.tell(words))
    }

    /// Has so many threads run a command at the same moment; returns the tag of their replies.
    pub fn threads(&self, number: usize, words: &[&str]) -> String {
        let number = number.to_string();
        let tag = self.tell(&[&["threads", &*number], words].concat());
        self.reply(&tag).ok();
        format!("{tag}.thread")
    }

    /// Forks a child that runs these commands, each with spaces between its words. The tag of its replies, and its pid.
    pub fn fork(&self, commands: &[&str]) -> (String, Process) {
        let tag = self.tell(&["fork", &commands.join("\x1e")]);
        let pid = self.reply(&tag).ok().as_i64().expect("a pid");
        (format!("{tag}.child"), Process(pid as i32))
    }

    /// What the store knows of "alice".
    pub fn describe(&self) -> Value {
        self.call(&["describe", "alice"]).ok()
    }

    pub fn pid(&self) -> i32 {
        self.child.borrow().id() as i32
    }

    pub fn process(&self) -> Process {
        Process(self.pid())
    }

    /// kill -9, and gone when this returns.
    pub fn kill(&self) {
        let mut child = self.child.borrow_mut();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// A normal exit.
    pub fn exit(&self) {
        self.tell(&["end", "exit"]);
        assert!(self.wait().success());
    }

    /// Waits for its end.
    pub fn wait(&self) -> ExitStatus {
        wait_for("a worker's end", || self.child.borrow_mut().try_wait().expect("its status"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Any process of a test.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub i32);

impl Process {
    pub fn signal(self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a signal");
    }

    pub fn lives(self) -> bool {
        test_kill_process(self.pid()).is_ok()
    }

    /// By SIGSTOP.
    pub fn is_stopped(self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('T'))
    }

    /// The names of its threads.
    pub fn threads(self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0)).expect("its threads");
        tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("comm")).ok()).collect()
    }

    /// How many descriptors it has open.
    pub fn descriptors(self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.0)).expect("its descriptors").count()
    }

    fn pid(self) -> Pid {
        Pid::from_raw(self.0).expect("a pid")
    }
}

/// What came of a command.
#[derive(Clone, Debug, Deserialize)]
pub struct Reply {
    pub tag: String,
    pub us: u64,
    pub status: String,
    pub answer: Value,
}

impl Reply {
    /// The answer of a command that must succeed.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, "OK", "{}", self.answer);
        self.answer.clone()
    }

    /// The token of a command that must give one.
    #[track_caller]
    pub fn token(&self) -> Token {
        serde_json::from_value(self.ok()).expect("a token")
    }

    /// The message of a command that must fail with this status.
    #[track_caller]
    pub fn failure(&self, status: &str) -> String {
        assert_eq!(self.status, status, "{}", self.answer);
        self.answer["message"].as_str().unwrap_or_default().to_owned()
    }

    pub fn took(&self) -> Duration {
        Duration::from_micros(self.us)
    }
}

/// A token as applications see it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Token {
    pub access_token: String,
    pub generation: u64,
    pub expires_at_s: u64,
    #[serde(default)]
    pub uncommitted: bool,
}

/// Random numbers that a seed repeats (splitmix64).
pub struct Random(Cell<u64>);

impl Random {
    pub fn below(&self, end: u64) -> u64 {
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mixed = (self.0.get() ^ self.0.get() >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % end
    }
}

/// Unix time.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64)
}

/// Waits until something is there.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The shared library that cargo has built for this very test run.
pub fn library() -> PathBuf {
    env::current_exe().expect("the test").with_file_name("libevergrant.so")
}

/// What a worker is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Language {
    /// `tests/c/worker.c`: it knows all commands.
    C,
    /// `tests/languages/commands.py`, with the package as it is installed for PYTHON.
    Python,
    /// `tests/languages/commands.mjs`, with the package as it is installed in NODE_PROJECT.
    Node,
}

impl Language {
    /// Mostly C: the others take their time to start. C alone where their packages are not installed.
    pub fn any(random: &Random) -> Self {
        match random.below(10) {
            0 if env::var_os("PYTHON").is_some() => Self::Python,
            1 if env::var_os("NODE_PROJECT").is_some() => Self::Node,
            _ => Self::C,
        }
    }

    pub fn command(self) -> Command {
        let variable = |name| env::var_os(name).unwrap_or_else(|| panic!("{name} is not set (tests/prove.sh sets it)"));
        let with = |program: &OsStr, file: &Path| {
            let mut command = Command::new(program);
            command.arg(file);
            command
        };
        match self {
            Self::C => Command::new(program()),
            Self::Python => {
                let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/languages/commands.py");
                with(&variable("PYTHON"), &file)
            }
            // Node looks for packages where a program lies.
            Self::Node => with("node".as_ref(), &Path::new(&variable("NODE_PROJECT")).join("commands.mjs")),
        }
    }
}

/// The worker in C, compiled once for this test run against that library.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let build = build_directory();
        // The name by which the program will ask for it.
        let soname = build.join(format!("libevergrant.so.{}", evergrant::capi::ABI_VERSION));
        made(&soname, |link| std::os::unix::fs::symlink(library(), link).expect("a link"));
        let rpath = format!("-Wl,-rpath,{}", build.display());
        compile("worker.c", "worker", &["-pthread".as_ref(), soname.as_os_str(), rpath.as_ref(), "-ldl".as_ref()])
    })
}

/// Where programs in C are built.
fn build_directory() -> PathBuf {
    let build = Path::new(env!("CARGO_TARGET_TMPDIR")).join("processes");
    fs::create_dir_all(&build).expect("a directory");
    build
}

/// Makes a file at once: other test runs may be using it.
fn made(path: &Path, make: impl FnOnce(&Path)) {
    let new = path.with_file_name(process::id().to_string());
    let _ = fs::remove_file(&new);
    make(&new);
    fs::rename(new, path).expect("a new name");
}

/// A file of `tests/c`, compiled and linked with these arguments.
pub fn compile(source: &str, target: &str, arguments: &[&OsStr]) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = build_directory().join(target);
    made(&target, |target| {
        let compiled = Command::new("cc")
            .args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-g", "-I"])
            .args([&root.join("include"), &root.join("tests/c").join(source), Path::new("-o"), target])
            .args(arguments)
            .output()
            .expect("a C compiler");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    });
    target
}
