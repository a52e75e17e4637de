//! kill -9, a stop, or an error of the disk, at each system call of a renewal, from the command to its reply.
//!
//! strace does it. It counts the calls of each thread, and of each kind, on its own; so a point is the n-th call of one
//! kind on one thread. A renewal that is only watched tells which points there are. A process that is killed at a call
//! does not make it; one that is stopped at a call stops after it, or in it where it waits.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use evergrant_test_server::{FaultKind, Rotation, Server};
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::crash::assert_rotated_without_a_commit;
use crate::stage::{GRACE, LIMIT, Process, STRICT, Stage, Worker, at_length, server, wait_for};

/// One of so many is tried; `make prove` tries all. Prime, so that a sample has all that alternates.
const SAMPLE: usize = 5;
/// The same for stops, which take longer.
const SAMPLE_OF_STOPS: usize = 13;

/// A renewal. Each kind makes other system calls.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Another one of a process that has renewed before.
    Next,
    /// The first of a process: it opens the database for writing, and connects.
    First,
    /// Its claim finds the database's log full, and copies it back.
    Checkpoint,
    /// The first of a process, after another one was killed in the middle of its own.
    Replay,
}

/// Of a session without a doubt.
const PLAIN: [Kind; 3] = [Kind::Next, Kind::First, Kind::Checkpoint];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thread {
    /// Loads the record, decides, waits.
    Caller,
    /// The library's own: claims, sends, settles.
    Renewer,
}

impl Thread {
    fn id(self, worker: &Worker) -> Option<i32> {
        if self == Thread::Caller {
            return Some(worker.pid());
        }
        let threads = fs::read_dir(format!("/proc/{}/task", worker.pid())).expect("its threads").flatten();
        let mut ours = threads
            .filter(|thread| fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name == "evergrant\n"));
        ours.next()?.file_name().to_str()?.parse().ok()
    }
}

/// The n-th call of its name on its thread, from 1.
#[derive(Clone)]
struct Point {
    kind: Kind,
    thread: Thread,
    call: String,
    number: usize,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?} renewal, {:?}, {} {}", self.kind, self.thread, self.call, self.number)
    }
}

/// Those of calls as strace writes them.
fn points(kind: Kind, thread: Thread, calls: &[String]) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    for (call, _) in calls.iter().filter_map(|call| call.split_once('(')) {
        let number = points.iter().filter(|point| point.call == call).count() + 1;
        points.push(Point { kind, thread, call: call.to_owned(), number });
    }
    // What the threads are in when strace comes: it may see them or not.
    points.retain(|point| point.call != "restart_syscall" && !(thread == Thread::Caller && point.call == "read"));
    points
}

/// strace on one thread. It lets go when dropped.
struct Strace {
    child: Child,
    output: PathBuf,
    /// Read no further, but open: it may have more to say.
    _errors: BufReader<ChildStderr>,
}

impl Strace {
    /// `None`: there is no such thread any more.
    fn attach(stage: &Stage, thread: i32, inject: Option<String>) -> Option<Self> {
        let output = stage.path().join(format!("{thread}.strace"));
        let mut child = Command::new("strace")
            .args(["-y", "-p", &thread.to_string(), "-o"])
            .arg(&output)
            .args(inject.map(|inject| format!("--inject={inject}")))
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace (run tests/setup.sh)");
        let mut errors = BufReader::new(child.stderr.take().expect("piped"));
        let mut said = String::new();
        errors.read_line(&mut said).expect("its first line");
        let strace = Self { child, output, _errors: errors };
        assert!(said.contains(" attached") || said.contains("No such process"), "strace: {said}");
        said.contains(" attached").then_some(strace)
    }

    /// The calls that it has seen.
    fn calls(self) -> Vec<String> {
        let output = self.output.clone();
        drop(self);
        let text = fs::read_to_string(output).expect("its output");
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            Process(self.child.id() as i32).signal(Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Which call sends the refresh token.
fn sending(calls: &[String]) -> Option<usize> {
    calls.iter().position(|call| call.starts_with("sendto("))
}

/// Something is written to this file and made durable, and only then comes `next`.
#[track_caller]
fn assert_durable_before(calls: &[String], next: usize, file: &str) {
    let is = |call: &String, name: &str| call.starts_with(name) && call.contains(&format!("{file}>"));
    let written = calls[..next].iter().rposition(|call| is(call, "pwrite64(")).expect("a write");
    let durable = calls[written..next].iter().any(|call| is(call, "fdatasync(") && call.ends_with(" = 0"));
    assert!(durable && !calls[written].contains(" = -1 "), "{:#?} comes first, of {calls:#?}", calls[next]);
}

#[derive(Default)]
struct Tally {
    kills: usize,
    /// The renewal ended before it came to that call.
    missed: usize,
    sent: usize,
    in_doubt: usize,
    lost: usize,
    errors: usize,
    refused: usize,
    uncommitted: usize,
    stops: usize,
    not_sent: usize,
}

/// One session, "alice", whose renewals meet all of it.
struct Play {
    stage: Stage,
    aside: Server,
    /// Of its clients, besides the server and the store.
    config: Value,
    may_lose: bool,
    tally: Tally,
}

impl Play {
    fn new(rotation: Rotation, config: Value) -> Self {
        let play = Self {
            stage: Stage::new(rotation),
            aside: server(rotation),
            config,
            may_lose: rotation == STRICT,
            tally: Tally::default(),
        };
        let worker = play.stage.open(json!({}));
        worker.call(&["save", "alice", &play.stage.sign_in()]).ok();
        worker.call(&["renew", "alice"]).ok();
        play.fill_log();
        play
    }

    /// A worker whose next renewal is of that kind. It has a thread for that, idle.
    fn ready(&self, kind: Kind) -> Worker {
        if let Kind::Replay = kind {
            self.leave_in_doubt();
        }
        let worker = self.stage.worker();
        if let Kind::First | Kind::Replay = kind {
            let aside = json!({"store": "memory:", "token_endpoint": self.aside.token_endpoint()});
            let other = self.aside.sign_in("client", "other", "api").refresh_token;
            worker.call(&["open", &self.stage.config(aside)]).ok();
            worker.call(&["save", "other", &json!({"refresh_token": other}).to_string()]).ok();
            worker.call(&["renew", "other"]).ok();
        }
        worker.call(&["open", &self.stage.config(self.config.clone())]).ok();
        self.empty_log();
        match kind {
            Kind::First | Kind::Replay => {}
            Kind::Next => drop(worker.call(&["renew", "alice"]).ok()),
            Kind::Checkpoint => {
                worker.call(&["renew", "alice"]).ok();
                self.fill_log();
            }
        }
        worker
    }

    /// A worker sends and is killed; the server does nothing.
    fn leave_in_doubt(&self) {
        let requests = self.token_requests();
        self.stage.server.fault(FaultKind::Hang);
        let worker = self.stage.open(json!({}));
        worker.tell(&["renew", "alice"]);
        wait_for("the request", || (self.token_requests() > requests).then_some(()));
        worker.kill();
        self.stage.wait_until_the_server_is_idle();
    }

    /// So that all renewals of a kind find the database alike.
    fn empty_log(&self) {
        let busy = self.database().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
        assert_eq!(busy, Ok(false));
    }

    /// With more pages than the library lets it grow to, most of them of no use any more.
    fn fill_log(&self) {
        let database = self.database();
        let prepare = "PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=OFF; CREATE TABLE IF NOT EXISTS filler(byte);";
        database.execute_batch(prepare).expect("a table");
        for _ in 0..100 {
            database.execute("INSERT OR REPLACE INTO filler(rowid, byte) VALUES(1, 1)", []).expect("a page");
        }
    }

    fn database(&self) -> Connection {
        let database = Connection::open(self.stage.path().join("s.db")).expect("the database");
        database.busy_timeout(LIMIT).expect("a limit");
        database
    }

    fn assert_intact(&self, point: &Point) {
        let check = self.database().query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
        assert_eq!(check.as_deref(), Ok("ok"), "{point}");
    }

    /// A worker whose next renewal is of that kind, and strace on it.
    fn watched(&self, kind: Kind, thread: Thread, inject: Option<String>) -> (Worker, Strace) {
        // An idle thread ends after a while: on a busy machine, before strace is there.
        wait_for("strace", || {
            let worker = self.ready(kind);
            let strace = Strace::attach(&self.stage, thread.id(&worker)?, inject.clone())?;
            Some((worker, strace))
        })
    }

    /// Every call of one such renewal on that thread.
    fn calls(&self, kind: Kind, thread: Thread) -> Vec<String> {
        let (worker, strace) = self.watched(kind, thread, None);
        worker.call(&["renew", "alice"]).ok();
        strace.calls()
    }

    fn points(&self, kinds: &[Kind]) -> Vec<Point> {
        let mut all = Vec::new();
        for &kind in kinds {
            let calls = self.calls(kind, Thread::Renewer);
            let send = sending(&calls).expect("a request");
            assert_durable_before(&calls, send, "s.db-wal");
            let wake = calls.iter().rposition(|call| call.contains("FUTEX_WAKE")).expect("the caller's end of wait");
            assert_durable_before(&calls[send..], wake - send, "s.db-wal");
            let copied = calls.iter().any(|call| call.starts_with("pwrite64(") && call.contains("s.db>"));
            assert!(copied || !matches!(kind, Kind::Checkpoint), "{calls:#?}");
            all.extend(points(kind, Thread::Caller, &self.calls(kind, Thread::Caller)));
            all.extend(points(kind, Thread::Renewer, &calls));
        }
        all
    }

    /// Of the refresh token that is good.
    fn generation(&self) -> u64 {
        self.stage.family("user").generation.into()
    }

    fn token_requests(&self) -> u64 {
        self.stage.server.stats().token_requests
    }

    /// What another process knows, before it does anything.
    fn judge(&self) -> (Worker, Value) {
        // Less than any lease: where it waits for one, it gets no token.
        let judge = self.stage.open(json!({"max_wait_ms": 50_000}));
        let described = judge.describe();
        (judge, described)
    }

    fn kill(&mut self, point: &Point) {
        let inject = format!("{}:signal=KILL:when={}", point.call, point.number);
        let (worker, strace) = self.watched(point.kind, point.thread, Some(inject));
        let (generation, requests) = (self.generation(), self.token_requests());
        let renewal = worker.tell(&["renew", "alice"]);
        if let Some(reply) = worker.reply_if_any(&renewal) {
            reply.token();
            println!("not met: {point}");
            self.tally.missed += 1;
            return;
        }
        self.tally.kills += 1;
        worker.kill();
        drop(strace);
        self.stage.wait_until_the_server_is_idle();

        let (judge, described) = self.judge();
        let sent = self.token_requests() - requests;
        let settled = described["generation"] != generation;
        let claimed = described["attempt"]["sends"] == if let Kind::Replay = point.kind { 2 } else { 1 };
        assert!(sent == 0 || sent == 1 && (claimed || settled), "{point}: sent without a claim: {described}");
        assert!(!(claimed && settled), "{point}: {described}");
        self.tally.sent += sent as usize;
        self.tally.in_doubt += usize::from(claimed);

        let reply = judge.call(&["renew", "alice"]);
        if reply.status != "OK" {
            assert!(self.may_lose && claimed, "{point}: {reply:?}");
            reply.failure("SIGN_IN_REQUIRED");
            assert_rotated_without_a_commit(&judge.describe(), &self.stage.family("user"));
            self.tally.lost += 1;
            judge.call(&["save", "alice", &self.stage.sign_in()]).ok();
            judge.call(&["renew", "alice"]).ok();
        }
        self.assert_intact(point);
    }

    /// Stopped there until its exchange's time is over. No other process sends anything once it has claimed, and what the
    /// server has answered is taken when it goes on.
    fn stop(&mut self, point: &Point) {
        let inject = format!("{}:signal=STOP:when={}", point.call, point.number);
        let (worker, strace) = self.watched(point.kind, point.thread, Some(inject));
        let (generation, requests) = (self.generation(), self.token_requests());
        let sent = |play: &Self| play.token_requests() - requests;
        let other = self.stage.open(self.config.clone());
        let old = other.call(&["token", "alice"]).token();

        let renewal = worker.tell(&["renew", "alice"]);
        let met = wait_for("the stop", || match worker.process().is_stopped() {
            true => Some(true),
            false => worker.has_replied(&renewal).then_some(false),
        });
        if !met {
            println!("not met: {point}");
            worker.reply(&renewal).token();
            self.tally.missed += 1;
            return;
        }
        let stopped = Instant::now();
        // What it has sent arrives.
        thread::sleep(Duration::from_millis(100));
        let by_owner = sent(self);
        let described = other.describe();
        let claimed = !described["attempt"].is_null();
        let settled = described["generation"] != generation;
        assert!(by_owner == 0 || by_owner == 1 && (claimed || settled), "{point}: sent without a claim: {described}");
        assert!(other.call(&["token", "alice"]).token() == old || settled, "{point}");
        let options = json!({"max_wait_ms": 300}).to_string();
        let reply = other.call(&["renew", "alice", &old.access_token, &options]);
        if claimed {
            reply.failure("TIMED_OUT");
        } else if settled {
            reply.token();
        }
        thread::sleep(BEYOND.saturating_sub(stopped.elapsed()));
        assert!(sent(self) == by_owner || !claimed && !settled, "{point}: sent while the owner lives: {described}");

        worker.process().signal(Signal::CONT);
        let reply = worker.reply(&renewal);
        drop(strace);
        self.tally.stops += 1;
        self.tally.sent += by_owner as usize;
        if reply.status == "OK" {
            assert_eq!(reply.token().generation, generation + 1, "{point}");
        } else {
            assert_eq!(by_owner, 0, "{point}: {reply:?}");
            let failed = (&*reply.status, &reply.answer["outcome"]);
            assert_eq!(failed, ("UNAVAILABLE", &json!("not_sent")), "{point}: {reply:?}");
            self.tally.not_sent += 1;
        }
        for party in [&worker, &other] {
            let token = wait_for("a renewal", || {
                let reply = party.call(&["renew", "alice", &old.access_token]);
                (reply.status != "UNAVAILABLE").then(|| reply.token())
            });
            assert_eq!(token.generation, generation + 1, "{point}");
        }
        assert_eq!(sent(self), 1, "{point}");
        let (_, described) = self.judge();
        assert_eq!((&described["state"], &described["attempt"]), (&json!("active"), &Value::Null), "{point}");
        self.stage.assert_no_token_was_used_twice();
        self.assert_intact(point);
    }

    fn fail(&mut self, point: &Point, error: &str, for_ever: bool) {
        let last = if for_ever { "+" } else { "" };
        let inject = format!("{}:error={error}:when={}{last}", point.call, point.number);
        let point = Point { call: format!("{error}{last} of {}", point.call), ..point.clone() };
        let (worker, strace) = self.watched(point.kind, point.thread, Some(inject));
        let (generation, requests) = (self.generation(), self.token_requests());
        let reply = worker.call(&["renew", "alice"]);
        let sent = self.token_requests() - requests;
        self.tally.errors += 1;
        if reply.status == "OK" {
            let token = reply.token();
            assert_eq!((sent, token.generation), (1, generation + 1), "{point}");
            self.tally.uncommitted += usize::from(token.uncommitted);
            assert!(token.uncommitted || self.judge().1["generation"] == token.generation, "{point}");
            let served = worker.call(&["token", "alice"]).token();
            assert_eq!(served.access_token, token.access_token, "{point}");
        } else {
            reply.failure("STORE");
            assert_eq!(sent, 0, "{point}: {reply:?}");
            self.tally.refused += 1;
        }
        let calls = strace.calls();
        if let Some(send) = sending(&calls) {
            assert_durable_before(&calls, send, "s.db-wal");
        }

        let committed = wait_for(&format!("{point}: the commit"), || {
            let token = worker.call(&["token", "alice"]).token();
            (!token.uncommitted).then_some(token)
        });
        let (judge, described) = self.judge();
        assert_eq!(committed.generation, generation + sent, "{point}");
        let settled = (&json!(committed.generation), &Value::Null);
        assert_eq!((&described["generation"], &described["attempt"]), settled, "{point}");
        assert_eq!(judge.call(&["renew", "alice"]).token().generation, committed.generation + 1, "{point}");
        self.stage.assert_no_token_was_used_twice();
        self.assert_intact(&point);
    }
}

/// All of them, or one of so many: other ones each time.
fn sample<T>(stage: &Stage, all: Vec<T>, of: usize) -> Vec<T> {
    let step = if at_length() { 1 } else { of };
    let first = stage.random(0).below(step as u64) as usize;
    all.into_iter().skip(first).step_by(step).collect()
}

fn kill_at_each_call(rotation: Rotation) -> Play {
    let mut play = Play::new(rotation, json!({}));
    let kinds = [&PLAIN[..], &[Kind::Replay]].concat();
    for point in sample(&play.stage, play.points(&kinds), SAMPLE) {
        play.kill(&point);
    }
    let Tally { kills, missed, sent, in_doubt, lost, .. } = play.tally;
    println!(
        "{kills} kills, {missed} points not met, {sent} had sent, {in_doubt} left a renewal in doubt, {lost} sessions lost \
         and explained"
    );
    assert!(missed * 10 <= kills && sent > 0 && in_doubt > sent / 2, "they did not hit");
    play
}

#[test]
fn kill_9_at_each_call_loses_nothing_where_a_used_token_still_answers() {
    let play = kill_at_each_call(GRACE);
    assert_eq!(play.stage.server.stats().reuses, 0);
    assert_eq!(play.stage.server.families().len(), 1);
}

#[test]
fn kill_9_at_each_call_loses_a_session_only_where_the_server_had_rotated_without_a_commit() {
    let play = kill_at_each_call(STRICT);
    // Otherwise this test has shown nothing.
    assert!(play.tally.lost > 0);
}

/// For how long a process is stopped: for longer than the two limits of its exchange.
const BEYOND: Duration = Duration::from_millis(1_700);

#[test]
fn a_stop_at_each_call_loses_nothing_and_lets_nobody_else_send() {
    let limits = json!({"connect_timeout_ms": 500, "exchange_timeout_ms": 1_000, "max_wait_ms": 50_000});
    let play = |kind| {
        let mut play = Play::new(STRICT, limits.clone());
        let points = play.points(&[kind]).into_iter().filter(|point| point.thread == Thread::Renewer).collect();
        for point in sample(&play.stage, points, SAMPLE_OF_STOPS) {
            play.stop(&point);
        }
        assert_eq!(play.stage.server.families().len(), 1);
        play.tally
    };
    let tallies = thread::scope(|scope| {
        let playing = PLAIN.map(|kind| scope.spawn(move || play(kind)));
        playing.map(|kind| kind.join().expect("a play"))
    });
    let sum = |number: fn(&Tally) -> usize| tallies.iter().map(number).sum::<usize>();
    let (stops, missed, sent) = (sum(|it| it.stops), sum(|it| it.missed), sum(|it| it.sent));
    println!(
        "{stops} stops, {missed} points not met, {sent} after the request, {} before it and not sent, 0 sessions lost",
        sum(|it| it.not_sent)
    );
    assert!(missed * 10 <= stops && stops > 0, "they did not hit");
    assert!(!at_length() || sent > stops / 10 && sent < stops, "they did not hit");
}

#[test]
fn an_error_of_the_disk_at_each_call_spends_no_token_unclaimed_and_loses_nothing() {
    const ERRORS: [(&str, &[&str]); 4] = [
        ("pwrite64", &["EIO", "ENOSPC"]),
        ("ftruncate", &["EIO", "ENOSPC"]),
        ("fdatasync", &["EIO", "ENOSPC"]),
        ("fsync", &["EIO", "ENOSPC"]),
    ];
    let mut play = Play::new(STRICT, json!({}));
    let mut all = Vec::new();
    for point in play.points(&PLAIN).iter().filter(|point| point.thread == Thread::Renewer) {
        let errors = ERRORS.iter().find(|(call, _)| *call == point.call).map_or(&[][..], |(_, errors)| errors);
        for error in errors {
            all.extend([false, true].map(|for_ever| (point.clone(), error, for_ever)));
        }
    }
    for (point, error, for_ever) in sample(&play.stage, all, SAMPLE) {
        play.fail(&point, error, for_ever);
    }
    let Tally { errors, refused, uncommitted, .. } = play.tally;
    println!("{errors} errors, {refused} kept the claim from being written, {uncommitted} the answer for a while");
    assert!(refused > 0 && uncommitted > 0, "they did not hit");
}
