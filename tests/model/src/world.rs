//! Parties, a store with compare-and-swap, a network, a server, time and users: every step that can be next.
//!
//! The steps of a party are those of `exchange` and `settle` in src/session/renewer/job.rs, cut wherever another
//! party's step, a crash or a pause makes a difference:
//!
//! | step | stands for |
//! |---|---|
//! | decides | `load_at`, `Renewer::decide`, `correct` |
//! | claims | `protocol::claim` and its compare-and-swap; after an error, `is_claimed` |
//! | looks once more | the gate (`is_claimed`, for a replay), the check of the clock (`read` in src/oauth/http.rs) |
//! | sends | the first byte |
//! | receives, gives up | the end of `oauth::refresh` |
//! | settles | one turn of the loop in `settle`: load, settle, compare-and-swap, publish |
//! | commits later | a later turn of that loop, after a Done could not be committed |
//! | settles what is set aside | `settle_pending` in src/session/renewer/aside.rs |
//! | revokes | `Renewer::revoke` |
//!
//! A party is a process: its threads share one slot, and one job runs for a session at a time (`Slot::begin_job`), so
//! that a party that is not idle starts nothing. A caller that waits is an idle party: it looks again at any time.

use std::cmp::Ordering;

use evergrant::session::record::State as Life;

use crate::properties::{Broken, Case, Cases, Property};
use crate::records::{
    ACCESS, ASIDE, Bound, Call, Effect, Facts, Fate, Look, NEW, Number, PARTIES, Passing, Presentation, Pulse,
};
use crate::records::{Records, Stage, Wanted};
use crate::rules::Rules;
use crate::runs::{Fault, Run};
use crate::servers::{Authority, Reply, Server, Token, Tokens};

/// More requests than are ever on their way.
const REQUESTS: usize = 6;
/// The sender of a request that nobody waits for.
const GONE: u8 = 9;
/// A version that no other record of the name has had.
const FRESH_VERSION: u8 = 200;

/// Where a party stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// No job runs. (A party that has died is idle at once: a new one in its place.)
    Idle,
    /// It has loaded, and is about to claim.
    Decided,
    /// Its claim is written.
    Claimed,
    /// It has looked once more; the first byte is next.
    Ready,
    /// Its request has left.
    Waiting,
    /// It knows the outcome.
    Holds(Fate),
    /// It knows the outcome, and could not commit it.
    Pending(Fate),
    /// It asks the server to revoke this token.
    Revoking(Token),
    /// The server has.
    Revoked(Token),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Party {
    phase: Phase,
    sent: Presentation,
    /// Past the deadline of its attempt.
    late: bool,
    /// The record that its decision rests on, where versions count.
    found: Number,
    version: u8,
    /// What `Slot::seen` remembers, where the store may go back in time.
    seen: Number,
    seen_version: u8,
}

const IDLE: Party = Party {
    phase: Phase::Idle,
    sent: Presentation { grant: 0, generation: 0, sends: 0, token: 0 },
    late: false,
    found: Number::NONE,
    version: 0,
    seen: Number::NONE,
    seen_version: 0,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Way {
    ToServer,
    Processed,
    Back(Reply),
    /// Sorts last.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Request {
    way: Way,
    from: u8,
    token: Token,
}

const NO_REQUEST: Request = Request { way: Way::None, from: 0, token: 0 };

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Budget {
    faults: u8,
    renewals: u8,
    sign_outs: u8,
    sign_ins: u8,
    forgets: u8,
    seeds: u8,
    anyways: u8,
}

/// Everything that decides what can be next, and what must be known of the past to check it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    record: Number,
    version: u8,
    /// What a rollback brings back.
    before: Number,
    before_version: u8,
    parties: [Party; PARTIES],
    /// The answer in the state directory whose party holds it no longer. (That of a party whose commit is pending is there
    /// too.)
    aside: Option<(Presentation, Fate)>,
    requests: [Request; REQUESTS],
    server: Authority,
    budget: Budget,
    grants: u8,
    /// How often each token may have been presented: four bits each.
    presented: u64,
    /// Tokens of which a claim was recorded.
    claimed: Tokens,
    /// Tokens that a living party has settled.
    settled: Tokens,
    /// Grants of the server, and of the record, that were signed out.
    left: u8,
    left_here: u8,
    /// Named cases that have happened.
    pub cases: Cases,
    /// Properties that do not hold.
    pub broken: Broken,
}

/// Whose doing a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It comes by itself.
    Progress,
    /// A user's, or a clock's: at most so often.
    Demand,
    /// A fault.
    Fault,
}

/// A step.
pub struct Step {
    /// Whose doing.
    pub cause: Cause,
    /// Where it leads.
    pub state: State,
    /// The parties have changed places: `order[new] = old`.
    pub order: [u8; PARTIES],
    /// In words, if they are wanted.
    pub text: String,
}

/// A run's world.
pub struct World {
    /// The run.
    pub run: Run,
    /// Its records.
    pub records: Records,
    /// Cases that this run may come to.
    expected: Cases,
    /// Names for the parties' places: steps are put into words.
    pub telling: Option<[char; PARTIES]>,
    steps: Vec<Step>,
}

impl World {
    /// With these functions.
    pub fn new(run: Run, rules: Rules) -> Self {
        let records = Records::new(rules, run.keep());
        Self { expected: run.expected(), run, records, telling: None, steps: Vec::new() }
    }

    /// One session, which everybody has just loaded.
    pub fn first(&self) -> State {
        let run = &self.run;
        let record = self.records.first();
        let seen = if run.may(Fault::Rollback) { record } else { Number::NONE };
        State {
            record,
            version: 1,
            before: Number::NONE,
            before_version: 0,
            parties: [Party { seen, seen_version: u8::from(run.versions), ..IDLE }; PARTIES],
            aside: None,
            requests: [NO_REQUEST; REQUESTS],
            server: Authority::new(),
            budget: Budget {
                faults: run.faults,
                renewals: run.renewals,
                sign_outs: run.sign_outs,
                sign_ins: run.sign_ins,
                forgets: run.forgets,
                seeds: run.seeds,
                anyways: run.anyways,
            },
            grants: 1,
            presented: 0,
            claimed: 0,
            settled: 0,
            left: 0,
            left_here: 0,
            cases: Cases::default(),
            broken: Broken::default(),
        }
    }

    fn facts(&self, state: &State) -> Facts {
        *self.records.facts(state.record)
    }

    /// Every next step.
    pub fn steps(&mut self, state: &State) -> std::vec::Drain<'_, Step> {
        self.steps.clear();
        for party in 0..self.run.parties {
            match state.parties[usize::from(party)].phase {
                Phase::Idle => self.idle(state, party),
                Phase::Decided => self.decided(state, party),
                Phase::Claimed => self.looks_once_more(state, party),
                Phase::Ready => self.sends(state, party),
                Phase::Waiting => self.waits(state, party),
                Phase::Holds(fate) | Phase::Pending(fate) => self.settles(state, party, fate),
                Phase::Revoking(token) => self.revokes(state, party, token),
                Phase::Revoked(token) => self.removes(state, party, token),
            }
            self.crashes(state, party);
        }
        for at in 0..REQUESTS {
            match state.requests[at].way {
                Way::ToServer => self.arrives(state, at),
                Way::Processed => self.is_answered(state, at),
                Way::Back(reply) => self.comes_back(state, at, reply),
                Way::None => {}
            }
        }
        self.time_passes(state);
        self.users(state);
        self.store_goes_back(state);
        self.steps.drain(..)
    }

    fn emit(&mut self, cause: Cause, mut next: State, text: impl FnOnce(&dyn Fn(u8) -> char) -> String) {
        if cause == Cause::Fault {
            next.budget.faults -= 1;
        }
        next.requests.sort_unstable();
        self.check(&mut next);
        let order = self.arrange(&mut next);
        let text = match self.telling {
            Some(names) => text(&|party| names.get(usize::from(party)).copied().unwrap_or('?')),
            None => String::new(),
        };
        self.steps.push(Step { cause, state: next, order, text });
    }

    fn progress(&mut self, next: State, text: impl FnOnce(&dyn Fn(u8) -> char) -> String) {
        self.emit(Cause::Progress, next, text);
    }

    /// A step that costs a fault, if this one may happen.
    fn fault(&mut self, state: &State, fault: Fault, next: State, text: impl FnOnce(&dyn Fn(u8) -> char) -> String) {
        if self.may(state, fault) {
            self.emit(Cause::Fault, next, text);
        }
    }

    fn may(&self, state: &State, fault: Fault) -> bool {
        state.budget.faults > 0 && self.run.may(fault)
    }

    // ---- the store

    fn write(&self, state: &mut State, next: Number, step: i16) {
        if self.run.may(Fault::Rollback) {
            (state.before, state.before_version) = (state.record, state.version);
        }
        let before = *self.records.facts(state.record);
        let after = *self.records.facts(next);
        state.record = next;
        if self.run.versions {
            state.version = match step {
                NEW => FRESH_VERSION,
                // It begins at 1 again, which only a mutation does.
                step if step < -500 => 1,
                step => u8::try_from(i16::from(state.version) + step).expect("fewer versions"),
            };
        } else {
            // Whoever has loaded before will not write.
            for party in &mut state.parties {
                party.version |= u8::from(party.phase == Phase::Decided);
            }
        }
        if after.state == Life::Active && state.left_here >> after.grant & 1 == 1 {
            state.broken.add(Property::StaysSignedOut);
        }
        let ended = after.state == Life::Ended && before.state != Life::Ended;
        let renews = |token| state.server.renews(self.run.server, token);
        if ended && !self.run.never_replays && (renews(after.token) || renews(after.spare)) {
            state.broken.add(Property::EndedForGood);
        }
    }

    /// `Slot::publish`: memory keeps the record of the highest generation.
    fn remember(&mut self, state: &mut State, party: u8) {
        if !self.run.may(Fault::Rollback) {
            return;
        }
        let facts = self.facts(state);
        let me = &mut state.parties[usize::from(party)];
        let keeps = me.seen.is_some() && {
            let seen = self.records.facts(me.seen);
            seen.grant == facts.grant && seen.generation > facts.generation
        };
        if !facts.is_session() {
            me.seen = Number::NONE;
        } else if !keeps {
            me.seen = self.records.changed(state.record, Call::Remember);
            me.seen_version = if self.run.versions { state.version } else { 0 };
        }
    }

    // ---- a party

    fn idle(&mut self, state: &State, party: u8) {
        let facts = self.facts(state);
        let me = state.parties[usize::from(party)];
        let waits_for_server = self.run.busy
            && facts.attempt.is_some()
            && state.requests.iter().any(|other| other.way == Way::Processed && other.token == facts.token);
        if !waits_for_server {
            self.decides(state, party, Wanted::Token);
            let doubt = facts.attempt.is_some_and(|attempt| attempt.doubt && attempt.owner == Some(party));
            if doubt && matches!(facts.stage, Stage::Good | Stage::Early) {
                self.decides(state, party, Wanted::NoDoubt);
            }
            if self.run.rejections && state.budget.renewals > 0 && facts.stage == Stage::Good {
                self.decides(state, party, Wanted::Other);
            }
            if state.budget.anyways > 0 {
                self.decides(state, party, Wanted::Anyway);
            }
        }
        if let Some((sent, fate)) = state.aside {
            // As at its first load: another process may start at any time.
            self.settles_aside(state, party, ASIDE, sent, fate);
        }
        let revoking = |other: &Party| matches!(other.phase, Phase::Revoking(_) | Phase::Revoked(_));
        if facts.first_to_revoke != 0 && !state.parties.iter().any(revoking) {
            let mut next = *state;
            let token = facts.first_to_revoke;
            next.parties[usize::from(party)] = Party { phase: Phase::Revoking(token), ..me };
            self.progress(next, |name| format!("{} finds {} to revoke", name(party), token_name(token)));
        }
    }

    fn decides(&mut self, state: &State, party: u8, wanted: Wanted) {
        let facts = self.facts(state);
        let mut next = *state;
        let me = state.parties[usize::from(party)];
        let unanswered = |other: &Request| other.from == GONE && other.way < Way::Back(Reply::Done(0));
        let owner = match facts.attempt.map(|attempt| attempt.owner) {
            Some(Some(owner)) if owner != party && !self.run.local => Pulse::Unknown,
            Some(None) if !self.run.local => Pulse::Unknown,
            Some(None) if !self.run.drained || !state.requests.iter().any(unanswered) => Pulse::Dead,
            _ => Pulse::Alive,
        };
        let seen_ahead =
            if self.run.versions && me.seen.is_some() { me.seen_version as i8 - state.version as i8 } else { 0 };
        let aside = self.aside_of(state, &facts);
        let call = Call::Decide(Look { party, owner, seen: me.seen, seen_ahead, wanted, aside: aside.is_some() });
        let effect = self.records.call(state.record, call);
        let binds_me = matches!(facts.bound, Some(Bound::All)) || facts.bound == Some(Bound::One(party));
        match effect {
            Effect::SettleAside => {
                let exchange = facts.attempt.and_then(|attempt| attempt.exchange).expect("an exchange");
                let (sent, fate) = aside.expect("an answer");
                self.settles_aside(state, party, exchange, sent, fate);
            }
            Effect::Nothing | Effect::SignIn | Effect::BackOff => {
                self.remember(&mut next, party);
                let broken = effect == Effect::BackOff && !binds_me;
                if broken {
                    next.broken.add(Property::BackOff);
                }
                if broken || next.parties != state.parties {
                    self.progress(next, |name| format!("{} loads: {effect:?}", name(party)));
                }
            }
            Effect::Write(number, step) => {
                self.write(&mut next, number, step);
                self.remember(&mut next, party);
                let told = self.told(&next);
                self.progress(next, |name| format!("{} knows better and writes {told}", name(party)));
            }
            Effect::Claim(sends) => {
                match wanted {
                    Wanted::Other => next.budget.renewals -= 1,
                    Wanted::Anyway => next.budget.anyways -= 1,
                    Wanted::Token | Wanted::NoDoubt => {}
                }
                let cause = match wanted {
                    Wanted::Other | Wanted::Anyway => Cause::Demand,
                    Wanted::Token | Wanted::NoDoubt => Cause::Progress,
                };
                if binds_me && wanted != Wanted::Anyway {
                    next.broken.add(Property::BackOff);
                }
                self.remember(&mut next, party);
                let Facts { grant, generation, token, .. } = facts;
                let me = &mut next.parties[usize::from(party)];
                me.sent = Presentation { grant, generation, sends, token };
                if self.run.split {
                    me.phase = Phase::Decided;
                    me.version = 0;
                    if self.run.versions {
                        (me.found, me.version) = (state.record, state.version);
                    }
                    self.emit(cause, next, |name| {
                        format!("{} decides to claim token {token}, sends {sends} ({wanted:?})", name(party))
                    });
                } else {
                    self.claims(&next, party, cause);
                }
            }
        }
    }

    /// The answer of the record's attempt, if it is set aside.
    fn aside_of(&self, state: &State, facts: &Facts) -> Option<(Presentation, Fate)> {
        match facts.attempt?.exchange? {
            ASIDE => state.aside,
            party => match state.parties[usize::from(party)] {
                Party { phase: Phase::Pending(fate), sent, .. } if self.run.aside => Some((sent, fate)),
                _ => None,
            },
        }
    }

    /// The record first. Whoever finds it settled removes the file.
    fn settles_aside(&mut self, state: &State, party: u8, exchange: u8, sent: Presentation, fate: Fate) {
        let before = self.facts(state);
        let mut next = *state;
        if let Effect::Write(number, step) = self.records.call(state.record, Call::Settle(exchange, sent, fate)) {
            self.write(&mut next, number, step);
        } else if exchange == ASIDE {
            next.aside = None;
            self.leave(&mut next, ASIDE, false);
        }
        if let Fate::Done(token, _) = fate {
            next.settled |= 1 << token;
        }
        let after = self.facts(&next);
        self.check_settled(state, &mut next, (exchange, sent, fate), &before, &after);
        self.remember(&mut next, party);
        let told = self.told(&next);
        self.progress(next, |name| format!("{} settles {fate:?}, which is set aside: {told}", name(party)));
    }

    fn decided(&mut self, state: &State, party: u8) {
        let me = state.parties[usize::from(party)];
        if !me.late {
            let mut next = *state;
            next.parties[usize::from(party)].late = true;
            self.fault(state, Fault::Pause, next, |name| format!("{} PAUSES between load and claim", name(party)));
        }
        let current = if self.run.versions { me.version == state.version } else { me.version == 0 };
        if current {
            self.claims(state, party, Cause::Progress);
        } else {
            let mut next = *state;
            self.finish(&mut next, party);
            self.progress(next, |name| format!("{} cannot claim: somebody has written", name(party)));
        }
    }

    fn claims(&mut self, state: &State, party: u8, cause: Cause) {
        let mut next = *state;
        let me = state.parties[usize::from(party)];
        let Presentation { sends, token, .. } = me.sent;
        let found = if me.found.is_some() { me.found } else { state.record };
        let (mut number, step) = match self.records.call(found, Call::Claim(party, sends)) {
            Effect::Write(number, step) => (number, step),
            other => panic!("a claim is a write: {other:?}"),
        };
        if me.late {
            number = self.records.changed(number, Call::Pass(Passing::Deadline));
        }
        if self.records.facts(number).grant != self.facts(state).grant {
            next.broken.add(Property::OwnGrant);
        }
        self.write(&mut next, number, step);
        let rotates = self.run.server != Server::NoRotation;
        let trusted = rotates && !state.cases.has(Case::RolledBack);
        if trusted && presented(state, token) >= sends {
            next.broken.add(Property::Claimed);
        }
        if trusted && sends > 1 && state.claimed >> token & 1 == 0 {
            next.broken.add(Property::Counted);
        }
        next.claimed |= 1 << token;
        next.parties[usize::from(party)] = Party { phase: Phase::Claimed, found: Number::NONE, version: 0, ..me };
        let told = self.told(&next);
        self.emit(cause, next, |name| format!("{} claims token {token}, sends {sends}: {told}", name(party)));
        let mut lost = next;
        self.finish(&mut lost, party);
        self.fault(state, Fault::Store, lost, |name| {
            format!(
                "{} claims token {token}, sends {sends}; the store reports an error and cannot be read",
                name(party)
            )
        });
    }

    fn looks_once_more(&mut self, state: &State, party: u8) {
        let me = state.parties[usize::from(party)];
        let facts = self.facts(state);
        let claimed = facts.grant == me.sent.grant
            && facts.generation == me.sent.generation
            && facts.attempt.is_some_and(|attempt| attempt.exchange == Some(party));
        let mut not_sent = *state;
        not_sent.parties[usize::from(party)].phase = Phase::Holds(Fate::NotSent);
        if me.sent.sends > 1 && !claimed {
            self.progress(not_sent, |name| format!("{} looks once more: another party has taken over", name(party)));
            return;
        }
        if me.late {
            self.progress(not_sent, |name| format!("{} looks once more: it is too late", name(party)));
            return;
        }
        let mut next = *state;
        next.parties[usize::from(party)].phase = Phase::Ready;
        self.progress(next, |name| format!("{} looks once more: it may send", name(party)));
        self.fault(state, Fault::NoConnection, not_sent, |name| format!("{} gets no connection", name(party)));
    }

    fn sends(&mut self, state: &State, party: u8) {
        let mut next = *state;
        let me = &mut next.parties[usize::from(party)];
        let Presentation { grant, token, .. } = me.sent;
        me.phase = Phase::Waiting;
        let late = me.late;
        add_presented(&mut next, token, 1);
        if self.run.never_replays && self.run.server != Server::NoRotation && presented(&next, token) > 1 {
            next.broken.add(Property::Claimed);
        }
        let trusted = !state.cases.has(Case::RolledBack);
        let facts = self.facts(state);
        let holds = facts.attempt.is_some_and(|attempt| attempt.exchange == Some(party));
        if trusted && !late && !holds && facts.is_session() && facts.grant == grant {
            next.broken.add(Property::HoldsAttempt);
        }
        let open = |other: &Party| other.phase == Phase::Waiting && other.sent.grant == grant && !other.late;
        if trusted && !late && state.parties.iter().any(open) {
            next.broken.add(Property::OneExchange);
        }
        add_request(&mut next, Request { way: Way::ToServer, from: party, token });
        self.progress(next, |name| {
            format!("{} sends token {token}{}", name(party), if late { ", after its deadline" } else { "" })
        });
    }

    fn waits(&mut self, state: &State, party: u8) {
        let mine = state.requests.iter().position(|request| request.way != Way::None && request.from == party);
        let mut next = *state;
        next.parties[usize::from(party)].phase = Phase::Holds(Fate::Unknown);
        let Some(at) = mine else {
            self.progress(next, |name| format!("{} has waited in vain: Unknown", name(party)));
            return;
        };
        // The reply may still come: nobody will listen.
        abandon(&mut next, at);
        let fault = if matches!(state.requests[at].way, Way::Back(_)) { Fault::Loss } else { Fault::Ghost };
        self.fault(state, fault, next, |name| format!("{} gives up before the reply comes: Unknown", name(party)));
    }

    fn settles(&mut self, state: &State, party: u8, fate: Fate) {
        let me = state.parties[usize::from(party)];
        let before = self.facts(state);
        let effect = self.records.call(state.record, Call::Settle(party, me.sent, fate));
        let mut next = *state;
        let written = match effect {
            Effect::Write(number, step) => {
                self.write(&mut next, number, step);
                true
            }
            _ => false,
        };
        let after = self.facts(&next);
        if let Fate::Done(token, _) = fate {
            next.settled |= 1 << token;
        }
        self.check_settled(state, &mut next, (party, me.sent, fate), &before, &after);
        let done = matches!(fate, Fate::Done(..) | Fate::Same(_));
        if written && matches!(me.phase, Phase::Holds(_)) {
            // Nothing is written, or it is and the store says otherwise.
            let mut failed = *state;
            if done {
                failed.parties[usize::from(party)].phase = Phase::Pending(fate);
                let mut unsure = next;
                unsure.parties[usize::from(party)].phase = Phase::Pending(fate);
                self.fault(state, Fault::Store, unsure, |name| {
                    format!("{} settles {fate:?}; the store takes it, and reports an error", name(party))
                });
            } else {
                self.finish(&mut failed, party);
            }
            self.fault(state, Fault::Store, failed, |name| format!("{} cannot settle {fate:?}", name(party)));
        }
        self.remember(&mut next, party);
        self.finish(&mut next, party);
        let told = if written { self.told(&next) } else { "nothing to write".to_owned() };
        self.progress(next, |name| format!("{} settles {fate:?}: {told}", name(party)));
    }

    fn check_settled(
        &self,
        state: &State,
        next: &mut State,
        (party, sent, fate): (u8, Presentation, Fate),
        before: &Facts,
        after: &Facts,
    ) {
        if before.grant != after.grant {
            next.broken.add(Property::OwnGrant);
        }
        if before.state == Life::Active && after.state == Life::Ended {
            let latest = before
                .attempt
                .is_some_and(|attempt| attempt.exchange == Some(party) && attempt.generation == before.generation);
            let restored = matches!(fate, Fate::NotSent | Fate::Throttled | Fate::Refused) && self.run.anyways > 0;
            let fits = fate == Fate::InvalidGrant && after.rotation_lost == (sent.sends > 1);
            if !latest || !restored && !fits {
                next.broken.add(Property::EndedByAnswer);
            }
        }
        // Whose fault it is waits; what the server says is for all.
        let concerned = match fate {
            Fate::NotSent if self.run.local => Bound::All,
            Fate::NotSent | Fate::Refused => Bound::One(party),
            _ => Bound::All,
        };
        let failed = !matches!(fate, Fate::Done(..) | Fate::Same(_) | Fate::InvalidGrant);
        if failed && next.record != state.record && after.bound.is_some_and(|bound| bound != concerned) {
            next.broken.add(Property::BackOff);
        }
        let server = &state.server;
        let lives = |tokens: Tokens| tokens & server.living() != 0;
        let renews = |token| server.renews(self.run.server, token);
        let brought = match fate {
            Fate::Done(token, _) => 1 << token,
            Fate::Same(_) => 1 << sent.token,
            _ => 0,
        };
        let same = before.is_session() && before.grant == sent.grant;
        let kept = if same && after.is_session() {
            let dropped = (before.tokens() | brought) & server.living() & !after.tokens();
            let named = left_out(self.run.server, before, sent, dropped).filter(|_| brought != 0);
            if let Some(case) = named {
                next.cases.add(case);
                next.settled &= !dropped;
            }
            named.is_some() || !lives(before.tokens() | brought) || renews(after.token) || renews(after.spare)
        } else if before.state == Life::Forgotten || matches!(fate, Fate::Same(_)) {
            true
        } else {
            if before.tokens() & server.living() & !(after.to_revoke | after.tokens()) != 0 {
                next.broken.add(Property::OwnGrant);
            }
            brought & server.living() & !(after.to_revoke | after.tokens()) == 0
        };
        if !kept {
            next.broken.add(Property::NothingDropped);
        }
    }

    fn revokes(&mut self, state: &State, party: u8, token: Token) {
        let mut next = *state;
        if token != ACCESS {
            next.server.revoke(token, self.run.cascade);
        }
        next.parties[usize::from(party)].phase = Phase::Revoked(token);
        self.progress(next, |name| format!("the server revokes {} for {}", token_name(token), name(party)));
        let mut next = *state;
        self.finish(&mut next, party);
        self.fault(state, Fault::RevocationFails, next, |name| format!("{} cannot revoke", name(party)));
    }

    fn removes(&mut self, state: &State, party: u8, token: Token) {
        let mut next = *state;
        if let Effect::Write(number, step) = self.records.call(state.record, Call::Revoked(token)) {
            self.write(&mut next, number, step);
        }
        self.finish(&mut next, party);
        self.progress(next, |name| format!("{} notes that {} is revoked", name(party), token_name(token)));
    }

    /// The party's job is over.
    fn finish(&mut self, state: &mut State, party: u8) {
        self.leave(state, party, false);
        let me = &mut state.parties[usize::from(party)];
        *me = Party { seen: me.seen, seen_version: me.seen_version, ..IDLE };
    }

    fn leave(&mut self, state: &mut State, party: u8, dies: bool) {
        self.rename(state, Call::Leave(party, dies));
    }

    fn rename(&mut self, state: &mut State, call: Call) {
        state.record = self.records.changed(state.record, call);
        if state.before.is_some() {
            state.before = self.records.changed(state.before, call);
        }
        for other in 0..PARTIES {
            for number in [&mut state.parties[other].found, &mut state.parties[other].seen] {
                if number.is_some() {
                    *number = self.records.changed(*number, call);
                }
            }
        }
    }

    /// Killed, or its client closed while an answer was pending; what it had in memory is gone.
    fn crashes(&mut self, state: &State, party: u8) {
        let me = state.parties[usize::from(party)];
        let owns = self.facts(state).attempt.is_some_and(|attempt| attempt.owner == Some(party));
        let pending = match me.phase {
            Phase::Pending(fate) => Some(fate),
            _ => None,
        };
        let uncommitted = pending.is_some() && self.run.may(Fault::CrashUncommitted);
        let fault = if uncommitted { Fault::CrashUncommitted } else { Fault::Crash };
        if !self.may(state, fault) || me.phase == Phase::Idle && !owns && !me.seen.is_some() {
            return;
        }
        let mut next = *state;
        let kept = pending.filter(|_| self.run.aside);
        if let Some(fate) = kept {
            assert!(state.aside.is_none(), "more faults than one for each of two answers: let there be two");
            next.aside = Some((me.sent, fate));
            self.rename(&mut next, Call::SetAside(party));
        } else if let Phase::Holds(Fate::Done(..)) | Phase::Pending(Fate::Done(..)) = me.phase {
            next.cases.add(Case::LostReply);
        }
        if let Some(at) = state.requests.iter().position(|request| request.way != Way::None && request.from == party) {
            abandon(&mut next, at);
        }
        self.finish(&mut next, party);
        if pending.is_some() {
            let closed = next;
            self.fault(state, fault, closed, |name| format!("{} CLOSES its client with a commit pending", name(party)));
        }
        self.leave(&mut next, party, true);
        next.parties[usize::from(party)] = IDLE;
        if state.cases.has(Case::RolledBack) {
            self.keep_what_is_remembered(&mut next);
        }
        self.fault(state, fault, next, |name| format!("{} CRASHES ({:?})", name(party), me.phase));
    }

    // ---- the network and the server

    fn arrives(&mut self, state: &State, at: usize) {
        let Request { from, token, .. } = state.requests[at];
        let whose =
            |name: &dyn Fn(u8) -> char| if from == GONE { "a ghost's".to_owned() } else { format!("{}'s", name(from)) };
        let mut next = *state;
        if self.run.busy {
            let taken = |other: &Request| other.way == Way::Processed && other.token == token;
            let busy = state.requests.iter().any(taken);
            if busy && from == GONE {
                next.requests[at] = NO_REQUEST;
            } else {
                next.requests[at].way = if busy { Way::Back(Reply::Busy) } else { Way::Processed };
            }
            self.progress(next, |name| {
                format!("the server takes {} token {token}{}", whose(name), if busy { ": busy" } else { "" })
            });
        } else {
            self.answers(&mut next, at);
            let reply = next.requests[at].way;
            self.progress(next, |name| format!("the server takes {} token {token}: {reply:?}", whose(name)));
        }
        let mut lost = *state;
        lost.requests[at] = NO_REQUEST;
        self.fault(state, Fault::Loss, lost, |name| format!("{} request with token {token} is lost", whose(name)));
        for (fault, reply) in [(Fault::Refused, Reply::Refused), (Fault::Throttled, Reply::Throttled)] {
            let mut next = *state;
            add_presented(&mut next, token, -1);
            next.requests[at] =
                if from == GONE { NO_REQUEST } else { Request { way: Way::Back(reply), ..next.requests[at] } };
            self.fault(state, fault, next, |name| format!("the server takes {} token {token}: {reply:?}", whose(name)));
        }
    }

    fn is_answered(&mut self, state: &State, at: usize) {
        let mut next = *state;
        self.answers(&mut next, at);
        let (token, reply) = (state.requests[at].token, next.requests[at].way);
        self.progress(next, |_| format!("the server finishes token {token}: {reply:?}"));
    }

    /// The server carries out a request.
    fn answers(&self, state: &mut State, at: usize) {
        let Request { from, token, .. } = state.requests[at];
        let before = state.server.living();
        let reply = state.server.renew(self.run.server, token);
        let killed = before & !state.server.living() & !(1 << token);
        let facts = self.records.facts(state.record);
        // A request of the dead is within its time, unless it was called late or its sender is known to be dead.
        let outlives = self.run.local || self.run.may(Fault::Ghost);
        let given_up = if from == GONE { outlives } else { state.parties[usize::from(from)].late };
        let committed = facts.is_session() && facts.tokens() & killed != 0;
        let kept = |party: &Party| match party.phase {
            Phase::Holds(Fate::Done(token, _)) | Phase::Pending(Fate::Done(token, _)) => killed >> token & 1 == 1,
            _ => false,
        };
        let under_way = |request: &Request| match request.way {
            Way::Back(Reply::Done(token)) => killed >> token & 1 == 1,
            _ => false,
        };
        let aside = matches!(state.aside, Some((_, Fate::Done(token, _))) if killed >> token & 1 == 1);
        let held = aside || state.parties.iter().any(kept) || state.requests.iter().any(under_way);
        match (committed, held, given_up) {
            (false, false, _) => {}
            (_, _, true) => state.cases.add(Case::Ghost),
            (_, true, false) => state.cases.add(Case::HeldReply),
            (true, false, false) => state.cases.add(Case::LateCommit),
        }
        state.requests[at].way = Way::Back(reply);
        if from == GONE {
            abandon(state, at);
        }
    }

    fn comes_back(&mut self, state: &State, at: usize, reply: Reply) {
        let from = state.requests[at].from;
        let mut next = *state;
        next.requests[at] = NO_REQUEST;
        let mut lost = next;
        if matches!(reply, Reply::Done(_)) {
            lost.cases.add(Case::LostReply);
        }
        let fate = match reply {
            Reply::Done(token) => Fate::Done(token, true),
            Reply::Same => Fate::Same(true),
            Reply::InvalidGrant => Fate::InvalidGrant,
            Reply::Busy => Fate::Busy,
            Reply::Refused => Fate::Refused,
            Reply::Throttled => Fate::Throttled,
        };
        let me = usize::from(from);
        let unusable = match reply {
            Reply::Done(token) => Some(Fate::Done(token, false)),
            // Without any token it is no Done: see `success` in src/oauth/refresh.rs.
            _ => None,
        };
        if let Some(fate) = unusable {
            let mut next = next;
            next.parties[me].phase = Phase::Holds(fate);
            self.fault(state, Fault::Unusable, next, |name| format!("{} receives {fate:?}", name(from)));
        }
        next.parties[me].phase = Phase::Holds(fate);
        self.progress(next, |name| format!("{} receives {fate:?}", name(from)));
        self.fault(state, Fault::Loss, lost, |name| format!("the reply to {} is lost", name(from)));
        lost.parties[me].phase = Phase::Holds(Fate::Unknown);
        self.fault(state, Fault::Gateway, lost, |name| {
            format!("a gateway answers {} with 503 instead: Unknown", name(from))
        });
    }

    // ---- time, users, the store's past

    fn time_passes(&mut self, state: &State) {
        let facts = self.facts(state);
        if let Some(attempt) = facts.attempt.filter(|attempt| !attempt.late) {
            let mut next = *state;
            next.record = self.records.changed(state.record, Call::Pass(Passing::Deadline));
            let exchange = attempt.exchange.filter(|exchange| *exchange != ASIDE);
            let phase = exchange.map(|party| state.parties[usize::from(party)].phase);
            if let Some(party) = exchange {
                next.parties[usize::from(party)].late = true;
            }
            let unanswered = |request: &Request| {
                matches!(request.way, Way::ToServer | Way::Processed)
                    && (request.from == GONE || Some(request.from) == attempt.exchange)
            };
            // Without ghosts, what a server has not carried out by then is lost.
            let possible = self.run.may(Fault::Ghost) || !state.requests.iter().any(unanswered);
            match phase {
                _ if !possible => {}
                None | Some(Phase::Pending(_)) => self.progress(next, |_| "the attempt's deadline passes".to_owned()),
                Some(Phase::Ready) if !self.run.may(Fault::PauseAtSend) => {}
                Some(phase) => self.fault(state, Fault::Pause, next, |name| {
                    let party = attempt.exchange.unwrap_or(GONE);
                    format!("{} PAUSES past its deadline ({phase:?})", name(party))
                }),
            }
        }
        if self.run.local && facts.attempt.is_some_and(|attempt| attempt.late && !attempt.hung) {
            let mut next = *state;
            next.record = self.records.changed(state.record, Call::Pass(Passing::HangLimit));
            self.fault(state, Fault::Hang, next, |_| "the hang limit passes as well".to_owned());
        }
        if facts.bound.is_some() {
            let mut next = *state;
            next.record = self.records.changed(state.record, Call::Pass(Passing::BackOff));
            self.progress(next, |_| "the back-off ends".to_owned());
        }
        if facts.state != Life::Active {
            return;
        }
        if facts.stage == Stage::Good && (state.budget.renewals > 0 || facts.attempt.is_some()) {
            let mut next = *state;
            // While an attempt is open, the end costs no renewal.
            let cause = if facts.attempt.is_some() { Cause::Progress } else { Cause::Demand };
            next.budget.renewals -= u8::from(cause == Cause::Demand);
            let passing = if self.run.early && cause == Cause::Demand { Passing::Prime } else { Passing::Life };
            next.record = self.records.changed(state.record, Call::Pass(passing));
            self.emit(cause, next, |_| match passing {
                Passing::Prime => "the access token should be renewed early".to_owned(),
                _ => "the access token ends".to_owned(),
            });
        }
        if facts.stage == Stage::Early {
            let mut next = *state;
            next.record = self.records.changed(state.record, Call::Pass(Passing::Life));
            self.progress(next, |_| "the access token ends".to_owned());
        }
        if self.may(state, Fault::WindowCloses) {
            let mut next = *state;
            if next.server.close_window() {
                self.fault(state, Fault::WindowCloses, next, |_| "the grace window closes".to_owned());
            }
        }
    }

    fn users(&mut self, state: &State) {
        let facts = self.facts(state);
        if state.budget.sign_outs > 0
            && let Effect::Write(number, step) = self.records.call(state.record, Call::SignOut)
        {
            let mut next = *state;
            next.budget.sign_outs -= 1;
            next.left |= 1 << state.server.grant(facts.token);
            next.left_here |= 1 << facts.grant;
            next.settled |= 1 << facts.token;
            self.write(&mut next, number, step);
            self.emit(Cause::Demand, next, |_| "the user signs out".to_owned());
        }
        if state.budget.forgets > 0
            && let Effect::Write(number, step) = self.records.call(state.record, Call::Forget)
        {
            let mut next = *state;
            next.budget.forgets -= 1;
            next.left_here |= 1 << facts.grant;
            // The server is not told, and what waits to be revoked is forgotten as well.
            next.left = 0;
            self.write(&mut next, number, step);
            self.emit(Cause::Demand, next, |_| "the session is forgotten".to_owned());
        }
        if state.budget.sign_ins > 0 {
            let mut next = *state;
            next.budget.sign_ins -= 1;
            next.grants += 1;
            let token = next.server.sign_in();
            if let Effect::Write(number, step) = self.records.call(state.record, Call::Save(token, next.grants)) {
                self.write(&mut next, number, step);
            }
            let told = self.told(&next);
            self.emit(Cause::Demand, next, |_| format!("the user signs in with token {token}: {told}"));
        }
        if state.budget.seeds > 0 {
            let mut next = *state;
            next.budget.seeds -= 1;
            let effect = self.records.call(state.record, Call::Save(1, state.grants + 1));
            if let Effect::Write(number, step) = effect {
                next.grants += 1;
                let lives = |token| state.server.lives(token);
                if facts.is_session() && (lives(facts.token) || lives(facts.spare)) && !lives(1) {
                    next.broken.add(Property::SaveKeeps);
                }
                self.write(&mut next, number, step);
            }
            let told = self.told(&next);
            self.emit(Cause::Demand, next, |_| format!("the first token is saved again: {told}"));
        }
    }

    fn store_goes_back(&mut self, state: &State) {
        if !state.before.is_some() || state.before == state.record {
            return;
        }
        let mut next = *state;
        (next.record, next.version) = (state.before, state.before_version);
        next.before = Number::NONE;
        next.before_version = 0;
        next.cases.add(Case::RolledBack);
        self.keep_what_is_remembered(&mut next);
        for party in &mut next.parties {
            // Its write fails, unless another one makes that version again.
            party.version |= u8::from(party.phase == Phase::Decided && !self.run.versions);
        }
        let told = self.told(&next);
        self.fault(state, Fault::Rollback, next, |_| format!("the STORE GOES BACK to {told}"));
    }

    /// After the store went back, what can be healed is a generation that some party remembers.
    fn keep_what_is_remembered(&self, state: &mut State) {
        let facts = self.facts(state);
        let remembered = state.parties.iter().filter(|party| party.seen.is_some()).map(|party| {
            let seen = self.records.facts(party.seen);
            if seen.grant == facts.grant && seen.generation > facts.generation { seen.tokens() } else { 0 }
        });
        state.settled &= remembered.fold(facts.tokens(), |all, tokens| all | tokens);
    }

    // ---- checks

    /// Nothing is under way, and nobody is left with something to do.
    pub fn is_settled(&self, state: &State) -> bool {
        self.is_quiet(state) && {
            let facts = self.facts(state);
            facts.state != Life::Active || matches!(facts.stage, Stage::Good | Stage::Early)
        }
    }

    fn is_quiet(&self, state: &State) -> bool {
        let facts = self.facts(state);
        let knows_better = |party: &Party| {
            party.seen.is_some() && facts.is_session() && {
                let seen = self.records.facts(party.seen);
                seen.grant == facts.grant && seen.generation > facts.generation
            }
        };
        state.requests[0] == NO_REQUEST
            && state.aside.is_none()
            && facts.attempt.is_none()
            && facts.first_to_revoke == 0
            && state.parties.iter().all(|party| party.phase == Phase::Idle && !knows_better(party))
    }

    fn check(&self, state: &mut State) {
        if self.is_quiet(state) {
            let facts = self.facts(state);
            let server = &state.server;
            let grant = server.grant(facts.token);
            let living_of = |set: Tokens, grant: u8| {
                server
                    .tokens()
                    .any(|token| set >> token & 1 == 1 && server.grant(token) == grant && server.lives(token))
            };
            let renews = |token| server.renews(self.run.server, token);
            if facts.is_session() && facts.token != 0 {
                let own = renews(facts.token) || renews(facts.spare);
                // After a rollback, a party remembers one of two siblings of one generation.
                let sibling = self.run.server.newest_wins() && state.cases.has(Case::RolledBack);
                if !own && !sibling && living_of(state.settled, grant) {
                    state.broken.add(Property::NothingLost);
                }
                if facts.state == Life::Ended && own && !self.run.never_replays {
                    state.broken.add(Property::EndedForGood);
                }
                let chosen = facts.rotation_lost && self.run.never_replays;
                if !own && !chosen && state.left >> grant & 1 == 0 && !state.cases.cost_a_session() {
                    state.broken.add(Property::LostForACause);
                }
            }
            for grant in (1..8).filter(|grant| state.left >> grant & 1 == 1 && !server.is_revoked(*grant)) {
                if living_of(state.settled, grant) {
                    state.broken.add(Property::Revoked);
                } else if living_of(Tokens::MAX, grant) {
                    state.cases.add(Case::Orphan);
                }
            }
        }
        if state.cases.without(self.expected) != Cases::default() {
            state.broken.add(Property::Unexpected);
        }
    }

    /// Puts the parties into an order of their own: who is called A makes no difference.
    fn arrange(&mut self, state: &mut State) -> [u8; PARTIES] {
        let mut order = [0, 1, 2];
        if self.run.may(Fault::Rollback) || self.run.versions {
            return order;
        }
        let facts = self.facts(state);
        let key = |party: u8| {
            let request = state.requests.iter().find(|request| request.way != Way::None && request.from == party);
            let attempt = facts.attempt.filter(|attempt| attempt.owner == Some(party));
            let exchange = facts.attempt.is_some_and(|attempt| attempt.exchange == Some(party));
            let bound = facts.bound == Some(Bound::One(party));
            let role = (attempt.is_some(), exchange, facts.made_by == Some(party), bound);
            (state.parties[usize::from(party)], request.copied(), role)
        };
        let keys = order.map(key);
        order[..usize::from(self.run.parties)].sort_by_key(|party| keys[usize::from(*party)]);
        if order == [0, 1, 2] {
            return order;
        }
        state.parties = order.map(|old| state.parties[usize::from(old)]);
        for request in state.requests.iter_mut().filter(|request| request.way != Way::None && request.from != GONE) {
            request.from = order.iter().position(|old| *old == request.from).unwrap_or(0) as u8;
        }
        state.requests.sort_unstable();
        state.record = self.records.changed(state.record, Call::Permute(order));
        order
    }

    /// A record in words.
    fn told(&self, state: &State) -> String {
        let Some(names) = self.telling else { return String::new() };
        let name = |party: Option<u8>| party.map_or('?', |party| names[usize::from(party)]);
        let facts = self.facts(state);
        let mut told =
            format!("{:?} grant {} generation {} token {}", facts.state, facts.grant, facts.generation, facts.token);
        if facts.spare != 0 {
            told += &format!(" spare {}", facts.spare);
        }
        if let Some(attempt) = facts.attempt {
            let doubt = if attempt.doubt { " in doubt" } else { "" };
            let Some(owner) = attempt.owner else {
                return told + &format!(", a dead party's attempt{doubt}, sends {}", attempt.sends);
            };
            let generation = attempt.generation;
            told +=
                &format!(", {}'s attempt{doubt}, sends {}, generation {generation}", name(Some(owner)), attempt.sends);
        }
        if facts.to_revoke != 0 {
            told += &format!(
                ", to revoke {:?}",
                (1..15).filter(|token| facts.to_revoke >> token & 1 == 1).collect::<Vec<_>>()
            );
        }
        if self.run.versions {
            told += &format!(", version {}", state.version);
        }
        told
    }
}

/// The named case in which a Done leaves these living tokens out of a record.
fn left_out(server: Server, before: &Facts, sent: Presentation, dropped: Tokens) -> Option<Case> {
    match before.generation.cmp(&(sent.generation + 1)) {
        _ if dropped == 0 => None,
        Ordering::Equal => (before.spare != 0).then_some(Case::ThirdAnswer),
        // Where only the newest lives, the generation between was the spare.
        Ordering::Greater if server.newest_wins() => Some(Case::ThirdAnswer),
        Ordering::Greater => Some(Case::OldSibling),
        Ordering::Less => (dropped >> before.spare & 1 == 1).then_some(Case::OldSibling),
    }
}

/// Nobody waits for this request any more; a reply that is on its way is lost.
fn abandon(state: &mut State, at: usize) {
    match state.requests[at].way {
        Way::Back(reply) => {
            if matches!(reply, Reply::Done(_)) {
                state.cases.add(Case::LostReply);
            }
            state.requests[at] = NO_REQUEST;
        }
        _ => state.requests[at].from = GONE,
    }
}

fn add_request(state: &mut State, request: Request) {
    let free = state.requests.iter_mut().find(|request| request.way == Way::None);
    *free.expect("raise REQUESTS") = request;
}

fn presented(state: &State, token: Token) -> u8 {
    (state.presented >> (4 * token) & 15) as u8
}

fn add_presented(state: &mut State, token: Token, by: i8) {
    let times = (presented(state, token) as i8 + by).clamp(0, 15) as u64;
    state.presented = state.presented & !(15 << (4 * token)) | times << (4 * token);
}

fn token_name(token: Token) -> String {
    if token == ACCESS { "the access token".to_owned() } else { format!("token {token}") }
}
