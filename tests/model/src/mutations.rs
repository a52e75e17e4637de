//! Each rule of docs/protocol.md broken once, and the property that must notice it.
//!
//! A few rules are not here, because breaking them costs time and nothing else: that Unknown marks its doubt at once
//! (its owner could take it over all the same), that an answer clears its sender's own barrier, and that no doubt is ended
//! while its answer is set aside (that answer revives it).

use evergrant::oauth::Outcome;
use evergrant::session::protocol::{self, Decision, Moment, Sent, Situation, Want};
use evergrant::session::record::{Binds, Record, State};
use evergrant::store::Life;

use crate::properties::Property;
use crate::rules::Rules;
use crate::runs::Fault::{self, *};
use crate::runs::Run;
use crate::servers::Server::{self, *};

/// A rule that is broken.
pub struct Mutation {
    /// What is wrong.
    pub name: &'static str,
    /// The functions.
    pub rules: Rules,
    /// Where it shows.
    pub run: Run,
    /// What it breaks.
    pub breaks: Property,
}

/// All of them, in the order of the tables in docs/protocol.md.
pub fn all() -> Vec<Mutation> {
    [decide(), settle(), writes()].into_iter().flatten().collect()
}

const SHIPPED: Rules = Rules::SHIPPED;

fn shared(server: Server, may: &'static [Fault], faults: u8) -> Run {
    Run { server, may, faults, renewals: 2, ..Run::BASE }
}

fn decide() -> Vec<Mutation> {
    let mutation = |name, decide, run, breaks| Mutation { name, rules: Rules { decide, ..SHIPPED }, run, breaks };
    let local = |may, faults| Run { local: true, ..shared(StrictRevokes, may, faults) };
    vec![
        mutation(
            "a store that went back is believed",
            |situation, want| protocol::decide(&Situation { seen: None, ..situation.clone() }, want),
            Run { versions: true, split: true, ..shared(StrictRefuses, &[Rollback], 1) },
            Property::Settles,
        ),
        mutation(
            "a back-off is ignored",
            |situation, want| with_record(situation, want, |record| record.back_off = None),
            Run { back_off: true, ..shared(StrictRevokes, &[Loss], 2) },
            Property::BackOff,
        ),
        mutation(
            "a back-off binds everybody",
            |situation, want| {
                with_record(situation, want, |record| {
                    record.back_off.iter_mut().for_each(|back_off| back_off.binds = Binds::All);
                })
            },
            Run { back_off: true, ..shared(StrictRevokes, &[NoConnection], 1) },
            Property::BackOff,
        ),
        mutation(
            "an open attempt is taken over at once",
            |situation, want| {
                with_record(situation, want, |record| {
                    record.attempt.iter_mut().for_each(|attempt| attempt.doubt = true);
                })
            },
            shared(StrictRevokes, &[], 0),
            Property::OneExchange,
        ),
        mutation(
            "the dead are waited for",
            |situation, want| with_owner(situation, want, Life::Dead, Life::Alive),
            local(&[Crash], 1),
            Property::Settles,
        ),
        mutation(
            "a deadline entitles nobody",
            |situation, want| with_owner(situation, want, Life::Unknown, Life::Alive),
            shared(StrictRevokes, &[Crash], 1),
            Property::Settles,
        ),
        mutation(
            "on a local store, a deadline entitles although its owner is alive",
            |situation, want| with_owner(situation, want, Life::Alive, Life::Unknown),
            local(&[Store], 1),
            Property::Unexpected,
        ),
        mutation(
            "a replay counts as a first send",
            |situation, want| match protocol::decide(situation, want) {
                Decision::Claim { .. } => Decision::Claim { sends: 1 },
                other => other,
            },
            shared(StrictRevokes, &[Loss], 1),
            Property::Claimed,
        ),
        mutation(
            "a doubt is replayed once",
            |situation, want| match protocol::decide(situation, want) {
                Decision::Claim { sends: 3.. } => Decision::Wait,
                other => other,
            },
            shared(StrictRevokes, &[Loss], 2),
            Property::Settles,
        ),
        mutation(
            "after a barrier, a first send counts as a replay",
            |situation, want| {
                let sends =
                    situation.record.and_then(|record| record.attempt.as_ref()).map_or(0, |attempt| attempt.sends);
                match protocol::decide(situation, want) {
                    Decision::Claim { .. } => Decision::Claim { sends: sends + 1 },
                    other => other,
                }
            },
            shared(StrictRefuses, &[Pause, Crash], 2),
            Property::Counted,
        ),
        mutation(
            "a doubt is replayed although a sign-in is preferred",
            |situation, want| match protocol::decide(situation, want) {
                Decision::Write(..) => Decision::Claim { sends: 2 },
                other => other,
            },
            Run { never_replays: true, ..shared(StrictRevokes, &[Loss], 1) },
            Property::Claimed,
        ),
        mutation(
            "what is lost is tried again without being asked",
            |situation, want| {
                with_record(situation, want, |record| {
                    record.state = State::Active;
                    record.reason = None;
                })
            },
            shared(StrictRevokes, &[Loss], 1),
            Property::Claimed,
        ),
        Mutation {
            name: "an attempt is replayed although its answer is set aside",
            rules: Rules { takes_over: |_, _| None, ..SHIPPED },
            run: Run { aside: true, ..local(&[Store, CrashUncommitted], 2) },
            breaks: Property::Unexpected,
        },
    ]
}

fn settle() -> Vec<Mutation> {
    let mutation = |name, settle, run, breaks| Mutation { name, rules: Rules { settle, ..SHIPPED }, run, breaks };
    let newest = shared(GraceNewestSibling, &[Pause, Unusable], 3);
    let out = |may, faults| Run { sign_outs: 1, ..shared(StrictRefuses, may, faults) };
    let back_off = |may| Run { back_off: true, ..shared(StrictRevokes, may, 2) };
    vec![
        mutation(
            "1: it goes by version",
            |record, sent, outcome, moment| {
                let unchanged = |record: &&Record| {
                    let attempt = record.attempt.as_ref();
                    is_active(record, sent, 0)
                        && attempt.is_some_and(|attempt| attempt.id == sent.attempt && !attempt.doubt)
                };
                protocol::settle(Some(record.filter(unchanged)?), sent, outcome, moment)
            },
            shared(StrictRefuses, &[Pause], 1),
            Property::NothingDropped,
        ),
        mutation(
            "1: a Done without a refresh token drops the old one",
            |record, sent, outcome, moment| {
                settled(record, sent, outcome, moment, |next| {
                    if matches!(outcome, Outcome::Done(answer) if answer.refresh_token.is_none()) {
                        next.secrets.refresh_token = None;
                    }
                })
            },
            shared(NoRotation, &[], 0),
            Property::NothingDropped,
        ),
        mutation(
            "1: an answer without an access token is thrown away",
            |record, sent, outcome, moment| match outcome {
                Outcome::Done(answer) if answer.access_token.is_none() => None,
                _ => protocol::settle(record, sent, outcome, moment),
            },
            shared(StrictRefuses, &[Unusable], 1),
            Property::NothingDropped,
        ),
        mutation(
            "1: a refused token ends the session although there is a spare",
            |record, sent, outcome, moment| {
                let mut record = record.cloned();
                if let (Some(record), Outcome::InvalidGrant(_)) = (&mut record, outcome) {
                    record.secrets.spare = None;
                }
                protocol::settle(record.as_ref(), sent, outcome, moment)
            },
            shared(GraceNewestRefuses, &[Pause, Ghost], 2),
            Property::NothingDropped,
        ),
        mutation(
            "1: a lost rotation is told as an expiry",
            |record, sent, outcome, moment| {
                protocol::settle(record, &Sent { sends: 1, ..sent.clone() }, outcome, moment)
            },
            shared(StrictRevokes, &[Loss], 1),
            Property::EndedByAnswer,
        ),
        mutation(
            "1: a refusal of the client ends the session",
            |record, sent, outcome, moment| match outcome {
                Outcome::Refused(failure) => {
                    protocol::settle(record, sent, &Outcome::InvalidGrant(failure.clone()), moment)
                }
                _ => protocol::settle(record, sent, outcome, moment),
            },
            shared(StrictRevokes, &[Refused], 1),
            Property::EndedForGood,
        ),
        mutation(
            "1: NotSent clears an earlier send's doubt",
            |record, sent, outcome, moment| {
                clears(record, sent, outcome, moment, |outcome| matches!(outcome, Outcome::NotSent(_)))
            },
            shared(StrictRevokes, &[Loss, NoConnection], 2),
            Property::Claimed,
        ),
        mutation(
            "1: Refused clears an earlier send's doubt",
            |record, sent, outcome, moment| {
                clears(record, sent, outcome, moment, |outcome| matches!(outcome, Outcome::Refused(_)))
            },
            shared(StrictRevokes, &[Loss, Refused], 2),
            Property::Claimed,
        ),
        mutation(
            "1: Busy leaves no doubt",
            |record, sent, outcome, moment| {
                clears(record, sent, outcome, moment, |outcome| matches!(outcome, Outcome::Busy(_)))
            },
            Run { busy: true, ..shared(StrictRevokes, &[Ghost], 1) },
            Property::Claimed,
        ),
        mutation(
            "1: Unknown leaves no doubt (every 5xx is one)",
            |record, sent, outcome, moment| {
                clears(record, sent, outcome, moment, |outcome| matches!(outcome, Outcome::Unknown(_)))
            },
            shared(StrictRevokes, &[Gateway], 1),
            Property::Claimed,
        ),
        mutation(
            "1: a party without a connection keeps all from trying",
            |record, sent, outcome, moment| {
                settled(record, sent, outcome, moment, |next| {
                    next.back_off.iter_mut().for_each(|back_off| back_off.binds = Binds::All);
                })
            },
            back_off(&[NoConnection]),
            Property::BackOff,
        ),
        mutation(
            "1: a server's word binds one configuration",
            |record, sent, outcome, moment| {
                settled(record, sent, outcome, moment, |next| {
                    let binds = Binds::Configuration("configuration-0".to_owned());
                    next.back_off.iter_mut().for_each(|back_off| back_off.binds = binds.clone());
                })
            },
            back_off(&[Throttled]),
            Property::BackOff,
        ),
        mutation(
            "2: a late Done clears another's open attempt",
            |record, sent, outcome, moment| {
                settled(record, sent, outcome, moment, |next| {
                    if matches!(outcome, Outcome::Done(_)) {
                        next.attempt = None;
                    }
                })
            },
            shared(GraceSamePair, &[Pause], 1),
            Property::OneExchange,
        ),
        mutation(
            "2: a late Done clears another's open attempt, before that one sends",
            |record, sent, outcome, moment| {
                settled(record, sent, outcome, moment, |next| {
                    if matches!(outcome, Outcome::Done(_)) {
                        next.attempt = None;
                    }
                })
            },
            shared(StrictRefuses, &[Pause], 1),
            Property::HoldsAttempt,
        ),
        mutation(
            "2: a late invalid_grant ends what another is trying",
            |record, sent, outcome, moment| {
                let mut record = record?.clone();
                if let (Outcome::InvalidGrant(_), Some(attempt)) = (outcome, &mut record.attempt) {
                    attempt.id = sent.attempt;
                }
                protocol::settle(Some(&record), sent, outcome, moment)
            },
            shared(StrictRefuses, &[Pause, Ghost], 2),
            Property::EndedByAnswer,
        ),
        mutation(
            "3: a late Done is dropped where another is in doubt",
            |record, sent, outcome, moment| {
                let doubt = |record: &&Record| {
                    record.attempt.as_ref().is_none_or(|attempt| !attempt.doubt || attempt.id == sent.attempt)
                };
                protocol::settle(Some(record.filter(doubt)?), sent, outcome, moment)
            },
            shared(StrictRefuses, &[Pause, NoConnection], 2),
            Property::NothingDropped,
        ),
        mutation(
            "4: an end cannot be revived",
            |record, sent, outcome, moment| {
                let lives = |record: &&Record| record.state != State::Ended || record.generation != sent.generation;
                protocol::settle(Some(record.filter(lives)?), sent, outcome, moment)
            },
            shared(StrictRefuses, &[Pause], 1),
            Property::NothingDropped,
        ),
        mutation(
            "5: the taker was answered, so ours is dropped",
            |record, sent, outcome, moment| {
                let ours = |record: &&Record| !is_active(record, sent, 1);
                protocol::settle(Some(record.filter(ours)?), sent, outcome, moment)
            },
            newest,
            Property::NothingDropped,
        ),
        mutation(
            "5: the later answer replaces the other, and no spare is kept",
            |record, sent, outcome, moment| settled(record, sent, outcome, moment, |next| next.secrets.spare = None),
            newest,
            Property::NothingDropped,
        ),
        mutation(
            "6: a late answer replaces the token that is being spent",
            |record, sent, outcome, moment| {
                let used = record.is_some_and(|record| is_active(record, sent, 1));
                settled(record, sent, outcome, moment, |next| {
                    if let (true, Outcome::Done(answer)) = (used, outcome) {
                        next.secrets.refresh_token.clone_from(&answer.refresh_token);
                        next.secrets.spare = None;
                    }
                })
            },
            newest,
            Property::NothingLost,
        ),
        mutation(
            "7: an end of the next generation cannot be revived",
            |record, sent, outcome, moment| {
                let lives = |record: &&Record| record.state != State::Ended || record.generation == sent.generation;
                protocol::settle(Some(record.filter(lives)?), sent, outcome, moment)
            },
            Run { renewals: 3, ..shared(GraceNewestRefuses, &[Pause, Ghost], 2) },
            Property::NothingDropped,
        ),
        mutation(
            "7: a refused token comes back",
            |record, sent, outcome, moment| {
                let mut record = record?.clone();
                record.known.spent.clear();
                protocol::settle(Some(&record), sent, outcome, moment)
            },
            Run { parties: 3, renewals: 1, ..shared(GraceNewestRefuses, &[Pause, Store, Ghost, Unusable], 3) },
            Property::Claimed,
        ),
        mutation(
            "8: a token of an older generation is revoked",
            |record, sent, outcome, moment| {
                let (Some(found), Outcome::Done(answer)) = (record, outcome) else {
                    return protocol::settle(record, sent, outcome, moment);
                };
                if found.grant != sent.grant || found.generation < sent.generation + 2 {
                    return protocol::settle(record, sent, outcome, moment);
                }
                let mut next = Record { version: found.version + 1, ..found.clone() };
                next.secrets.to_revoke.extend(answer.refresh_token.clone());
                Some(next)
            },
            shared(GraceAllSiblings, &[Pause], 1),
            Property::LostForACause,
        ),
        mutation(
            "9: a late Done overwrites a new sign-in",
            |record, sent, outcome, moment| {
                let record = record?;
                let active = record.state == State::Active;
                let grant = if active { record.grant } else { sent.grant };
                let generation = if active { record.generation } else { sent.generation };
                protocol::settle(Some(record), &Sent { grant, generation, ..sent.clone() }, outcome, moment)
            },
            Run { sign_ins: 1, ..out(&[], 0) },
            Property::OwnGrant,
        ),
        mutation(
            "9: a late Done of another grant is dropped",
            |record, sent, outcome, moment| {
                protocol::settle(Some(record.filter(|record| record.grant == sent.grant)?), sent, outcome, moment)
            },
            Run { sign_ins: 1, ..out(&[], 0) },
            Property::NothingDropped,
        ),
        mutation(
            "10: a late Done is dropped after a sign-out",
            |record, sent, outcome, moment| {
                protocol::settle(Some(record.filter(|record| record.state != State::SignedOut)?), sent, outcome, moment)
            },
            out(&[], 0),
            Property::NothingDropped,
        ),
        mutation(
            "10: a late Done undoes a sign-out",
            |record, sent, outcome, moment| revived(record, sent, outcome, moment, State::SignedOut),
            out(&[], 0),
            Property::StaysSignedOut,
        ),
        mutation(
            "11: a late Done undoes forgetting",
            |record, sent, outcome, moment| revived(record, sent, outcome, moment, State::Forgotten),
            Run { forgets: 1, ..shared(StrictRefuses, &[], 0) },
            Property::StaysSignedOut,
        ),
    ]
}

fn writes() -> Vec<Mutation> {
    let session = Run { sign_outs: 1, sign_ins: 1, ..shared(StrictRevokes, &[], 0) };
    vec![
        Mutation {
            name: "save: a spent token that is saved again replaces the living one",
            rules: Rules {
                save: |record, answer, fresh, life, moment| {
                    let mut record = record.cloned();
                    record.iter_mut().for_each(|record| record.known = Default::default());
                    protocol::save(record.as_ref(), answer, fresh, life, moment)
                },
                ..SHIPPED
            },
            run: Run { seeds: 1, ..shared(StrictRevokes, &[], 0) },
            breaks: Property::SaveKeeps,
        },
        Mutation {
            name: "save: a new sign-in forgets what was spent",
            rules: Rules {
                save: |record, answer, fresh, life, moment| {
                    let mut next = protocol::save(record, answer, fresh, life, moment)?;
                    if record.is_some() {
                        next.known = Default::default();
                    }
                    Some(next)
                },
                ..SHIPPED
            },
            run: Run { seeds: 1, ..session },
            breaks: Property::SaveKeeps,
        },
        Mutation {
            name: "save: versions begin again after a sign-out",
            rules: Rules {
                save: |record, answer, fresh, life, moment| {
                    let erased = record.is_some_and(|record| record.state == State::SignedOut);
                    let next = protocol::save(record, answer, fresh, life, moment)?;
                    Some(Record { version: if erased { 1 } else { next.version }, ..next })
                },
                ..SHIPPED
            },
            run: Run { versions: true, split: true, ..session },
            breaks: Property::OwnGrant,
        },
        Mutation {
            name: "sign_out: the tombstone is erased before the server has revoked",
            rules: Rules {
                sign_out: |record, revocable, moment| {
                    let mut next = protocol::sign_out(record, revocable, moment)?;
                    next.secrets.to_revoke.clear();
                    Some(next)
                },
                ..SHIPPED
            },
            run: session,
            breaks: Property::Revoked,
        },
        Mutation {
            name: "revoked: one confirmation counts for all",
            rules: Rules {
                revoked: |record, token| {
                    let mut next = protocol::revoked(record, token)?;
                    next.secrets.to_revoke.clear();
                    Some(next)
                },
                ..SHIPPED
            },
            run: session,
            breaks: Property::Revoked,
        },
        Mutation {
            name: "forget: the session stays",
            rules: Rules {
                forget: |record, _| record.map(|record| Record { version: record.version + 1, ..record.clone() }),
                ..SHIPPED
            },
            run: Run { forgets: 1, ..shared(StrictRevokes, &[], 0) },
            breaks: Property::StaysSignedOut,
        },
        Mutation {
            name: "claim: no attempt is written",
            rules: Rules {
                claim: |record, attempt| Record { attempt: None, ..protocol::claim(record, attempt) },
                ..SHIPPED
            },
            run: shared(StrictRevokes, &[], 0),
            breaks: Property::HoldsAttempt,
        },
    ]
}

/// `decide` on a record that was changed.
fn with_record(situation: &Situation, want: &Want, change: fn(&mut Record)) -> Decision {
    let mut record = situation.record.cloned();
    record.iter_mut().for_each(change);
    protocol::decide(&Situation { record: record.as_ref(), ..situation.clone() }, want)
}

/// `decide` with another knowledge of the owner.
fn with_owner(situation: &Situation, want: &Want, from: Life, to: Life) -> Decision {
    let owner = if situation.owner == from { to } else { situation.owner };
    protocol::decide(&Situation { owner, ..situation.clone() }, want)
}

/// `settle`, and then a change.
fn settled(
    record: Option<&Record>,
    sent: &Sent,
    outcome: &Outcome,
    moment: &Moment,
    change: impl FnOnce(&mut Record),
) -> Option<Record> {
    let mut next = protocol::settle(record, sent, outcome, moment)?;
    change(&mut next);
    Some(next)
}

/// `settle`, and no attempt after these outcomes.
fn clears(
    record: Option<&Record>,
    sent: &Sent,
    outcome: &Outcome,
    moment: &Moment,
    these: fn(&Outcome) -> bool,
) -> Option<Record> {
    settled(record, sent, outcome, moment, |next| {
        if these(outcome) {
            next.attempt = None;
        }
    })
}

/// `settle` as if a record in this state were an active one.
fn revived(record: Option<&Record>, sent: &Sent, outcome: &Outcome, moment: &Moment, state: State) -> Option<Record> {
    let mut record = record?.clone();
    if record.state == state {
        record.state = State::Active;
    }
    protocol::settle(Some(&record), sent, outcome, moment)
}

/// Whether a record is an active one of this presentation's grant, so many generations later.
fn is_active(record: &Record, sent: &Sent, later: u64) -> bool {
    record.state == State::Active && record.grant == sent.grant && record.generation == sent.generation + later
}
