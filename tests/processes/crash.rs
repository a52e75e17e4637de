//! kill -9 at random moments of renewals.

use std::collections::BTreeMap;
use std::env;
use std::ops::Range;
use std::thread;
use std::time::Duration;

use evergrant_test_server::{FamilyView, FaultKind, Rotation};
use serde_json::{Value, json};

use crate::stage::{GRACE, Language, Random, STRICT, Stage, wait_for};

/// Sessions that are killed at the same time, each by its own worker, in one store.
const LANES: u64 = 4;

/// For each session: EVERGRANT_KILLS in all, `make prove` has more.
fn kills() -> usize {
    let all = env::var("EVERGRANT_KILLS").map_or(500, |all| all.parse().expect("EVERGRANT_KILLS is a number"));
    all / LANES as usize
}

#[derive(Default)]
struct Tally {
    /// Of workers in each language: how many, and how many of these kills left an attempt behind.
    kills: BTreeMap<Language, (usize, usize)>,
    lost: usize,
}

impl Tally {
    fn of(all: impl IntoIterator<Item = Self>) -> Self {
        let mut sum = Self::default();
        for tally in all {
            sum.lost += tally.lost;
            for (language, (kills, in_doubt)) in tally.kills {
                sum.count(language, kills, in_doubt);
            }
        }
        sum
    }

    fn count(&mut self, language: Language, kills: usize, in_doubt: usize) {
        let counted = self.kills.entry(language).or_default();
        *counted = (counted.0 + kills, counted.1 + in_doubt);
    }

    fn assert_it_hit(&self) {
        let (kills, in_doubt) = self.kills.values().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        let each: Vec<_> = self.kills.iter().map(|(language, it)| format!("{language:?} {}/{}", it.1, it.0)).collect();
        println!(
            "{kills} kills, {in_doubt} left a renewal in doubt ({}), {} sessions lost and explained",
            each.join(", "),
            self.lost
        );
        assert!(in_doubt * 5 >= kills, "only {in_doubt} of {kills} kills fell inside a renewal");
        let misses = self.kills.values().filter(|it| it.0 > 100 && it.1 * 10 < it.0);
        assert_eq!(misses.count(), 0, "workers in one language were not hit");
    }
}

/// The session of one lane: its user at the server has the same name.
struct Lane<'a> {
    stage: &'a Stage,
    session: String,
    random: Random,
    tally: Tally,
}

impl Lane<'_> {
    fn sign_in(&self) -> String {
        json!({"refresh_token": self.stage.server.sign_in("client", &self.session, "api").refresh_token}).to_string()
    }

    /// Starts workers that renew without a pause, and kills them.
    fn play(mut self, kills: usize, may_lose: bool) -> Tally {
        self.stage.open(json!({})).call(&["save", &self.session, &self.sign_in()]).ok();
        let mut attempt = Value::Null;
        let mut killed = None;
        for kill in 0..=kills {
            let language = Language::any(&self.random);
            let worker = self.stage.open_in(language, json!({}));
            let described = worker.call(&["describe", &self.session]).ok();
            if described["state"] == "ended" {
                assert!(may_lose, "lost after {kill} kills: {described}");
                assert_rotated_without_a_commit(&described, &self.stage.family(&self.session));
                self.tally.lost += 1;
                worker.call(&["save", &self.session, &self.sign_in()]).ok();
            }
            // Unless it is the one that the kill before this one left behind.
            let in_doubt = !described["attempt"].is_null() && described["attempt"]["owner"] != attempt["owner"];
            if let Some(language) = killed.replace(language) {
                self.tally.count(language, 1, in_doubt.into());
            }
            attempt = described["attempt"].clone();
            if kill == kills {
                break;
            }
            let renewals = worker.tell(&["repeat", "renew", &self.session]);
            thread::sleep(Duration::from_micros(self.random.below(40_000)));
            worker.kill();
            if may_lose {
                self.stage.wait_until_the_server_is_idle();
            }
            if let Some(reply) = worker.reply_if_any(&renewals) {
                assert!(may_lose, "after {kill} kills: {reply:?}");
                reply.failure("SIGN_IN_REQUIRED");
                assert_eq!(reply.answer["reason"], "rotation_lost", "after {kill} kills: {reply:?}");
            }
        }
        self.tally
    }

    /// Kills a worker in a renewal that the server has read, kills another one while it replays that, and has a third one
    /// heal it.
    fn play_replays(mut self, rounds: usize, may_lose: bool) -> Tally {
        let anybody = || {
            let language = Language::any(&self.random);
            (language, self.stage.open_in(language, json!({})))
        };
        anybody().1.call(&["save", &self.session, &self.sign_in()]).ok();
        for round in 0..rounds {
            let (language, first) = anybody();
            // The server has rotated, or it has not; nobody gets its answer.
            let rotated = self.random.below(2) == 0;
            self.stage.server.fault(match rotated {
                true => FaultKind::Slow { bytes_per_s: None, total_ms: Some(60_000) },
                false => FaultKind::Hang,
            });
            let requests = self.stage.server.stats();
            first.tell(&["renew", &self.session]);
            wait_for("the request", || {
                let stats = self.stage.server.stats();
                let done = stats.token_requests_processed - requests.token_requests_processed;
                (stats.token_requests > requests.token_requests && (done == 1) == rotated).then_some(())
            });
            first.kill();
            self.tally.count(language, 1, 1);
            self.stage.wait_until_the_server_is_idle();

            let (language, second) = anybody();
            let doubt = second.call(&["describe", &self.session]).ok()["attempt"].clone();
            assert!(!doubt.is_null(), "round {round}: sent without a claim");
            second.tell(&["renew", &self.session]);
            thread::sleep(Duration::from_micros(self.random.below(15_000)));
            second.kill();
            self.stage.wait_until_the_server_is_idle();

            let (_, third) = anybody();
            let attempt = third.call(&["describe", &self.session]).ok()["attempt"].clone();
            let in_doubt = !attempt.is_null() && attempt["owner"] != doubt["owner"];
            self.tally.count(language, 1, in_doubt.into());
            let reply = third.call(&["renew", &self.session]);
            if reply.status != "OK" {
                assert!(may_lose, "round {round}: {reply:?}");
                reply.failure("SIGN_IN_REQUIRED");
                let described = third.call(&["describe", &self.session]).ok();
                assert_rotated_without_a_commit(&described, &self.stage.family(&self.session));
                self.tally.lost += 1;
                third.call(&["save", &self.session, &self.sign_in()]).ok();
                third.call(&["renew", &self.session]).ok();
            }
        }
        self.tally
    }
}

/// The only way to lose a session: the server had issued a successor that the store never got, so that the replay
/// presented a used token.
pub fn assert_rotated_without_a_commit(described: &Value, family: &FamilyView) {
    assert_eq!(described["reason"], "rotation_lost", "{described}");
    assert_eq!(family.revoked.as_ref().map(|revoked| revoked.why), Some("reuse"), "{family:?}");
    let [.., committed, successor] = &family.refresh_tokens[..] else { panic!("never rotated: {family:?}") };
    assert_eq!(described["generation"], committed.generation, "{described} {family:?}");
    // More than twice if replays were killed, too.
    assert!(committed.presentations >= 2 && successor.presentations == 0, "{described} {family:?}");
}

fn lane(stage: &Stage, number: u64) -> Lane<'_> {
    Lane { stage, session: format!("user-{number}"), random: stage.random(number), tally: Tally::default() }
}

/// Kills the workers of these lanes; every session that there is in the end can be renewed.
fn kill(stage: &Stage, lanes: Range<u64>, kills: usize, may_lose: bool) -> Tally {
    stage.server.update(|options| options.latency_ms = 4);
    let all = thread::scope(|scope| {
        let playing: Vec<_> =
            lanes.clone().map(|number| scope.spawn(move || lane(stage, number).play(kills, may_lose))).collect();
        Tally::of(playing.into_iter().map(|lane| lane.join().expect("a lane")))
    });
    let worker = stage.open(json!({}));
    for number in lanes {
        let reply = worker.call(&["renew", &format!("user-{number}")]);
        assert!(reply.status == "OK" || may_lose && reply.answer["reason"] == "rotation_lost", "{reply:?}");
    }
    all
}

/// A server and a store for each lane.
fn apart(rotation: Rotation, play: impl Fn(&Stage, u64) -> Tally + Sync) -> Tally {
    let play = &play;
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|number| scope.spawn(move || play(&Stage::new(rotation), number))).collect();
        Tally::of(lanes.into_iter().map(|lane| lane.join().expect("a lane")))
    })
}

#[test]
fn kill_9_at_any_moment_loses_nothing_where_a_used_token_still_answers() {
    let stage = Stage::new(GRACE);
    kill(&stage, 0..LANES, kills(), false).assert_it_hit();
    assert_eq!(stage.server.families().len(), LANES as usize);
    assert_eq!(stage.server.stats().reuses, 0);
}

#[test]
fn kill_9_loses_a_session_only_where_the_server_had_rotated_and_the_reply_was_not_committed() {
    // Each lane waits until its server has dealt with the dead worker's request.
    let all = apart(STRICT, |stage, number| kill(stage, number..number + 1, kills(), true));
    all.assert_it_hit();
    // Otherwise this test has shown nothing.
    assert!(all.lost > 0);
}

fn kill_replays(stage: &Stage, number: u64, may_lose: bool) -> Tally {
    stage.server.update(|options| options.latency_ms = 4);
    lane(stage, number).play_replays(kills() / 5, may_lose)
}

#[test]
fn kill_9_during_a_replay_loses_nothing_where_a_used_token_still_answers() {
    let all = apart(GRACE, |stage, number| {
        let tally = kill_replays(stage, number, false);
        assert_eq!((stage.server.families().len(), stage.server.stats().reuses), (1, 0));
        tally
    });
    all.assert_it_hit();
}

#[test]
fn kill_9_during_a_replay_loses_a_session_only_where_the_server_had_rotated_without_a_commit() {
    let all = apart(STRICT, |stage, number| kill_replays(stage, number, true));
    all.assert_it_hit();
    assert!(all.lost > 0);
}
