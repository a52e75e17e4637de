//! Clocks that are set, machines that sleep, and containers with a boot-time clock of their own.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use evergrant_test_server::FaultKind;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::stage::{GRACE, LIMIT, Language, STRICT, Stage, Token, Worker, at_length, compile, now_ms, wait_for};

const HOUR_MS: i64 = 3_600_000;
/// A look at the clocks may be one tick of the kernel old.
const TICK: Duration = Duration::from_millis(25);

/// The clocks of one machine, of which the stage's workers are told something else than the others.
struct Clocks {
    file: File,
    wall_ms: i64,
    boot_ms: i64,
}

impl Clocks {
    fn new(stage: &Stage) -> Self {
        let file = OpenOptions::new().write(true).create_new(true).open(stage.path().join("clocks")).expect("a file");
        let clocks = Self { file, wall_ms: 0, boot_ms: 0 };
        clocks.write();
        clocks
    }

    fn write(&self) {
        let bytes = [self.wall_ms.to_ne_bytes(), self.boot_ms.to_ne_bytes()].concat();
        self.file.write_all_at(&bytes, 0).expect("the clocks");
        thread::sleep(TICK);
    }

    /// Somebody sets the wall clock.
    fn set(&mut self, by_ms: i64) {
        self.wall_ms += by_ms;
        self.write();
    }

    /// The machine sleeps: the monotonic clock stands still.
    fn suspend(&mut self, ms: i64) {
        self.wall_ms += ms;
        self.boot_ms += ms;
        self.write();
    }

    fn wall_now_ms(&self) -> i64 {
        now_ms() as i64 + self.wall_ms
    }

    fn boot_now_ms(&self) -> i64 {
        let now = clock_gettime(ClockId::Boottime);
        now.tv_sec * 1000 + now.tv_nsec / 1_000_000 + self.boot_ms
    }
}

/// A worker with these clocks and an open client.
fn open(stage: &Stage, more: Value) -> Worker {
    static CLOCKS: OnceLock<PathBuf> = OnceLock::new();
    let clocks = CLOCKS.get_or_init(|| compile("clocks.c", "clocks.so", &["-shared".as_ref(), "-fPIC".as_ref()]));
    let mut command = Language::C.command();
    command.env("LD_PRELOAD", clocks).env("EVERGRANT_TEST_CLOCKS", stage.path().join("clocks"));
    let worker = stage.start(command);
    worker.call(&["open", &stage.config(more)]).ok();
    worker
}

fn open_with_session(stage: &Stage, more: Value) -> (Worker, Token) {
    let worker = open(stage, more);
    worker.call(&["save", "alice", &stage.sign_in()]).ok();
    let token = worker.call(&["token", "alice"]).token();
    (worker, token)
}

/// Two processes, whose clocks are set and whose machine sleeps at random: no token is served past its end, on either
/// clock; each life has one request; nobody presents anything twice, and nobody waits.
#[test]
fn no_token_is_served_past_its_end_whatever_happens_to_the_clocks() {
    const LIFE_MS: i64 = HOUR_MS;
    let steps = if at_length() { 1_500 } else { 150 };
    let stage = Stage::new(STRICT);
    let random = stage.random(0);
    let mut clocks = Clocks::new(&stage);
    let off = json!({"early_renewal": "off", "max_wait_ms": 50_000});
    let (first, token) = open_with_session(&stage, off.clone());
    let workers = [first, open(&stage, off)];
    // Of each token: its end on the boot-time clock, at the latest.
    let mut ends = HashMap::from([(token.access_token, clocks.boot_now_ms() + LIFE_MS)]);
    for step in 0..steps {
        let by_ms = random.below(2 * HOUR_MS as u64) as i64;
        match random.below(4) {
            0 => clocks.set(by_ms),
            1 => clocks.set(-by_ms),
            2 => clocks.suspend(by_ms),
            // Asleep, and the clock that people see did not notice.
            _ => {
                clocks.suspend(by_ms);
                clocks.set(-by_ms);
            }
        }
        let (wall_ms, boot_ms) = (clocks.wall_now_ms(), clocks.boot_now_ms());
        let got: Vec<_> = workers.iter().map(|worker| worker.call(&["token", "alice"]).token()).collect();
        for (party, token) in got.iter().enumerate() {
            let wall_end_ms = (token.expires_at_s as i64 + 1) * 1000;
            let boot_end_ms = *ends.entry(token.access_token.clone()).or_insert_with(|| clocks.boot_now_ms() + LIFE_MS);
            assert!(
                wall_ms < wall_end_ms && boot_ms < boot_end_ms,
                "step {step}, party {party}: generation {} ended {} ms ago",
                token.generation,
                (wall_ms - wall_end_ms).max(boot_ms - boot_end_ms)
            );
        }
        assert_eq!(got[0], got[1], "step {step}");
        assert_eq!(stage.server.token_requests().len(), ends.len(), "step {step}: one request for each life");
    }
    println!("{steps} steps, {} lives, {} requests", ends.len(), stage.renewals());
    assert!(ends.len() > steps / 10);
    stage.assert_no_token_was_used_twice();
}

/// In the middle of a renewal: its owner takes the answer, others wait for it, and nothing is sent twice.
#[test]
fn a_clock_that_is_set_or_a_machine_that_sleeps_in_the_middle_of_a_renewal_costs_nothing() {
    let stage = Stage::new(STRICT);
    let mut clocks = Clocks::new(&stage);
    let config = json!({"early_renewal": "off", "max_wait_ms": 50_000});
    let (owner, mut token) = open_with_session(&stage, config.clone());
    let other = open(&stage, config);
    type Step = fn(&mut Clocks);
    let steps: [(&str, Step); 5] = [
        ("set back", |clocks| clocks.set(-5 * HOUR_MS)),
        ("set forwards", |clocks| clocks.set(5 * HOUR_MS)),
        ("asleep for less than a life", |clocks| clocks.suspend(HOUR_MS / 3)),
        ("asleep for days", |clocks| clocks.suspend(100 * HOUR_MS)),
        ("asleep, and the wall clock unchanged", |clocks| {
            clocks.suspend(3 * HOUR_MS);
            clocks.set(-3 * HOUR_MS);
        }),
    ];
    for (name, step) in steps {
        let requests = stage.server.token_requests().len();
        stage.delay_next(Duration::from_millis(800));
        let renewal = owner.tell(&["renew", "alice"]);
        stage.wait_for_requests(requests + 1);
        step(&mut clocks);
        let options = json!({"max_wait_ms": 200}).to_string();
        other.call(&["renew", "alice", &token.access_token, &options]).failure("TIMED_OUT");
        let waiting = other.tell(&["renew", "alice", &token.access_token]);
        assert_eq!(stage.server.token_requests().len(), requests + 1, "{name}");
        // A life begins when its request is sent: the clock may have gone beyond its end, and then one of them renews again.
        for reply in [owner.reply(&renewal), other.reply(&waiting)] {
            assert!(reply.token().generation > token.generation, "{name}");
        }
        // Only a process that was there has seen how long the machine slept when the wall clock does not say it.
        let tokens = [&owner, &other].map(|party| party.call(&["token", "alice"]).token());
        for token in &tokens {
            assert!(clocks.wall_now_ms() < (token.expires_at_s as i64 + 1) * 1000, "{name}");
        }
        token = tokens.into_iter().max_by_key(|token| token.generation).expect("two tokens");
        let sent = stage.server.token_requests().len() - requests;
        // A session has generation 1 before its first renewal.
        assert_eq!((requests + sent + 1) as u64, token.generation, "{name}");
        assert!(sent <= 2, "{name}: {sent} requests");
    }
    assert_eq!(other.describe()["attempt"], json!(null));
    stage.assert_no_token_was_used_twice();
}

/// A dead owner's doubt and a back-off stand on a clock that nobody sets.
#[test]
fn a_clock_that_is_set_keeps_neither_a_doubt_nor_a_back_off_alive() {
    for by_ms in [-50 * HOUR_MS, 50 * HOUR_MS] {
        let stage = Stage::new(GRACE);
        let mut clocks = Clocks::new(&stage);
        let (owner, token) = open_with_session(&stage, json!({}));
        let other = open(&stage, json!({"max_wait_ms": 50_000}));
        stage.delay_next(LIMIT);
        owner.tell(&["renew", "alice"]);
        stage.wait_for_requests(2);
        clocks.set(by_ms);
        owner.kill();
        let renewed = other.call(&["renew", "alice", &token.access_token]).token();
        assert_eq!(renewed.generation, 3);

        stage.server.fault(FaultKind::Status { code: 429, body: None, retry_after: Some("1".into()) });
        let reply = other.call(&["renew", "alice", &renewed.access_token, &json!({"max_wait_ms": 0}).to_string()]);
        assert!(["UNAVAILABLE", "TIMED_OUT"].contains(&&*reply.status), "{reply:?}");
        stage.wait_for_requests(4);
        clocks.set(-2 * by_ms);
        let next = wait_for("the end of the back-off", || {
            let reply = other.call(&["renew", "alice", &renewed.access_token]);
            (reply.status == "OK").then(|| reply.token())
        });
        assert_eq!(next.generation, 4);
        assert_eq!(stage.server.token_requests().len(), 5);
    }
}

/// Containers, say: the kernel's own time namespaces, `--boottime` or `--monotonic`, so many seconds ahead.
fn open_ahead(stage: &Stage, clock: &str, seconds: u32, more: Value) -> Worker {
    let program = Language::C.command();
    let mut command = Command::new("unshare");
    command.args(["--time", clock, &seconds.to_string()]).arg(program.get_program());
    let worker = stage.start(command);
    worker.call(&["open", &stage.config(more)]).ok();
    worker
}

fn parties_of_different_clocks_share_a_store(clock: &str) {
    let stage = Stage::new(STRICT);
    let config = json!({"early_renewal": "off", "max_wait_ms": 50_000});
    let ahead = open_ahead(&stage, clock, 1_000_000, config.clone());
    let offsets = fs::read_to_string(format!("/proc/{}/timens_offsets", ahead.pid())).expect("time namespaces");
    assert!(offsets.contains(" 1000000 "), "{offsets}");
    let here = stage.open(config.clone());
    ahead.call(&["save", "alice", &stage.sign_in()]).ok();
    let mut token = ahead.call(&["token", "alice"]).token();
    assert_eq!(here.call(&["token", "alice"]).token(), token);
    for [owner, other] in [[&ahead, &here], [&here, &ahead]] {
        // Each waits for the other, adopts its token, and lets it end when it ends.
        let requests = stage.server.token_requests().len();
        stage.delay_next(Duration::from_millis(500));
        stage.server.update(|options| options.access_token_life_ms = 3_000);
        let renewal = owner.tell(&["renew", "alice"]);
        stage.wait_for_requests(requests + 1);
        let adopted = other.call(&["renew", "alice", &token.access_token]).token();
        let renewed = owner.reply(&renewal).token();
        assert_eq!(adopted, renewed, "with {clock}");
        assert_eq!(stage.server.token_requests().len(), requests + 1, "with {clock}");
        stage.server.update(|options| options.access_token_life_ms = HOUR_MS as u64);
        token = wait_for("the end of that life", || {
            let token = other.call(&["token", "alice"]).token();
            (token != renewed).then_some(token)
        });
        assert!(now_ms() + 100 >= renewed.expires_at_s * 1000, "renewed before its end");
        assert_eq!(owner.call(&["renew", "alice", &renewed.access_token]).token(), token);
        assert_eq!(stage.server.token_requests().len(), requests + 2);
    }
    stage.assert_no_token_was_used_twice();
    // And what one leaves in doubt, the other heals at once.
    let requests = stage.server.token_requests().len();
    stage.server.fault(FaultKind::Hang);
    here.tell(&["renew", "alice"]);
    stage.wait_for_requests(requests + 1);
    here.kill();
    assert_eq!(ahead.call(&["renew", "alice"]).token().generation, token.generation + 1);
    assert_eq!(stage.server.stats().reuses, 0);
}

#[test]
fn parties_with_different_boot_time_clocks_share_a_store() {
    parties_of_different_clocks_share_a_store("--boottime");
}

#[test]
fn parties_with_different_monotonic_clocks_share_a_store() {
    parties_of_different_clocks_share_a_store("--monotonic");
}
