//! The decide table: each of its rows with every want, and the early window.

use evergrant::config::{EarlyRenewal, LostReply};
use evergrant::session::protocol::{
    Correction, Decision, HANG_LIMIT_MS, Party, Policy, Refusal, Situation, Want, claim, decide, place_in_window,
};
use evergrant::session::record::{Attempt, BackOff, Binds, Id, Record, State};
use evergrant::store::{Life as OwnerLife, Now};
use evergrant::token::{Expiry, Life};

use crate::parts::*;

const POLICY: Policy = Policy {
    renews: true,
    lost_reply: LostReply::Replay,
    early_renewal: EarlyRenewal::Background,
    renew_before_ms: None,
    local: true,
    jitter: 0,
};

/// What a party finds, and what it knows.
#[derive(Clone)]
struct Scene {
    record: Option<Record>,
    owner: OwnerLife,
    runs_here: bool,
    seen: Option<Record>,
    policy: Policy,
    now: Now,
}

impl Scene {
    fn new(record: Record) -> Self {
        let record = Some(record);
        Self { record, owner: OwnerLife::Alive, runs_here: false, seen: None, policy: POLICY, now: now() }
    }

    fn decide(&self, want: &Want) -> Decision {
        let party = Party { owner: owner(ME), configuration: "mine".to_owned(), policy: self.policy };
        let situation = Situation {
            record: self.record.as_ref(),
            now: &self.now,
            wall_ms: WALL_MS,
            party: &party,
            owner: self.owner,
            runs_here: self.runs_here,
            seen: self.seen.as_ref(),
        };
        decide(&situation, want)
    }

    fn record(&mut self) -> &mut Record {
        self.record.as_mut().expect("a record")
    }
}

fn first_send() -> Decision {
    Decision::Claim { sends: 1 }
}

fn replay(sends: u32) -> Decision {
    Decision::Claim { sends }
}

fn sign_in(reason: &str) -> Decision {
    Decision::Refuse(Refusal::SignIn { reason: reason.to_owned() })
}

fn backed_off(binds: Binds, doubt: bool) -> Decision {
    Decision::Refuse(Refusal::BackOff {
        retry_after_ms: 4_000,
        cause: "the server is down".to_owned(),
        reason: "server_unavailable".to_owned(),
        binds,
        doubt,
    })
}

/// Every want; the names are those of the columns in [`wanted`].
fn wants() -> Vec<Want> {
    let seen = |generation| Some((GRANT, generation));
    vec![
        Want::Token { min_valid_ms: 0 },
        Want::Token { min_valid_ms: 7_200_000 },
        Want::OtherThan(secret("at-5")),
        Want::OtherThan(secret("at-4")),
        Want::Newer { than: None, anyway: false },
        Want::Newer { than: seen(G), anyway: false },
        Want::Newer { than: seen(G - 1), anyway: false },
        Want::Newer { than: Some((Id(0xb2), G)), anyway: false },
        Want::Newer { than: None, anyway: true },
        Want::Newer { than: seen(G), anyway: true },
        Want::Newer { than: seen(G - 1), anyway: true },
        Want::NoDoubt,
    ]
}

/// The access token of an active record.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Token {
    Good,
    Early,
    Endless,
    Expired,
    Absent,
}

impl Token {
    fn put(self, record: &mut Record) {
        let until =
            |ms| Some(Life { from_ms: WALL_MS - 3_600_000, until_ms: Some(WALL_MS + ms), expiry: Expiry::Known });
        match self {
            Token::Good => {}
            Token::Early => record.life = until(60_000),
            Token::Endless => record.life = None,
            Token::Expired => record.life = until(0),
            Token::Absent => (record.life, record.secrets.access_token) = (None, None),
        }
    }
}

/// What a want comes to, where a renewal comes to `renew`, and to `anyway` for one who insists.
fn wanted(want: &Want, token: Token, scene: &Scene, renew: &Decision, anyway: &Decision) -> Decision {
    let valid = !matches!(token, Token::Expired | Token::Absent);
    let early = match renew {
        Decision::Claim { sends } if token == Token::Early => Some(*sends),
        _ => None,
    };
    match want {
        Want::Token { min_valid_ms: 0 } if valid => Decision::Serve { early },
        // No life is long enough but one that nobody knows.
        Want::Token { .. } if token == Token::Endless => Decision::Serve { early: None },
        Want::OtherThan(rejected) if valid && *rejected == secret("at-4") => Decision::Adopt,
        Want::Newer { than: Some((grant, generation)), .. } if valid && (*grant != GRANT || *generation < G) => {
            Decision::Adopt
        }
        Want::Newer { anyway: true, .. } => anyway.clone(),
        // A barrier is nobody's doubt.
        Want::NoDoubt
            if scene
                .record
                .as_ref()
                .is_some_and(|record| record.attempt.as_ref().is_none_or(|it| it.generation < G)) =>
        {
            Decision::Serve { early: None }
        }
        _ => renew.clone(),
    }
}

/// An active record that must be renewed: what is found, what it comes to, and for one who insists.
fn renewals() -> Vec<(&'static str, Scene, Decision, Decision)> {
    use OwnerLife::{Dead, Unknown};
    let mut cases = vec![];
    let mut add = |name, scene: Scene, renew: Decision, anyway: Decision| cases.push((name, scene, renew, anyway));
    let found = |attempt: Attempt| Scene::new(Record { attempt: Some(attempt), ..record() });
    let late = |scene: Scene, ms| Scene { now: Now { ms: NOW_MS - 5_000 + LEASE_MS + ms, ..now() }, ..scene };
    let shared = |scene: Scene| Scene { policy: Policy { local: false, ..scene.policy }, ..scene };
    let open = || found(attempt(THEIRS, G));
    let mine = || found(attempt(MINE, G));
    let doubt = |sends| found(in_doubt(Attempt { sends, ..attempt(THEIRS, G) }));
    let barrier = || found(Attempt { sends: 7, ..attempt(THEIRS, G - 1) });

    add("attempt none", Scene::new(record()), first_send(), first_send());

    for (name, scene, expected) in [
        ("open", open(), Decision::Wait),
        ("open, owner unknown", Scene { owner: Unknown, ..open() }, Decision::Wait),
        ("open, owner dead", Scene { owner: Dead, ..open() }, replay(2)),
        ("a moment before the deadline", late(Scene { owner: Unknown, ..open() }, -1), Decision::Wait),
        ("at the deadline", late(Scene { owner: Unknown, ..open() }, 0), replay(2)),
        ("at the deadline, shared", shared(late(Scene { owner: Unknown, ..open() }, 0)), replay(2)),
        ("at the deadline, owner alive", late(open(), 0), Decision::Wait),
        ("a moment before the hang limit", late(open(), HANG_LIMIT_MS - 1), Decision::Wait),
        ("at the hang limit", late(open(), HANG_LIMIT_MS), replay(2)),
        ("at the hang limit, shared, owner alive", shared(late(open(), HANG_LIMIT_MS)), Decision::Wait),
        ("mine, it runs", Scene { runs_here: true, ..mine() }, Decision::Wait),
        ("mine, it hangs", late(Scene { runs_here: true, ..mine() }, HANG_LIMIT_MS), Decision::Wait),
        // Its claim was written though the store said that it was not.
        ("mine, it does not run", mine(), replay(2)),
        ("in doubt", doubt(1), replay(2)),
        ("in doubt, owner unknown", Scene { owner: Unknown, ..doubt(1) }, replay(2)),
        ("in doubt, replayed before", doubt(4), replay(5)),
        ("in doubt, replayed without end", doubt(u32::MAX), replay(u32::MAX)),
        ("barrier", barrier(), Decision::Wait),
        ("barrier, owner dead", Scene { owner: Dead, ..barrier() }, first_send()),
        ("barrier, at the deadline", late(Scene { owner: Unknown, ..barrier() }, 0), first_send()),
        ("barrier in doubt", found(in_doubt(attempt(THEIRS, G - 1))), first_send()),
    ] {
        add(name, scene, expected.clone(), expected);
    }

    // renews: false never spends a refresh token, also not for one who insists.
    for scene in [Scene::new(record()), open(), doubt(1), barrier(), Scene { owner: Dead, ..open() }] {
        let policy = Policy { renews: false, ..POLICY };
        add("renews: false", Scene { policy, ..scene }, Decision::Wait, Decision::Wait);
    }

    // lost_reply: sign_in ends a doubt instead of replaying it, and nothing else.
    let policy = Policy { lost_reply: LostReply::SignIn, ..POLICY };
    let ends = |scene: &Scene| {
        let next = with(scene.record.clone().expect("a record"), |record| {
            record.version += 1;
            record.state = State::Ended;
            record.reason = Some("rotation_lost".to_owned());
            record.attempt = None;
            record.back_off = None;
        });
        Decision::Write(Box::new(next), Correction::DoubtEnded)
    };
    for scene in [doubt(1), Scene { owner: Dead, ..open() }, mine()] {
        let expected = ends(&scene);
        add("lost_reply: sign_in", Scene { policy, ..scene }, expected.clone(), expected);
    }
    for (scene, expected) in [
        (Scene::new(record()), first_send()),
        (open(), Decision::Wait),
        (Scene { owner: Dead, ..barrier() }, first_send()),
        (Scene { policy: Policy { renews: false, ..policy }, ..doubt(1) }, Decision::Wait),
    ] {
        let policy = Policy { lost_reply: LostReply::SignIn, ..scene.policy };
        add("lost_reply: sign_in", Scene { policy, ..scene }, expected.clone(), expected);
    }

    // Who is bound waits, unless he insists.
    let host = |name: &str| Binds::Host(name.to_owned());
    let configuration = |name: &str| Binds::Configuration(name.to_owned());
    let wait = |scene: Scene, back_off: BackOff| with(scene, |scene| scene.record().back_off = Some(back_off));
    for binds in [Binds::All, host("here"), configuration("mine")] {
        let back_off = back_off(binds.clone());
        add("bound", wait(Scene::new(record()), back_off.clone()), backed_off(binds.clone(), false), first_send());
        add("bound, in doubt", wait(doubt(1), back_off.clone()), backed_off(binds.clone(), true), replay(2));
        add("bound, open", wait(open(), back_off), backed_off(binds, true), Decision::Wait);
    }
    for back_off in [
        back_off(host("there")),
        back_off(configuration("theirs")),
        BackOff { until_ms: NOW_MS, ..back_off(Binds::All) },
        BackOff { until_ms: NOW_MS - 1, ..back_off(Binds::All) },
        // Moments of two clocks cannot be compared.
        BackOff { clock: "boot-0".to_owned(), ..back_off(Binds::All) },
    ] {
        add("not bound", wait(Scene::new(record()), back_off.clone()), first_send(), first_send());
        add("not bound, in doubt", wait(doubt(1), back_off), replay(2), replay(2));
    }

    for scene in [Scene::new(record()), doubt(1), open()] {
        let scene = with(scene, |scene| scene.record().secrets.refresh_token = None);
        add("no refresh token", scene, sign_in("no_refresh_token"), sign_in("no_refresh_token"));
    }
    cases
}

#[test]
fn an_active_record() {
    let mut inputs = 0;
    for (name, scene, renew, anyway) in renewals() {
        for token in [Token::Good, Token::Early, Token::Endless, Token::Expired, Token::Absent] {
            let scene = with(scene.clone(), |scene| token.put(scene.record()));
            // What is written instead of a replay is the record as it was found.
            let [renew, anyway] = [&renew, &anyway].map(|decision| match decision {
                Decision::Write(next, why) => {
                    Decision::Write(Box::new(with((**next).clone(), |next| token.put(next))), *why)
                }
                other => other.clone(),
            });
            for want in wants() {
                inputs += 1;
                let expected = wanted(&want, token, &scene, &renew, &anyway);
                assert_eq!(scene.decide(&want), expected, "{name}, {token:?} token, {want:?}");
            }
        }
    }
    assert!(inputs > 2_000, "{inputs} inputs");
}

#[test]
fn no_session() {
    let gone = |state| Record { state, ..record() };
    for (found, reason) in [
        (None, "no_session"),
        (Some(gone(State::Forgotten)), "no_session"),
        (Some(gone(State::SignedOut)), "signed_out"),
    ] {
        for want in wants() {
            // Not even a party that has seen a higher generation brings it back.
            let seen = Some(Record { generation: G + 1, ..record() });
            let scene = Scene { record: found.clone(), seen, ..Scene::new(record()) };
            assert_eq!(scene.decide(&want), sign_in(reason), "{want:?}");
        }
    }
}

#[test]
fn an_ended_session_stays_ended_unless_somebody_insists() {
    for reason in ["expired_or_revoked", "inactive_user", "rotation_lost", "no_refresh_token"] {
        let scene = Scene::new(ended(reason));
        for want in wants() {
            let insists = matches!(want, Want::Newer { anyway: true, .. });
            let heals = !matches!(reason, "rotation_lost" | "no_refresh_token");
            let expected = if insists && heals { first_send() } else { sign_in(reason) };
            assert_eq!(scene.decide(&want), expected, "{reason}, {want:?}");
        }
    }
    let insist = Want::Newer { than: None, anyway: true };
    let scene = Scene::new(Record { reason: None, ..ended("") });
    assert_eq!(scene.decide(&Want::NoDoubt), sign_in("expired_or_revoked"), "a reason that is missing");
    let scene = Scene { policy: Policy { renews: false, ..POLICY }, ..Scene::new(ended("inactive_user")) };
    assert_eq!(scene.decide(&insist), Decision::Wait);
}

/// A store that went back in time has a token that is spent: what was seen is written back, and nothing is sent.
#[test]
fn a_store_that_went_back_in_time_is_healed() {
    let seen = with(full_record(), |seen| {
        seen.version = 90;
        seen.generation = G + 2;
        seen.renewed_at_ms = WALL_MS + 5;
        seen.life = Some(NEW_LIFE);
        seen.made_by = None;
        seen.secrets.refresh_token = Some(secret("rt-7"));
        seen.secrets.access_token = Some(secret("at-7"));
        seen.secrets.members = Some(secret(r#"{"access_token":"at-7"}"#));
    });
    for (found, version) in [
        (record(), 91),
        (Record { version: 200, ..record() }, 201),
        (ended("expired_or_revoked"), 91),
        (Record { attempt: Some(attempt(THEIRS, G)), ..record() }, 91),
        (with(record(), |record| record.secrets.spare = Some(secret("spare"))), 91),
    ] {
        let healed = with(found.clone(), |record| {
            record.version = version;
            record.generation = G + 2;
            (record.state, record.reason) = (State::Active, None);
            record.renewed_at_ms = WALL_MS + 5;
            record.life = Some(NEW_LIFE);
            record.made_by = None;
            record.attempt = None;
            record.signature_mismatch = seen.signature_mismatch;
            record.secrets.spare = None;
            record.secrets.refresh_token = Some(secret("rt-7"));
            record.secrets.access_token = Some(secret("at-7"));
            record.secrets.members = Some(secret(r#"{"access_token":"at-7"}"#));
            keep(&mut record.known.spent, fingerprint(&found, "rt-5"));
        });
        let scene = Scene { seen: Some(seen.clone()), ..Scene::new(found) };
        for want in wants() {
            let Decision::Write(next, Correction::RolledBack) = scene.decide(&want) else { panic!("{want:?}") };
            assert_same("healed", Some(&next), Some(&healed));
        }
    }
    // What has ended comes back as it ended.
    let over = Record { state: State::Ended, reason: Some("inactive_user".to_owned()), ..seen.clone() };
    let scene = Scene { seen: Some(over), ..Scene::new(record()) };
    let Decision::Write(next, _) = scene.decide(&Want::NoDoubt) else { panic!("not healed") };
    assert_eq!((next.state, next.reason.as_deref()), (State::Ended, Some("inactive_user")));
    let want = Want::Newer { than: None, anyway: false };
    let scene = Scene { seen: Some(seen.clone()), ..Scene::new(record()) };
    let scene = Scene { policy: Policy { renews: false, ..POLICY }, ..scene };
    assert_eq!(scene.decide(&want), Decision::Wait, "renews: false writes nothing");
    for seen in [
        Record { generation: G, ..seen.clone() },
        Record { generation: G - 1, ..seen.clone() },
        Record { grant: Id(0xb2), ..seen }, // a later sign-in is no step back
    ] {
        assert_eq!(Scene { seen: Some(seen), ..Scene::new(record()) }.decide(&want), first_send());
    }
}

#[test]
fn a_claim_is_a_record_with_an_attempt() {
    let attempt = attempt(MINE, G);
    for before in [full_record(), ended("inactive_user")] {
        let expected = with(before.clone(), |record| {
            record.version += 1;
            record.state = State::Active; // a session that had ended keeps its reason until the server has answered
            record.attempt = Some(attempt.clone());
        });
        assert_same("claimed", Some(&claim(&before, attempt.clone())), Some(&expected));
    }
}

#[test]
fn a_try_past_an_end_serves_nothing_until_it_is_answered() {
    let mut tried = claim(&ended("inactive_user"), attempt(MINE, G));
    tried.secrets.access_token = Some(evergrant::Secret::new("old"));
    assert!(!tried.serves(WALL_MS, 0));
}

#[test]
fn early_renewal_can_be_switched_off() {
    let want = Want::Token { min_valid_ms: 0 };
    for (early_renewal, expected) in
        [(EarlyRenewal::Background, Some(1)), (EarlyRenewal::Wait, Some(1)), (EarlyRenewal::Off, None)]
    {
        let scene = with(Scene::new(record()), |scene| {
            Token::Early.put(scene.record());
            scene.policy.early_renewal = early_renewal;
        });
        assert_eq!(scene.decide(&want), Decision::Serve { early: expected }, "{early_renewal:?}");
    }
}

const MINUTE_MS: i64 = 60_000;

/// How long before its end a token that lives this long is renewed.
fn early_before_ms(length_ms: i64, renew_before_ms: Option<i64>, jitter: i64) -> i64 {
    let life = Life { from_ms: WALL_MS, until_ms: Some(WALL_MS + length_ms), expiry: Expiry::Known };
    let policy = Policy { renew_before_ms, jitter, ..POLICY };
    WALL_MS + length_ms - policy.early_from_ms(&life).expect("an early window")
}

#[test]
fn the_early_window_is_scaled_to_the_life() {
    for (length, renew_before, expected) in [
        (60 * MINUTE_MS, None, 10 * MINUTE_MS), // ten minutes at most
        (24 * 60 * MINUTE_MS, None, 10 * MINUTE_MS),
        (5 * MINUTE_MS, None, MINUTE_MS), // a fifth
        (0, None, 0),
        (-MINUTE_MS, None, 0), // a clock was set back in between
        (60 * MINUTE_MS, Some(5 * MINUTE_MS), 5 * MINUTE_MS),
        (60 * MINUTE_MS, Some(45 * MINUTE_MS), 30 * MINUTE_MS), // half of the life at most
        (60 * MINUTE_MS, Some(0), 0),
    ] {
        assert_eq!(early_before_ms(length, renew_before, 0), expected, "{length}, {renew_before:?}");
    }
}

/// 100,000 sessions that were signed in within a minute, each used by 16 processes, whose earliest renews.
#[test]
fn a_fleet_spreads_its_renewals() {
    const SESSIONS: u64 = 100_000;
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut minutes = std::collections::BTreeMap::<i64, u64>::new();
    for _ in 0..SESSIONS {
        let from_ms = (random() % 60_000) as i64;
        let life = Life { from_ms, until_ms: Some(from_ms + 60 * MINUTE_MS), expiry: Expiry::Known };
        let grant = Id(u128::from(random()));
        let earliest = (0..16)
            .filter_map(|_| {
                let jitter = place_in_window(grant, (random() & 1023) as i64);
                Policy { jitter, ..POLICY }.early_from_ms(&life)
            })
            .min()
            .expect("it renews early");
        *minutes.entry(earliest / MINUTE_MS).or_default() += 1;
    }
    let most = minutes.values().max().expect("some");
    assert!(*most < SESSIONS / 3, "{minutes:?}");
}

#[test]
fn jitter_spreads_the_early_window() {
    for (renew_before, window, latest) in
        [(None, 10 * MINUTE_MS, 5 * MINUTE_MS), (Some(5 * MINUTE_MS), 5 * MINUTE_MS, 4 * MINUTE_MS)]
    {
        let starts: Vec<i64> = (0..1024).map(|jitter| early_before_ms(60 * MINUTE_MS, renew_before, jitter)).collect();
        assert!(starts.is_sorted_by(|a, b| a > b), "each place is another moment");
        assert_eq!(starts[0], window);
        assert!(starts[1023] > latest && starts[1023] < latest + 1_000, "{}", starts[1023]);
    }
}

#[test]
fn an_unknown_end_has_no_early_window() {
    let life = Life { from_ms: WALL_MS, until_ms: None, expiry: Expiry::Unknown };
    assert_eq!(POLICY.early_from_ms(&life), None);
    let known = Life { until_ms: Some(WALL_MS + MINUTE_MS), ..life };
    assert_eq!(Policy { early_renewal: EarlyRenewal::Off, ..POLICY }.early_from_ms(&known), None);
}

#[test]
fn a_record_serves_while_its_token_is_valid() {
    let until = |until_ms| Some(Life { from_ms: WALL_MS, until_ms, expiry: Expiry::Known });
    for (life, wall_ms, min_valid_ms, expected) in [
        (until(Some(WALL_MS)), WALL_MS - 1, 0, true),
        (until(Some(WALL_MS)), WALL_MS, 0, false),
        (until(Some(WALL_MS)), WALL_MS - 1_000, 999, true),
        (until(Some(WALL_MS)), WALL_MS - 1_000, 1_000, false),
        (until(Some(WALL_MS)), 1, i64::MAX, false),
        (until(None), WALL_MS, i64::MAX, true),
        (None, WALL_MS, i64::MAX, true),
    ] {
        let good = Record { life, ..record() };
        assert_eq!(good.serves(wall_ms, min_valid_ms), expected, "{life:?} at {wall_ms} for {min_valid_ms}");
        let absent = with(good.clone(), |record| record.secrets.access_token = None);
        assert!(!absent.serves(wall_ms, min_valid_ms));
        for state in [State::Ended, State::SignedOut, State::Forgotten] {
            assert!(!Record { state, ..good.clone() }.serves(wall_ms, min_valid_ms), "{state:?}");
        }
    }
}
