//! The renewal protocol: what to do about a record ([`decide`]), and what an answer makes of it ([`settle`]).
//!
//! Pure: no I/O, no clocks, no randomness. The driver around these functions is `renewer`; `docs/protocol.md`
//! explains each rule by the failure that it prevents.

pub mod moves;
mod writes;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::fingerprint::Fingerprints;
use super::record::{Attempt, BackOff, Binds, Entry, Id, MadeBy, Owner, Place, Record, Secrets, State};
use crate::config::{EarlyRenewal, LostReply};
use crate::oauth::{Outcome, WITHDRAWN};
use crate::secret::Secret;
use crate::store::{Life as OwnerLife, Now};
use crate::token::{Answer, Life};

pub use writes::{Fresh, expires, forget, revoked, save, sign_in, sign_out};

/// On a local store, an attempt of an owner that is alive is taken over this long after its deadline.
pub const HANG_LIMIT_MS: i64 = 10 * 60 * 1000;
/// How many fingerprints of each kind, and how many history entries, a record keeps.
pub const KEPT: usize = 16;
/// The longest wait that this library chooses by itself.
pub const LONGEST_BACK_OFF_MS: i64 = 5 * 60 * 1000;
/// A tombstone is kept at least this long after the last open attempt's deadline.
pub const TOMBSTONE_MS: i64 = 24 * 60 * 60 * 1000;

/// What a party knows when it decides.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// The record, if there is one.
    pub record: Option<&'a Record>,
    /// The store's clock, read with the record.
    pub now: &'a Now,
    /// Unix time in milliseconds.
    pub wall_ms: i64,
    /// Who decides.
    pub party: &'a Party,
    /// What is known of the owner of the record's attempt.
    pub owner: OwnerLife,
    /// An exchange of the record's attempt runs in this process.
    pub runs_here: bool,
    /// The record of the highest generation that this party has committed or adopted: a store that went back in time
    /// is healed from it.
    pub seen: Option<&'a Record>,
}

/// One who may renew: a process with a client on the store.
#[derive(Clone, Debug)]
pub struct Party {
    /// How attempts name it.
    pub owner: Owner,
    /// The fingerprint of its client registration.
    pub configuration: String,
    /// Its rules.
    pub policy: Policy,
}

/// The part of the configuration that decides.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// `false`: never spend a refresh token.
    pub renews: bool,
    /// What to do about a doubt.
    pub lost_reply: LostReply,
    /// Whether to renew early.
    pub early_renewal: EarlyRenewal,
    /// How long before its end a token is renewed early; `None`: a part of its life.
    pub renew_before_ms: Option<i64>,
    /// All parties are processes of this machine.
    pub local: bool,
    /// 0 to 1023: this session's [place](place_in_window) in the early window.
    pub jitter: i64,
}

/// What a caller wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// A token that stays valid for this long.
    Token {
        /// Milliseconds.
        min_valid_ms: i64,
    },
    /// A token other than this one, which a resource server has rejected.
    OtherThan(Secret),
    /// A token of a later generation than this one; `None`: than any.
    Newer {
        /// What the caller has seen.
        than: Option<(Id, u64)>,
        /// Go past an end or a back-off once.
        anyway: bool,
    },
    /// That no doubt is left.
    NoDoubt,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The token is good. `early`: begin to renew it as well.
    Serve {
        /// In the early window, and nothing forbids a claim with this many sends.
        early: Option<u32>,
    },
    /// Another party has renewed: take its token.
    Adopt,
    /// Another party's attempt is open: look again until it settles.
    Wait,
    /// No traffic.
    Refuse(Refusal),
    /// Write an attempt with this many sends, then exchange, then settle.
    Claim {
        /// 1: a first send; more: a replay.
        sends: u32,
    },
    /// Write this record, then decide again.
    Write(Box<Record>, Correction),
}

/// Why a record is written without an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// The store went back in time; this is what it had.
    RolledBack,
    /// The configuration prefers a new sign-in to a replay.
    DoubtEnded,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Only a new sign-in helps.
    SignIn {
        /// Why.
        reason: String,
    },
    /// A back-off that binds this party is running.
    BackOff {
        /// How long it still runs.
        retry_after_ms: i64,
        /// What caused it.
        cause: String,
        /// The cause's `reason`.
        reason: String,
        /// Whom it binds.
        binds: Binds,
        /// An attempt in doubt waits for its end.
        doubt: bool,
    },
    /// It is kept in another store, or will be.
    Away {
        /// It is there.
        arrived: bool,
        /// Where.
        place: Option<Place>,
    },
}

impl Refusal {
    fn sign_in(reason: &str) -> Decision {
        Decision::Refuse(Refusal::SignIn { reason: reason.to_owned() })
    }
}

/// The next step of a party that wants something of a session. The first rule that fits counts.
pub fn decide(situation: &Situation, want: &Want) -> Decision {
    let Some(record) = situation.record else { return Refusal::sign_in("no_session") };
    let anyway = matches!(want, Want::Newer { anyway: true, .. });
    match record.state {
        State::Forgotten => return Refusal::sign_in("no_session"),
        State::SignedOut => return Refusal::sign_in("signed_out"),
        State::Moving | State::Moved => return away(situation, record, want),
        State::Active | State::Ended => {}
    }
    if let Some(seen) = situation.seen
        && seen.grant == record.grant
        && seen.generation > record.generation
        && situation.party.policy.renews
    {
        return Decision::Write(Box::new(restored(record, seen)), Correction::RolledBack);
    }
    if record.state == State::Ended {
        let reason = record.reason.as_deref().unwrap_or("expired_or_revoked");
        if !anyway || reason == "rotation_lost" || reason == "no_refresh_token" {
            return Refusal::sign_in(reason);
        }
        return renewal(situation, record, true);
    }
    let wall_ms = situation.wall_ms;
    match want {
        Want::Token { min_valid_ms } if record.serves(wall_ms, *min_valid_ms) => {
            let early = situation.party.policy.is_early(record.life.as_ref(), wall_ms);
            match renewal(situation, record, false) {
                Decision::Claim { sends } if early => Decision::Serve { early: Some(sends) },
                _ => Decision::Serve { early: None },
            }
        }
        Want::OtherThan(rejected)
            if record.secrets.access_token.as_ref() != Some(rejected) && record.serves(wall_ms, 0) =>
        {
            Decision::Adopt
        }
        Want::Newer { than: Some(than), .. } if record.is_newer(*than) && record.serves(wall_ms, 0) => Decision::Adopt,
        Want::NoDoubt if record.attempt.as_ref().is_none_or(|attempt| attempt.generation < record.generation) => {
            Decision::Serve { early: None }
        }
        _ => renewal(situation, record, anyway),
    }
}

/// The rules of [`decide`] for a session on its way to another store, or there: its token is good, and nobody renews it.
fn away(situation: &Situation, record: &Record, want: &Want) -> Decision {
    match want {
        Want::Token { min_valid_ms } if record.serves(situation.wall_ms, *min_valid_ms) => {
            Decision::Serve { early: None }
        }
        _ => Decision::Refuse(Refusal::Away {
            arrived: record.state == State::Moved,
            place: record.moved.as_ref().map(|moved| moved.place.clone()),
        }),
    }
}

/// The rules of [`decide`] for a token that must be renewed.
fn renewal(situation: &Situation, record: &Record, anyway: bool) -> Decision {
    let party = situation.party;
    if let Some(back_off) = &record.back_off
        && !anyway
        && let Some(retry_after_ms) = back_off.runs_for(situation.now)
        && back_off.binds(party)
    {
        return Decision::Refuse(Refusal::BackOff {
            retry_after_ms,
            cause: back_off.cause.clone(),
            reason: back_off.reason.clone(),
            binds: back_off.binds.clone(),
            doubt: record.attempt.is_some(),
        });
    }
    if record.secrets.refresh_token.is_none() {
        return Refusal::sign_in("no_refresh_token");
    }
    let sends = match &record.attempt {
        None => 1,
        Some(attempt) if !takeable(situation, attempt) => return Decision::Wait,
        Some(barrier) if barrier.generation < record.generation => 1,
        Some(attempt) => attempt.sends.saturating_add(1),
    };
    if !party.policy.renews {
        return Decision::Wait;
    }
    if sends > 1 && party.policy.lost_reply == LostReply::SignIn {
        let mut ended = record.next();
        ended.end("rotation_lost");
        return Decision::Write(Box::new(ended), Correction::DoubtEnded);
    }
    Decision::Claim { sends }
}

/// Whether the exchange of an open attempt is known, or must be assumed, to be over.
fn takeable(situation: &Situation, attempt: &Attempt) -> bool {
    let late_ms = situation.now.ms - attempt.until_ms;
    let mine = attempt.owner.handle == situation.party.owner.handle;
    attempt.doubt
        || match situation.owner {
            _ if mine => !situation.runs_here,
            OwnerLife::Dead => true,
            OwnerLife::Unknown => late_ms >= 0,
            OwnerLife::Alive => situation.party.policy.local && late_ms >= HANG_LIMIT_MS,
        }
}

/// The attempt that this decision takes over, or gives up: if its answer is set aside on this machine, that is settled
/// instead.
pub fn takes_over(decision: &Decision, record: Option<&Record>) -> Option<Id> {
    let takes = matches!(
        decision,
        Decision::Claim { .. } | Decision::Serve { early: Some(_) } | Decision::Write(_, Correction::DoubtEnded)
    );
    Some(record?.attempt.as_ref().filter(|_| takes)?.id)
}

/// The record with a new attempt in it: the write that comes before the refresh token is sent.
pub fn claim(record: &Record, attempt: Attempt) -> Record {
    let mut claimed = record.next();
    // A session that had ended keeps its reason until the server has answered.
    claimed.state = State::Active;
    claimed.attempt = Some(attempt);
    claimed
}

/// The record as this party has seen it before the store went back in time.
fn restored(record: &Record, seen: &Record) -> Record {
    let mut restored = record.next();
    restored.version = restored.version.max(seen.version.saturating_add(1));
    let keys = Fingerprints::of(record);
    if let Some(old) = &record.secrets.refresh_token
        && seen.secrets.refresh_token.as_ref() != Some(old)
    {
        remember(&mut restored.known.spent, keys.of_token(old));
    }
    restored.state = seen.state;
    restored.reason.clone_from(&seen.reason);
    restored.signature_mismatch = seen.signature_mismatch;
    restored.generation = seen.generation;
    restored.life = seen.life;
    restored.renewed_at_ms = seen.renewed_at_ms;
    restored.made_by = seen.made_by;
    restored.attempt = None;
    restored.secrets.refresh_token.clone_from(&seen.secrets.refresh_token);
    restored.secrets.access_token.clone_from(&seen.secrets.access_token);
    restored.secrets.members.clone_from(&seen.secrets.members);
    restored.secrets.spare = None;
    restored
}

/// A presentation of a refresh token: what its claim wrote.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sent {
    /// The attempt's id.
    pub attempt: Id,
    /// The grant.
    pub grant: Id,
    /// The generation whose refresh token was sent.
    pub generation: u64,
    /// The claim's `sends`.
    pub sends: u32,
    /// The refresh token.
    pub refresh_token: Secret,
}

/// When and by whom an outcome is settled.
#[derive(Clone, Debug)]
pub struct Moment<'a> {
    /// The store's clock.
    pub now: &'a Now,
    /// Unix time in milliseconds.
    pub wall_ms: i64,
    /// The party, as history shows it.
    pub party: &'a str,
    /// How long the exchange took.
    pub duration_ms: u64,
    /// The life of the access token in a Done.
    pub life: Option<Life>,
    /// 0 to 1023: spreads back-offs.
    pub jitter: i64,
}

/// The record that an outcome makes of the one that is found, or `None`: nothing to write. The comments name the rows
/// of the table in `docs/protocol.md`.
///
/// It goes by grant, generation and attempt id, never by version: an answer for generation g beats everything that is
/// known of g, however late it comes.
pub fn settle(record: Option<&Record>, sent: &Sent, outcome: &Outcome, moment: &Moment) -> Option<Record> {
    let record = record?; // row 11
    let spent = Fingerprints::of(record).of_token(&sent.refresh_token);
    let settled = match outcome {
        Outcome::Done(answer) => settle_done(record, sent, &spent, answer, moment),
        _ => settle_failure(record, sent, &spent, outcome, moment),
    };
    settled.map(|mut settled| {
        settled.note(spent, outcome, moment);
        settled
    })
}

fn settle_done(record: &Record, sent: &Sent, spent: &Arc<str>, answer: &Answer, moment: &Moment) -> Option<Record> {
    // A server that answers with the same refresh token does not rotate it.
    let successor = answer.refresh_token.as_ref().filter(|token| **token != sent.refresh_token);
    let mut next = record.next();
    match record.state {
        State::Forgotten => return None, // row 11
        State::Active | State::Ended | State::Moving if record.grant == sent.grant => {}
        State::Moved if record.grant == sent.grant => return None, // it lives on elsewhere
        _ => {
            // Rows 9 and 10: the grant is gone here, so it must go at the server.
            let token = successor?;
            if record.secrets.to_revoke.contains(token) || record.secrets.holds(token) {
                return None;
            }
            next.secrets.to_revoke.push(token.clone());
            return Some(next);
        }
    }
    let mine = record.attempt.as_ref().is_some_and(|attempt| attempt.id == sent.attempt);
    if record.generation <= sent.generation {
        // Rows 1 to 4. A lower generation is a store that went back in time: what was sent was written once.
        let barrier = record.attempt.as_ref().filter(|attempt| !mine && !attempt.doubt);
        next.attempt = barrier.filter(|_| record.generation == sent.generation).cloned();
        next.generation = sent.generation + 1;
        next.secrets.refresh_token = Some(successor.unwrap_or(&sent.refresh_token).clone());
        next.secrets.spare = None;
        if successor.is_some() {
            remember(&mut next.known.spent, Arc::clone(spent));
        }
        next.back_off = None;
        next.adopt(sent, answer, moment);
        return Some(next);
    }
    if record.generation > sent.generation + 1 {
        return None; // row 8
    }
    let made_by_me = record.made_by.is_some_and(|by| by.attempt == sent.attempt);
    let keys = Fingerprints::of(record);
    // One that was replaced in row 7 comes again if its commit was reported as failed.
    let is_spent = |token: &Secret| record.known.spent.contains(&keys.of_token(token));
    let fresh = successor.filter(|token| !made_by_me && !record.secrets.holds(token) && !is_spent(token));
    if record.state == State::Ended {
        // Row 7
        let refused = next.secrets.refresh_token.replace(fresh?.clone());
        refused.iter().for_each(|token| remember(&mut next.known.spent, keys.of_token(token)));
        next.secrets.spare = None;
        next.adopt(sent, answer, moment);
        return Some(next);
    }
    if mine {
        next.attempt = None; // row 5: my own barrier
    }
    let Some(fresh) = fresh else { return mine.then_some(next) };
    let used = record.attempt.as_ref().is_some_and(|attempt| attempt.generation == record.generation);
    if !used && sent.sends > record.made_by.map_or(0, |by| by.sends) {
        // Row 5: two were answered; the later presentation counts, the other answer is the spare.
        next.secrets.spare = next.secrets.refresh_token.replace(fresh.clone());
        next.adopt(sent, answer, moment);
    } else {
        next.secrets.spare = Some(fresh.clone()); // rows 5 and 6
    }
    Some(next)
}

/// A server that does not rotate has answered to this very token before: nobody else's use has ended it.
fn why_ended<'a>(record: &Record, spent: &Arc<str>, reason: &'a str) -> &'a str {
    let answered =
        |entry: &Arc<Entry>| entry.outcome == "done" && entry.refresh_token_fingerprint.as_ref() == Some(spent);
    if reason == "used_elsewhere_or_revoked" && record.history.iter().any(answered) {
        return "expired_or_revoked";
    }
    reason
}

fn settle_failure(
    record: &Record,
    sent: &Sent,
    spent: &Arc<str>,
    outcome: &Outcome,
    moment: &Moment,
) -> Option<Record> {
    let mine = record.attempt.as_ref().filter(|attempt| attempt.id == sent.attempt)?;
    if record.state != State::Active || record.grant != sent.grant {
        return None; // rows 4, 7, 9, 10, 11
    }
    let mut next = record.next();
    if record.generation != mine.generation {
        next.attempt = None; // row 5: my own barrier
        return Some(next);
    }
    // Row 1
    match outcome {
        Outcome::Done(_) => return None,
        Outcome::InvalidGrant(failure) => {
            next.attempt = None;
            match next.secrets.spare.take() {
                Some(spare) => next.promote(spare, spent),
                None if sent.sends > 1 => next.end("rotation_lost"),
                None => next.end(why_ended(record, spent, failure.reason)),
            }
            return Some(next);
        }
        // Only this send is undone: an earlier one may still have been processed.
        Outcome::NotSent(_) | Outcome::Refused(_) if sent.sends == 1 => {
            next.attempt = None;
            if next.reason.is_some() {
                next.state = State::Ended; // as it was before this try
            }
        }
        Outcome::NotSent(_) | Outcome::Refused(_) | Outcome::Busy(_) | Outcome::Unknown(_) => {
            next.attempt = Some(Attempt { doubt: true, ..mine.clone() });
        }
    }
    next.back_off = back_off(record.back_off.as_ref(), sent, outcome, moment);
    Some(next)
}

/// How long those whom `outcome` binds must wait.
fn back_off(before: Option<&BackOff>, sent: &Sent, outcome: &Outcome, moment: &Moment) -> Option<BackOff> {
    let failure = outcome.failure()?;
    if failure.reason == WITHDRAWN {
        // A party that is being closed went back on its claim: nobody has failed, the next one may claim at once.
        return before.cloned();
    }
    let binds = match outcome {
        Outcome::Busy(_) | Outcome::Unknown(_) => Binds::All,
        _ => failure.binds.clone(),
    };
    let count = before.filter(|before| before.binds == binds).map_or(0, |before| before.count).saturating_add(1);
    let first_ms = match outcome {
        // A lost reply is replayed at once: a server's window for that may be short.
        Outcome::Unknown(_) if sent.sends == 1 => 0,
        Outcome::Busy(_) => 250,
        _ => 1000,
    };
    let chosen_ms = (first_ms << (count - 1).min(20)).min(LONGEST_BACK_OFF_MS);
    // Chosen waits are shortened by up to a half, a server's word is only ever lengthened.
    let wait_ms = match failure.retry_after_ms {
        Some(asked) => {
            let asked = i64::try_from(asked).unwrap_or(i64::MAX / 2).min(24 * 60 * 60 * 1000);
            asked + asked.min(10_000) * moment.jitter / 10_240
        }
        None => chosen_ms - chosen_ms * moment.jitter / 2048,
    };
    Some(BackOff {
        until_ms: moment.now.ms + wait_ms,
        clock: moment.now.clock.clone(),
        count,
        binds,
        cause: failure.message.clone(),
        reason: failure.reason.to_owned(),
    })
}

/// A session's place in the early window, 0 to 1023, as a process of this place sees it. Three quarters are the grant's,
/// the same for all: of many processes the earliest renews, so that places of their own would put every session at the
/// window's beginning.
pub fn place_in_window(grant: Id, process: i64) -> i64 {
    let grant = (grant.0 & 1023) as i64;
    (3 * grant + process) / 4
}

impl Policy {
    /// The moment from which a token of this life is renewed early, Unix time in milliseconds; `None`: never.
    pub fn early_from_ms(&self, life: &Life) -> Option<i64> {
        let until_ms = life.until_ms.filter(|_| self.early_renewal != EarlyRenewal::Off)?;
        let length_ms = (until_ms - life.from_ms).max(0);
        // A configured time is kept to within a fifth; the default spreads a fleet over half of its window.
        let (before_ms, spread_ms) = match self.renew_before_ms {
            Some(before_ms) => {
                let before_ms = before_ms.min(length_ms / 2);
                (before_ms, before_ms / 5)
            }
            None => {
                let before_ms = (length_ms / 5).min(10 * 60 * 1000);
                (before_ms, before_ms / 2)
            }
        };
        Some(until_ms - before_ms + spread_ms * self.jitter / 1024)
    }

    fn is_early(&self, life: Option<&Life>, wall_ms: i64) -> bool {
        life.and_then(|life| self.early_from_ms(life)).is_some_and(|from_ms| wall_ms >= from_ms)
    }
}

impl BackOff {
    /// How long it still runs.
    pub fn runs_for(&self, now: &Now) -> Option<i64> {
        (self.clock == now.clock && now.ms < self.until_ms).then(|| self.until_ms - now.ms)
    }

    fn binds(&self, party: &Party) -> bool {
        match &self.binds {
            Binds::All => true,
            Binds::Host(host) => *host == party.owner.host,
            Binds::Configuration(fingerprint) => *fingerprint == party.configuration,
        }
    }
}

impl Secrets {
    fn holds(&self, token: &Secret) -> bool {
        self.refresh_token.as_ref() == Some(token) || self.spare.as_ref() == Some(token)
    }
}

impl Record {
    /// A copy with the next version.
    fn next(&self) -> Self {
        Self { version: self.version.wrapping_add(1).max(1), ..self.clone() }
    }

    /// Whether it is a later generation, or another grant, than this one.
    pub fn is_newer(&self, than: (Id, u64)) -> bool {
        self.grant != than.0 || self.generation > than.1
    }

    /// Whether the access token is valid for `min_valid_ms` from now on.
    pub fn serves(&self, wall_ms: i64, min_valid_ms: i64) -> bool {
        matches!(self.state, State::Active | State::Moving)
            && self.reason.is_none()
            && self.secrets.access_token.is_some()
            && self
                .life
                .as_ref()
                .is_none_or(|life| life.until_ms.is_none_or(|until_ms| wall_ms.saturating_add(min_valid_ms) < until_ms))
    }

    /// Takes over the access token of a Done.
    fn adopt(&mut self, sent: &Sent, answer: &Answer, moment: &Moment) {
        if self.state != State::Moving {
            self.state = State::Active;
        }
        self.reason = None;
        self.made_by = Some(MadeBy { attempt: sent.attempt, sends: sent.sends });
        self.take_access_token(answer, moment.life, moment.wall_ms);
    }

    fn take_access_token(&mut self, answer: &Answer, life: Option<Life>, wall_ms: i64) {
        self.secrets.access_token.clone_from(&answer.access_token);
        self.secrets.members = Some(answer.members.clone());
        self.life = life.filter(|_| answer.access_token.is_some());
        self.renewed_at_ms = wall_ms;
        self.signature_mismatch = answer.signature_mismatch;
    }

    /// The server refuses the refresh token, but it has answered somebody with a second one.
    fn promote(&mut self, spare: Secret, spent: &Arc<str>) {
        remember(&mut self.known.spent, Arc::clone(spent));
        self.secrets.refresh_token = Some(spare);
        // Its access token went to somebody else.
        self.secrets.access_token = None;
        self.secrets.members = None;
        self.life = None;
        self.generation += 1;
    }

    fn end(&mut self, reason: &str) {
        self.state = State::Ended;
        self.reason = Some(reason.to_owned());
        self.attempt = None;
        self.back_off = None;
    }

    fn note(&mut self, spent: Arc<str>, outcome: &Outcome, moment: &Moment) {
        self.push(Entry {
            at_ms: moment.wall_ms,
            party: moment.party.to_owned(),
            outcome: outcome.name().to_owned(),
            reason: outcome.failure().map(|failure| failure.reason.to_owned()),
            refresh_token_fingerprint: Some(spent),
            duration_ms: Some(moment.duration_ms),
        });
    }

    fn push(&mut self, entry: Entry) {
        self.history.push(Arc::new(entry));
        let surplus = self.history.len().saturating_sub(KEPT);
        self.history.drain(..surplus);
    }
}

/// Keeps the last [`KEPT`] different fingerprints.
fn remember(fingerprints: &mut Vec<Arc<str>>, fingerprint: Arc<str>) {
    fingerprints.retain(|kept| *kept != fingerprint);
    fingerprints.push(fingerprint);
    let surplus = fingerprints.len().saturating_sub(KEPT);
    fingerprints.drain(..surplus);
}
