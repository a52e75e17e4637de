//! kill -9 at random moments of renewals.

use std::env;
use std::ops::Range;
use std::thread;
use std::time::Duration;

use evergrant_test_server::FamilyView;
use serde_json::{Value, json};

use crate::stage::{GRACE, Random, STRICT, Stage};

/// Sessions that are killed at the same time, each by its own worker, in one store.
const LANES: u64 = 4;

/// For each session: EVERGRANT_KILLS in all, `make prove` has more.
fn kills() -> usize {
    let all = env::var("EVERGRANT_KILLS").map_or(500, |all| all.parse().expect("EVERGRANT_KILLS is a number"));
    all / LANES as usize
}

#[derive(Default)]
struct Tally {
    kills: usize,
    /// The kill left an attempt behind.
    in_doubt: usize,
    lost: usize,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.kills += other.kills;
        self.in_doubt += other.in_doubt;
        self.lost += other.lost;
    }

    fn assert_it_hit(&self) {
        let Self { kills, in_doubt, lost } = self;
        println!("{kills} kills, {in_doubt} left a renewal in doubt, {lost} sessions lost");
        assert!(in_doubt * 5 >= *kills, "only {in_doubt} of {kills} kills fell inside a renewal");
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
        for kill in 0..=kills {
            let worker = self.stage.open(json!({}));
            let described = worker.call(&["describe", &self.session]).ok();
            if described["state"] == "ended" {
                assert!(may_lose, "lost after {kill} kills: {described}");
                assert_rotated_without_a_commit(&described, &self.stage.family(&self.session));
                self.tally.lost += 1;
                worker.call(&["save", &self.session, &self.sign_in()]).ok();
            }
            // Unless it is the one that the kill before this one left behind.
            self.tally.in_doubt +=
                usize::from(!described["attempt"].is_null() && described["attempt"]["owner"] != attempt["owner"]);
            attempt = described["attempt"].clone();
            if kill == kills {
                break;
            }
            let renewals = worker.tell(&["repeat", "renew", &self.session]);
            thread::sleep(Duration::from_micros(self.random.below(40_000)));
            worker.kill();
            self.tally.kills += 1;
            if may_lose {
                self.stage.wait_until_the_server_is_idle();
            }
            if let Some(reply) = worker.reply_if_any(&renewals) {
                assert!(may_lose, "after {kill} kills: {reply:?}");
                reply.failure("SIGN_IN_REQUIRED");
                assert_eq!(reply.answer["reason"], "rotation_lost", "{reply:?}");
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

/// Kills the workers of these lanes; every session that there is in the end can be renewed.
fn kill(stage: &Stage, lanes: Range<u64>, kills: usize, may_lose: bool) -> Tally {
    stage.server.update(|options| options.latency_ms = 4);
    let mut all = Tally::default();
    thread::scope(|scope| {
        let playing: Vec<_> = lanes
            .clone()
            .map(|number| {
                let session = format!("user-{number}");
                let lane = Lane { stage, session, random: stage.random(number), tally: Tally::default() };
                scope.spawn(move || lane.play(kills, may_lose))
            })
            .collect();
        playing.into_iter().for_each(|lane| all.add(&lane.join().expect("a lane")));
    });
    let worker = stage.open(json!({}));
    for number in lanes {
        let reply = worker.call(&["renew", &format!("user-{number}")]);
        assert!(reply.status == "OK" || may_lose && reply.answer["reason"] == "rotation_lost", "{reply:?}");
    }
    all
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
    let mut all = Tally::default();
    thread::scope(|scope| {
        // A server for each, so that each can wait until the dead worker's request has been dealt with.
        let lanes =
            (0..LANES).map(|number| scope.spawn(move || kill(&Stage::new(STRICT), number..number + 1, kills(), true)));
        let lanes: Vec<_> = lanes.collect();
        lanes.into_iter().for_each(|lane| all.add(&lane.join().expect("a lane")));
    });
    all.assert_it_hit();
    // Otherwise this test has shown nothing.
    assert!(all.lost > 0);
}
