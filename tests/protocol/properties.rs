//! What holds for every record, answer and situation. The alphabets are small, so that tokens, attempts, grants and
//! generations collide.

use evergrant::Secret;
use evergrant::config::{EarlyRenewal, LostReply};
use evergrant::oauth::{Failure, Outcome};
use evergrant::session::fingerprint::Fingerprints;
use evergrant::session::protocol::{
    Correction, Decision, Fresh, HANG_LIMIT_MS, KEPT, Moment, Party, Policy, Refusal, Sent, Situation, Want, claim,
    decide, forget, revoked, save, settle, sign_out,
};
use evergrant::session::record::{Attempt, BackOff, Binds, Entry, Id, Known, MadeBy, Owner, Record, Secrets, State};
use evergrant::store::{Life as OwnerLife, Now};
use evergrant::token::{Answer, Expiry, Life};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngSeed};
use serde_json::Map;

use crate::parts::*;

/// The same cases in every run, unless the environment asks for others (PROPTEST_RNG_SEED) or for more
/// (PROPTEST_CASES).
pub fn config(cases: u32) -> Config {
    let environment = Config::default();
    let rng_seed = match environment.rng_seed {
        RngSeed::Random => RngSeed::Fixed(0x5e55_1035),
        given => given,
    };
    Config {
        cases: environment.cases.max(cases),
        max_global_rejects: u32::MAX,
        rng_seed,
        failure_persistence: None,
        ..environment
    }
}

const CASES: u32 = 2_500;
/// The property says nothing of this case: it does not count.
fn skip() -> Result<(), TestCaseError> {
    Err(TestCaseError::reject("says nothing"))
}

/// No other text contains it.
const CANARY: &str = "canary";

fn any_token() -> impl Strategy<Value = Secret> {
    (0..6).prop_map(|n| Secret::new(format!("{CANARY}-{n}")))
}

fn any_grant() -> impl Strategy<Value = Id> {
    select(vec![GRANT, GRANT, GRANT, Id(0xb2)])
}

fn any_generation() -> impl Strategy<Value = u64> {
    3..=8u64
}

fn any_owner() -> impl Strategy<Value = Owner> {
    select(vec![ME, OTHER, 0xcc]).prop_map(owner)
}

fn any_binds() -> impl Strategy<Value = Binds> {
    let text = || select(vec!["here".to_owned(), "there".to_owned()]);
    prop_oneof![Just(Binds::All), text().prop_map(Binds::Host), text().prop_map(Binds::Configuration)]
}

fn any_attempt() -> impl Strategy<Value = Attempt> {
    let moment = -2 * LEASE_MS..2 * LEASE_MS;
    (1..4u128, any_generation(), any_owner(), moment, 1..5u32, any::<bool>()).prop_map(
        |(id, generation, owner, offset_ms, sends, doubt)| Attempt {
            id: Id(id),
            generation,
            owner,
            since_ms: NOW_MS + offset_ms - LEASE_MS,
            until_ms: NOW_MS + offset_ms,
            sends,
            doubt,
            others: Map::new(),
        },
    )
}

fn any_back_off() -> impl Strategy<Value = BackOff> {
    let clock = select(vec!["boot-1", "boot-0"]).prop_map(str::to_owned);
    (-5_000..5_000i64, clock, 0..20u32, any_binds()).prop_map(|(offset_ms, clock, count, binds)| BackOff {
        until_ms: NOW_MS + offset_ms,
        clock,
        count,
        ..back_off(binds)
    })
}

fn any_life() -> impl Strategy<Value = Life> {
    (0..7_200_000i64, option::weighted(0.8, -3_600_000..3_600_000i64)).prop_map(|(age_ms, left_ms)| Life {
        from_ms: WALL_MS - age_ms,
        until_ms: left_ms.map(|ms| WALL_MS + ms),
        expiry: if left_ms.is_some() { Expiry::Known } else { Expiry::Unknown },
    })
}

fn any_state() -> impl Strategy<Value = (State, Option<String>)> {
    let reason = select(vec!["expired_or_revoked", "inactive_user", "rotation_lost", "no_refresh_token"]);
    prop_oneof![
        6 => Just((State::Active, None)),
        3 => reason.prop_map(|reason| (State::Ended, Some(reason.to_owned()))),
        1 => Just((State::SignedOut, None)),
        1 => Just((State::Forgotten, None)),
        1 => Just((State::Moving, None)),
        1 => Just((State::Moved, None)),
    ]
}

fn any_record() -> impl Strategy<Value = Record> {
    let made_by = (1..4u128, 1..5u32).prop_map(|(id, sends)| MadeBy { attempt: Id(id), sends });
    let protocol = (
        1..1_000i64,
        any_grant(),
        any_generation(),
        any_state(),
        option::of(any_attempt()),
        option::of(any_back_off()),
        option::of(made_by),
    );
    let secrets = (
        option::weighted(0.9, any_token()),
        option::weighted(0.8, any_token()),
        option::weighted(0.3, any_token()),
        vec(any_token(), 0..3),
    );
    let tokens = || vec(any_token(), 0..4);
    let rest = (option::of(any_life()), tokens(), tokens(), select(vec![0, 3, KEPT as i64]));
    (protocol, secrets, rest).prop_map(
        |(
            (version, grant, generation, (state, reason), attempt, back_off, made_by),
            (refresh_token, access_token, spare, to_revoke),
            (life, saved, spent, length),
        )| {
            let secrets = Secrets {
                refresh_token,
                members: access_token.clone(),
                access_token,
                spare,
                to_revoke,
                fingerprint_key: Secret::new(format!("{CANARY}-key")),
                others: Map::new(),
            };
            // Nobody claims for a generation that there is not, and only active records have attempts.
            let attempt = attempt.filter(|attempt| state == State::Active && attempt.generation <= generation);
            let history = (0..length).map(|at_ms| Entry { at_ms, ..entry("done") }.into()).collect();
            let secrets = match state {
                State::Active | State::Ended | State::Moving => secrets,
                State::SignedOut | State::Moved => Secrets {
                    to_revoke: secrets.to_revoke,
                    fingerprint_key: secrets.fingerprint_key,
                    ..Secrets::default()
                },
                State::Forgotten => Secrets::default(),
            };
            let mut record = Record {
                version,
                grant,
                generation,
                state,
                reason,
                life,
                attempt,
                back_off,
                made_by,
                secrets,
                history,
                known: Known::default(),
                ..record()
            };
            let fingerprints = Fingerprints::of(&record);
            for (list, tokens) in [(&mut record.known.saved, saved), (&mut record.known.spent, spent)] {
                list.extend((0..length).map(|n| format!("{n:016x}").into()));
                tokens.iter().for_each(|token| keep(list, fingerprints.of_token(token)));
            }
            record
        },
    )
}

fn any_answer() -> impl Strategy<Value = Answer> {
    (option::weighted(0.8, any_token()), option::weighted(0.8, any_token()), any::<bool>()).prop_map(
        |(refresh_token, access_token, signature_mismatch)| Answer {
            refresh_token,
            members: access_token.clone().unwrap_or_else(|| secret("{}")),
            access_token,
            expires_in_s: None,
            unusable: None,
            signature_mismatch,
        },
    )
}

fn any_failure() -> impl Strategy<Value = Failure> {
    (any_binds(), option::of(0..100_000u64), select(vec!["network", "expired_or_revoked", "server_unavailable"]))
        .prop_map(|(binds, retry_after_ms, reason)| Failure { retry_after_ms, ..failure(reason, binds) })
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => any_answer().prop_map(|answer| Outcome::Done(Box::new(answer))),
        1 => any_failure().prop_map(Outcome::NotSent),
        1 => any_failure().prop_map(Outcome::Refused),
        1 => any_failure().prop_map(Outcome::Busy),
        2 => any_failure().prop_map(Outcome::InvalidGrant),
        1 => any_failure().prop_map(Outcome::Unknown),
    ]
}

/// A presentation, and a record that it may find.
fn any_presentation() -> impl Strategy<Value = (Option<Record>, Sent)> {
    let sent = (1..4u128, any_grant(), any_generation(), 1..5u32, any_token());
    // Often a record that the presentation has something to do with: its generation and its attempt.
    let close = (any::<bool>(), 0..3u64, any::<bool>());
    (option::weighted(0.98, any_record()), sent, close).prop_map(
        |(mut record, (attempt, grant, generation, sends, refresh_token), (close, later, mine))| {
            let sent = Sent { attempt: Id(attempt), grant, generation, sends, refresh_token };
            let Some(record) = &mut record else { return (None, sent) };
            if close {
                record.grant = sent.grant;
                record.generation = sent.generation + later;
                if let Some(attempt) = &mut record.attempt {
                    attempt.id = if mine { sent.attempt } else { attempt.id };
                    attempt.generation = attempt.generation.min(record.generation);
                }
            }
            if is_mine(record, &sent) {
                // An attempt's generation and sends are those of its claim.
                let attempt = record.attempt.take().map(|attempt| Attempt { generation, sends, ..attempt });
                record.attempt = attempt.filter(|_| generation <= record.generation && record.grant == sent.grant);
            }
            if is_made_by(record, &sent) && record.generation != generation + 1 {
                record.made_by = None;
            }
            (Some(record.clone()), sent)
        },
    )
}

/// A presentation, and an active record of its grant with an attempt: mine, or another's.
fn any_attempted(mine: bool) -> impl Strategy<Value = (Record, Sent)> {
    let sent = (any_generation(), 1..5u32, any_token());
    (any_record(), any_attempt(), 0..3u64, 0..3u64, sent).prop_map(
        move |(record, attempt, later, barrier, (generation, sends, refresh_token))| {
            let sent = Sent { attempt: MINE, grant: GRANT, generation, sends, refresh_token };
            let record = Record {
                grant: GRANT,
                generation: generation + if mine { later / 2 } else { later },
                state: State::Active,
                reason: None,
                made_by: None,
                ..record
            };
            let attempt = if mine {
                Attempt { id: MINE, generation, sends, ..attempt }
            } else {
                Attempt { id: THEIRS, generation: record.generation - barrier, ..attempt }
            };
            (Record { attempt: Some(attempt), ..record }, sent)
        },
    )
}

fn any_unanswered() -> impl Strategy<Value = Outcome> {
    let outcome = select(vec![Outcome::NotSent, Outcome::Refused, Outcome::Busy, Outcome::Unknown]);
    (outcome, any_failure()).prop_map(|(outcome, failure)| outcome(failure))
}

fn is_made_by(record: &Record, sent: &Sent) -> bool {
    record.made_by.is_some_and(|by| by.attempt == sent.attempt)
}

fn is_mine(record: &Record, sent: &Sent) -> bool {
    record.attempt.as_ref().is_some_and(|attempt| attempt.id == sent.attempt)
}

fn holds(record: &Record, token: &Secret) -> bool {
    [&record.secrets.refresh_token, &record.secrets.spare].contains(&&Some(token.clone()))
}

/// The successor that a Done brings: the token that was sent is none.
fn successor<'a>(outcome: &'a Outcome, sent: &Sent) -> Option<&'a Secret> {
    match outcome {
        Outcome::Done(answer) => answer.refresh_token.as_ref().filter(|token| **token != sent.refresh_token),
        _ => None,
    }
}

fn settled(record: Option<&Record>, sent: &Sent, outcome: &Outcome) -> Option<Record> {
    settle(record, sent, outcome, &moment(&now()))
}

#[derive(Clone, Debug)]
struct Scene {
    record: Option<Record>,
    seen: Option<Record>,
    party: Party,
    owner: OwnerLife,
    runs_here: bool,
    now: Now,
}

impl Scene {
    fn decide(&self, want: &Want) -> Decision {
        let situation = Situation {
            record: self.record.as_ref(),
            now: &self.now,
            wall_ms: WALL_MS,
            party: &self.party,
            owner: self.owner,
            runs_here: self.runs_here,
            seen: self.seen.as_ref(),
        };
        decide(&situation, want)
    }

    /// Whether the exchange of this attempt may still go on.
    fn is_open(&self, attempt: &Attempt) -> bool {
        let late_ms = self.now.ms - attempt.until_ms;
        let hangs = self.party.policy.local && late_ms >= HANG_LIMIT_MS && !self.runs_here;
        let gone = attempt.owner.handle == Id(ME) && !self.runs_here;
        let may_live = match self.owner {
            OwnerLife::Alive => !hangs,
            OwnerLife::Unknown => late_ms < 0,
            OwnerLife::Dead => false,
        };
        !attempt.doubt && !gone && may_live
    }

    fn is_bound(&self, back_off: &BackOff) -> bool {
        let concerned = match &back_off.binds {
            Binds::All => true,
            Binds::Host(host) => host == "here",
            Binds::Configuration(configuration) => configuration == "here",
        };
        concerned && back_off.clock == self.now.clock && back_off.until_ms > self.now.ms
    }
}

fn any_scene() -> impl Strategy<Value = Scene> {
    let early = select(vec![EarlyRenewal::Background, EarlyRenewal::Wait, EarlyRenewal::Off]);
    let lost_reply = select(vec![LostReply::Replay, LostReply::Replay, LostReply::SignIn]);
    let policy = (prop::bool::weighted(0.85), lost_reply, early, option::of(0..600_000i64), any::<bool>(), 0..1024i64)
        .prop_map(|(renews, lost_reply, early_renewal, renew_before_ms, local, jitter)| Policy {
            renews,
            lost_reply,
            early_renewal,
            renew_before_ms,
            local,
            jitter,
        });
    let owner_life = select(vec![OwnerLife::Alive, OwnerLife::Dead, OwnerLife::Unknown]);
    let late = select(vec![0, 0, LEASE_MS, HANG_LIMIT_MS, HANG_LIMIT_MS + LEASE_MS]);
    let records = (option::weighted(0.98, any_record()), option::weighted(0.3, any_record()));
    (records, policy, owner_life, any::<bool>(), late).prop_map(|((record, seen), policy, life, runs_here, late_ms)| {
        let handle = record.as_ref().and_then(|record| record.attempt.as_ref()).map(|attempt| attempt.owner.handle);
        // Who decides is alive; nobody has seen a session without its refresh token.
        let runs_here = runs_here && handle == Some(Id(ME));
        let life = if runs_here { OwnerLife::Alive } else { life };
        let seen = seen.filter(|seen| seen.state == State::Active && seen.secrets.refresh_token.is_some());
        Scene {
            record,
            seen,
            party: Party { owner: owner(ME), configuration: "here".to_owned(), policy },
            owner: life,
            runs_here,
            now: Now { ms: NOW_MS + late_ms, ..now() },
        }
    })
}

fn any_want() -> impl Strategy<Value = Want> {
    prop_oneof![
        select(vec![0, 60_000, 7_200_000]).prop_map(|min_valid_ms| Want::Token { min_valid_ms }),
        any_token().prop_map(Want::OtherThan),
        (option::of((any_grant(), any_generation())), any::<bool>())
            .prop_map(|(than, anyway)| Want::Newer { than, anyway }),
        Just(Want::NoDoubt),
    ]
}

fn fresh() -> Fresh {
    Fresh { version: 5_000, grant: Id(0xf0), fingerprint_key: Secret::new(format!("{CANARY}-fresh")) }
}

/// Every write that the protocol makes of this record.
fn writes(record: Option<&Record>, sent: &Sent, outcome: &Outcome, brought: &Answer) -> Vec<(&'static str, Record)> {
    let now = now();
    let moment = moment(&now);
    let to_revoke = record.and_then(|record| record.secrets.to_revoke.first());
    [
        ("settle", settled(record, sent, outcome)),
        ("claim", record.map(|record| claim(record, attempt(THEIRS, record.generation)))),
        ("save", save(record, brought, fresh(), Some(NEW_LIFE), &moment)),
        ("sign_out", sign_out(record, true, &moment)),
        ("forget", forget(record, &moment)),
        ("revoked", to_revoke.and_then(|token| revoked(record, token))),
    ]
    .into_iter()
    .filter_map(|(name, next)| Some((name, next?)))
    .collect()
}

proptest! {
    #![proptest_config(config(CASES))]

    #[test]
    fn every_write_has_the_next_version(
        (record, sent) in any_presentation(),
        outcome in any_outcome(),
        brought in any_answer(),
        scene in any_scene(),
        want in any_want(),
    ) {
        for (name, next) in writes(record.as_ref(), &sent, &outcome, &brought) {
            match &record {
                Some(record) => prop_assert_eq!(next.version, record.version + 1, "{}", name),
                None => prop_assert_eq!((name, next.version), ("save", 5_000)),
            }
        }
        if let Decision::Write(next, why) = scene.decide(&want) {
            let found = scene.record.as_ref().map_or(0, |record| record.version);
            let seen = scene.seen.as_ref().filter(|_| why == Correction::RolledBack).map_or(0, |seen| seen.version);
            prop_assert_eq!(next.version, found.max(seen) + 1);
        }
    }

    #[test]
    fn lists_never_outgrow_a_record(
        (record, sent) in any_presentation(),
        outcome in any_outcome(),
        brought in any_answer(),
    ) {
        for (name, next) in writes(record.as_ref(), &sent, &outcome, &brought) {
            for (list, before) in [(&next.known.saved, 0), (&next.known.spent, 1)] {
                let distinct: std::collections::HashSet<_> = list.iter().collect();
                prop_assert_eq!(distinct.len(), list.len(), "{}: list {}", name, before);
                prop_assert!(list.len() <= KEPT);
            }
            prop_assert!(next.history.len() <= KEPT);
        }
    }

    /// Nothing but a Done of the same grant revives, nothing but an answer to the open attempt ends.
    #[test]
    fn settle_neither_revives_nor_ends_without_a_reason(
        (record, sent) in any_presentation(),
        outcome in any_outcome(),
    ) {
        let Some(next) = settled(record.as_ref(), &sent, &outcome) else { return skip() };
        let Some(record) = record else { return Err(TestCaseError::fail("a record was created")) };
        if next.state == State::Active && record.state != State::Active {
            prop_assert_eq!(record.state, State::Ended);
            prop_assert_eq!(record.grant, sent.grant);
            prop_assert!(matches!(outcome, Outcome::Done(_)));
        }
        if next.state == State::Ended && record.state != State::Ended {
            prop_assert!(matches!(outcome, Outcome::InvalidGrant(_)));
            prop_assert!(record.state == State::Active && is_mine(&record, &sent));
            prop_assert_eq!((record.grant, record.generation), (sent.grant, sent.generation));
            prop_assert_eq!(record.secrets.spare, None, "the spare may be alive");
            prop_assert_eq!(next.reason.as_deref() == Some("rotation_lost"), sent.sends > 1);
        }
        if matches!(next.state, State::SignedOut | State::Forgotten) {
            prop_assert_eq!(next.state, record.state);
        }
    }

    /// What is left of one grant reaches another only to be revoked.
    #[test]
    fn settle_touches_no_other_grant((record, sent) in any_presentation(), outcome in any_outcome()) {
        let Some(record) = record else { return skip() };
        prop_assume!(record.grant != sent.grant || record.state == State::SignedOut);
        let Some(next) = settled(Some(&record), &sent, &outcome) else { return Ok(()) };
        let token = successor(&outcome, &sent).expect("only a successor is worth a write");
        prop_assert!(!record.secrets.to_revoke.contains(token));
        let expected = with(record, |record| {
            record.version += 1;
            record.secrets.to_revoke.push(token.clone());
            record.history.clone_from(&next.history);
        });
        assert_same("another grant", Some(&next), Some(&expected));
    }

    #[test]
    fn settle_drops_no_living_successor((record, sent) in any_presentation(), outcome in any_outcome()) {
        let Some(record) = record.filter(|record| record.state != State::Forgotten) else { return skip() };
        let Some(token) = successor(&outcome, &sent) else { return skip() };
        let next = settled(Some(&record), &sent, &outcome).unwrap_or_else(|| record.clone());
        if record.grant == sent.grant && record.state == State::Moved {
            prop_assert_eq!(next, record, "it lives on elsewhere");
            return Ok(());
        }
        if record.grant != sent.grant || record.state == State::SignedOut || record.state == State::Moved {
            // The one that lives on it needs no revocation.
            prop_assert!(next.secrets.to_revoke.contains(token) || holds(&record, token));
            return Ok(());
        }
        // One that was spent since was there before.
        prop_assume!(!record.known.spent.contains(&fingerprint(&record, token.expose())));
        // What this attempt has made is there, or was replaced by a later presentation's; later generations need none.
        prop_assume!(!is_made_by(&record, &sent) && record.generation <= sent.generation + 1);
        prop_assert!(holds(&next, token));
        let revived = !holds(&record, token) || record.generation <= sent.generation;
        prop_assert_eq!(next.state, match record.state {
            State::Ended if revived => State::Active,
            state => state,
        });
        // Where two were answered, the other's is kept as well.
        let sibling = record.secrets.refresh_token.filter(|_| {
            record.generation == sent.generation + 1 && record.state == State::Active
        });
        if let Some(sibling) = sibling {
            prop_assert!(holds(&next, &sibling));
        }
    }

    /// A commit whose result is unknown is tried again.
    #[test]
    fn settling_twice_is_settling_once((record, sent) in any_presentation(), outcome in any_outcome()) {
        let Some(once) = settled(record.as_ref(), &sent, &outcome) else { return skip() };
        let Some(twice) = settled(Some(&once), &sent, &outcome) else { return Ok(()) };
        // What is left in doubt is in doubt again.
        prop_assert!(matches!(outcome, Outcome::NotSent(_) | Outcome::Refused(_) | Outcome::Busy(_) | Outcome::Unknown(_)));
        let expected = with(once, |once| {
            once.version += 1;
            once.back_off.clone_from(&twice.back_off);
            once.history.clone_from(&twice.history);
        });
        assert_same("twice", Some(&twice), Some(&expected));
    }

    /// An attempt that is open keeps others from claiming, whoever settles beside it.
    #[test]
    fn anothers_open_attempt_survives((record, sent) in any_attempted(false), outcome in any_outcome()) {
        let next = settled(Some(&record), &sent, &outcome).unwrap_or_else(|| record.clone());
        let Some(attempt) = &record.attempt else { return skip() };
        // Row 3 alone: the generation that it was made for is over, and nobody waits for its answer.
        let over =
            matches!(outcome, Outcome::Done(_)) && attempt.doubt && record.generation == sent.generation;
        prop_assert_eq!(next.attempt, record.attempt.filter(|_| !over));
    }

    /// An earlier presentation may still be processed: only an answer ends its doubt.
    #[test]
    fn a_failed_replay_leaves_its_doubt(
        (record, sent) in prop_oneof![any_attempted(true), any_attempted(false)],
        outcome in any_unanswered(),
    ) {
        let Some(before) = &record.attempt else { return skip() };
        prop_assume!(sent.sends > 1 && before.generation == record.generation);
        let next = settled(Some(&record), &sent, &outcome).unwrap_or_else(|| record.clone());
        let doubt = before.doubt || before.id == sent.attempt;
        prop_assert_eq!(next.attempt, Some(Attempt { doubt, ..before.clone() }));
    }

    /// And it never leaves less than a doubt after something that may have been processed.
    #[test]
    fn what_may_have_been_processed_leaves_a_doubt(
        (record, sent) in any_attempted(true),
        outcome in prop_oneof![any_failure().prop_map(Outcome::Busy), any_failure().prop_map(Outcome::Unknown)],
    ) {
        prop_assume!(record.generation == sent.generation);
        let next = settled(Some(&record), &sent, &outcome).expect("a write");
        prop_assert!(next.attempt.is_some_and(|attempt| attempt.doubt && attempt.id == sent.attempt));
        prop_assert_eq!(next.back_off.map(|back_off| back_off.binds), Some(Binds::All));
    }

    #[test]
    fn who_claims_may(scene in any_scene(), want in any_want()) {
        let (Decision::Claim { sends } | Decision::Serve { early: Some(sends) }) = scene.decide(&want) else { return skip() };
        let record = scene.record.as_ref().expect("a record");
        let anyway = matches!(want, Want::Newer { anyway: true, .. });
        prop_assert!(scene.party.policy.renews);
        prop_assert!(record.secrets.refresh_token.is_some());
        match record.state {
            State::Active => {}
            State::Ended => prop_assert!(anyway && record.reason.as_deref() != Some("rotation_lost")),
            state => prop_assert!(false, "{:?}", state),
        }
        if let Some(back_off) = &record.back_off {
            prop_assert!(anyway || !scene.is_bound(back_off));
        }
        if let Some(seen) = &scene.seen {
            prop_assert!(seen.grant != record.grant || seen.generation <= record.generation);
        }
        let attempt = record.attempt.as_ref();
        prop_assert!(attempt.is_none_or(|attempt| !scene.is_open(attempt)));
        // Every presentation of a generation's token is counted.
        let earlier = attempt.filter(|attempt| attempt.generation == record.generation).map_or(0, |a| a.sends);
        prop_assert_eq!(sends, earlier + 1);
        prop_assert!(sends == 1 || scene.party.policy.lost_reply == LostReply::Replay);
    }

    /// Who is not served, adopts or is refused waits only for somebody who may still answer.
    #[test]
    fn who_waits_must(scene in any_scene(), want in any_want()) {
        prop_assume!(scene.party.policy.renews);
        let decision = scene.decide(&want);
        let record = scene.record.as_ref();
        match decision {
            Decision::Wait => {
                let attempt = record.and_then(|record| record.attempt.as_ref());
                prop_assert!(attempt.is_some_and(|attempt| scene.is_open(attempt)));
            }
            Decision::Refuse(Refusal::BackOff { retry_after_ms, doubt, .. }) => {
                let record = record.expect("a record");
                let back_off = record.back_off.as_ref().expect("a back-off");
                prop_assert!(scene.is_bound(back_off));
                prop_assert_eq!(retry_after_ms, back_off.until_ms - scene.now.ms);
                prop_assert_eq!(doubt, record.attempt.is_some());
            }
            _ => {}
        }
    }

    #[test]
    fn who_is_served_gets_a_good_token(scene in any_scene(), want in any_want()) {
        let decision = scene.decide(&want);
        prop_assume!(matches!(decision, Decision::Serve { .. } | Decision::Adopt) && want != Want::NoDoubt);
        let record = scene.record.as_ref().expect("a record");
        let token = record.secrets.access_token.as_ref().expect("a token");
        let left_ms = record.life.and_then(|life| life.until_ms).map_or(i64::MAX, |until_ms| until_ms - WALL_MS);
        let moving = record.state == State::Moving && matches!(want, Want::Token { .. });
        prop_assert!(record.state == State::Active || moving);
        prop_assert!(left_ms > 0);
        match &want {
            Want::Token { min_valid_ms } => prop_assert!(left_ms > *min_valid_ms),
            Want::OtherThan(rejected) => prop_assert_ne!(token, rejected),
            Want::Newer { than, .. } => prop_assert_ne!(*than, Some((record.grant, record.generation))),
            Want::NoDoubt => {}
        }
    }

    /// A correction leads on: the same party never writes it again.
    #[test]
    fn corrections_are_not_repeated(mut scene in any_scene(), want in any_want()) {
        scene.party.policy.lost_reply = LostReply::SignIn;
        if let (Some(seen), Some(record)) = (&mut scene.seen, &scene.record) {
            (seen.grant, seen.generation) = (record.grant, record.generation + 1);
        }
        let Decision::Write(next, _) = scene.decide(&want) else { return skip() };
        let found = scene.record.as_ref().expect("a record");
        prop_assert!(matches!(found.state, State::Active | State::Ended));
        prop_assert_eq!(next.grant, found.grant);
        prop_assert!(next.generation >= found.generation);
        let scene = Scene { record: Some(*next), ..scene };
        let again = matches!(scene.decide(&want), Decision::Write(..));
        prop_assert!(!again);
    }

    #[test]
    fn a_saved_token_is_known(
        record in option::weighted(0.9, any_record()),
        brought in any_answer(),
        other in any_token(),
    ) {
        let now = now();
        let moment = moment(&now);
        let save = |record: &Record, answer: &Answer| save(Some(record), answer, fresh(), None, &moment);
        prop_assume!(brought.refresh_token.is_some());
        // Only the server and this library have ever seen a spare.
        prop_assume!(record.as_ref().is_none_or(|record| record.secrets.spare != brought.refresh_token));
        let next = evergrant::session::protocol::save(record.as_ref(), &brought, fresh(), None, &moment);
        let Some(next) = next.or_else(|| record.clone()) else { return skip() };
        prop_assert!(save(&next, &brought).is_none(), "saved");
        if record.as_ref().is_none_or(|record| record.version != next.version) {
            prop_assert_eq!((next.state, next.generation), (State::Active, 1));
            prop_assert!(next.attempt.is_none() && next.secrets.spare.is_none() && next.back_off.is_none());
        }
        // Across a sign-out and another sign-in.
        let out = sign_out(Some(&next), true, &moment).unwrap_or(next);
        prop_assert!(save(&out, &brought).is_none(), "signed out");
        let other = Answer { refresh_token: Some(other), ..brought.clone() };
        let again = save(&out, &other).unwrap_or(out);
        prop_assert!(save(&again, &brought).is_none(), "signed in again");
        // Only forgetting forgets.
        let gone = forget(Some(&again), &moment).unwrap_or(again);
        prop_assert!(save(&gone, &brought).is_some(), "forgotten");
    }

    #[test]
    fn signing_out_keeps_every_token_until_it_is_revoked(record in any_record()) {
        let now = now();
        let Some(mut out) = sign_out(Some(&record), true, &moment(&now)) else { return skip() };
        let Secrets { refresh_token, access_token, spare, to_revoke, .. } = record.secrets;
        for token in [refresh_token, access_token, spare].into_iter().flatten().chain(to_revoke) {
            prop_assert!(out.secrets.to_revoke.contains(&token));
        }
        while let Some(token) = out.secrets.to_revoke.first().cloned() {
            let left = out.secrets.to_revoke.len();
            out = revoked(Some(&out), &token).expect("a write");
            prop_assert!(out.secrets.to_revoke.len() < left);
        }
        prop_assert_eq!(out.state, State::SignedOut);
    }

    #[test]
    fn nothing_shows_a_secret(
        (record, sent) in any_presentation(),
        outcome in any_outcome(),
        brought in any_answer(),
        scene in any_scene(),
        want in any_want(),
    ) {
        let decision = scene.decide(&want);
        let mut shown = format!("{record:?} {record:#?} {sent:?} {outcome:?} {brought:?} {decision:?} {scene:?} {want:?}");
        for (_, next) in writes(record.as_ref(), &sent, &outcome, &brought) {
            shown += &format!("{next:?}");
            shown += &serde_json::to_string(&next).expect("JSON");
        }
        shown += &serde_json::to_string(&record).expect("JSON");
        prop_assert!(!shown.contains(CANARY), "{}", shown);
    }

    /// What a store keeps is what the protocol wrote.
    #[test]
    fn records_survive_serialization(record in any_record()) {
        let text = serde_json::to_string(&record).expect("JSON");
        let secrets = serde_json::to_string(&record.secrets).expect("JSON");
        let read = Record {
            version: record.version,
            secrets: serde_json::from_str(&secrets).expect("secrets"),
            ..serde_json::from_str(&text).expect("a record")
        };
        assert_same("read", Some(&read), Some(&record));
    }

    /// Whatever the place in the window: never before it, and never after the token's end.
    #[test]
    fn the_early_window_lies_in_the_life(
        life in any_life(),
        renew_before_ms in option::of(0..10_000_000i64),
        jitter in 0..1024i64,
        scene in any_scene(),
    ) {
        let policy = Policy { renew_before_ms, jitter, early_renewal: EarlyRenewal::Background, ..scene.party.policy };
        match (policy.early_from_ms(&life), life.until_ms) {
            (Some(from_ms), Some(until_ms)) => {
                let length_ms = (until_ms - life.from_ms).max(0);
                prop_assert!(from_ms <= until_ms);
                prop_assert!(until_ms - from_ms <= length_ms / 2);
            }
            (from_ms, until_ms) => prop_assert_eq!(from_ms, until_ms),
        }
    }

    /// However often a party fails, whatever the server asks: its wait begins now and ends.
    #[test]
    fn back_offs_end(
        (record, sent) in any_attempted(true),
        outcome in any_unanswered(),
        jitter in 0..1024i64,
    ) {
        prop_assume!(record.generation == sent.generation);
        let now = now();
        let moment = Moment { jitter, ..moment(&now) };
        let next = settle(Some(&record), &sent, &outcome, &moment).expect("a write");
        let back_off = next.back_off.expect("a back-off");
        let wait_ms = back_off.until_ms - NOW_MS;
        prop_assert!((0..=5 * 60 * 1000).contains(&wait_ms), "{}", wait_ms);
        prop_assert!(back_off.count >= 1);
        let asked_ms = outcome.failure().and_then(|failure| failure.retry_after_ms).unwrap_or(0);
        prop_assert!(wait_ms >= asked_ms as i64);
    }
}
