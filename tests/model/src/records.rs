//! Real records, by number. A record is brought into a canonical form after each call of a real function (ids, versions
//! and times are numbers that are used again), and kept once. The functions are pure, so the result of a call is kept
//! too: what a search of millions of states costs is a look into a table.
//!
//! What makes no difference to the rules is left out: the version (a state has it), `history` (it words the reason of an
//! end), `renewed_at_ms`, `delete_after_ms`, texts of errors, and how often in a row a back-off was. Time stands still at
//! [`NOW_MS`] and [`WALL_MS`]; what passes is written into the record instead: see [`Call::Pass`].

use evergrant::Secret;
use evergrant::config::{EarlyRenewal, LostReply};
use evergrant::oauth::{Failure, Outcome};
use evergrant::session::fingerprint::Fingerprints;
use evergrant::session::protocol::{
    Correction, Decision, Fresh, HANG_LIMIT_MS, Moment, Party, Policy, Refusal, Sent, Situation, Want,
};
use evergrant::session::record::{Attempt, Binds, Id, MadeBy, Owner, Record, State};
use evergrant::store::{Life as OwnerLife, Now};
use evergrant::token::{Answer, Expiry, Life};
use hashbrown::HashMap;
use serde_json::Map;

use crate::rules::Rules;
use crate::servers::{Token, Tokens};

/// The store's clock.
const NOW_MS: i64 = 100_000_000;
/// The wall clock.
const WALL_MS: i64 = 1_700_000_000_000;
/// From a claim to its deadline.
const LEASE_MS: i64 = 100_000;
/// The version of every record in the table.
const VERSION: i64 = 1_000;
/// The version that a really new record is given.
const NEW_VERSION: i64 = 1_000_000;
/// The ids of attempts whose exchange is over: nobody compares them with anything.
const OVER: [Id; 2] = [Id(100), Id(101)];
/// The handle of all processes that have died.
const DEAD: Id = Id(200);
/// The access token; that another one is as good as this one is [`Facts::stage`].
const ACCESS_TOKEN: &str = "at";
/// [`ACCESS_TOKEN`] in lists of tokens.
pub const ACCESS: Token = 15;

/// At most this many parties.
pub const PARTIES: usize = 3;
/// In the place of a party: the exchange whose answer is set aside, and whose party holds it no longer.
pub const ASIDE: u8 = PARTIES as u8;

/// A record in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Number(u32);

impl Number {
    /// No record.
    pub const NONE: Number = Number(u32::MAX);

    /// Whether it stands for a record.
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}

/// How far something has aged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Passing {
    /// The attempt's deadline.
    Deadline,
    /// The time after it that a local store grants to an owner that is alive.
    HangLimit,
    /// The back-off.
    BackOff,
    /// The first part of the access token's life: renew it early.
    Prime,
    /// The access token's life.
    Life,
}

/// How old the access token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// There is none.
    None,
    /// Good.
    Good,
    /// Good, and to be renewed early.
    Early,
    /// Over.
    Over,
}

/// What a party wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// A good token.
    Token,
    /// Another one than the current.
    Other,
    /// The same, past an end or a back-off.
    Anyway,
    /// That no doubt is left.
    NoDoubt,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fate {
    /// Done with a refresh token; `true`: and with an access token.
    Done(Token, bool),
    /// Done without a refresh token.
    Same(bool),
    /// The refresh token is dead.
    InvalidGrant,
    /// No connection, or too late.
    NotSent,
    /// 429.
    Throttled,
    /// The server refuses the client.
    Refused,
    /// Somebody else is spending it.
    Busy,
    /// Nobody knows.
    Unknown,
}

/// A presentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Presentation {
    /// The grant here.
    pub grant: u8,
    /// The generation.
    pub generation: u8,
    /// The claim's sends.
    pub sends: u8,
    /// The refresh token.
    pub token: Token,
}

/// A call of a function under test, or a change of names or times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// `decide`
    Decide(Look),
    /// `claim` by this party, with this many sends.
    Claim(u8, u8),
    /// `settle` by this party.
    Settle(u8, Presentation, Fate),
    /// `save` of this token as this grant.
    Save(Token, u8),
    /// `sign_out`
    SignOut,
    /// `forget`
    Forget,
    /// `revoked` of this token.
    Revoked(Token),
    /// This party's exchange is over; `true`: the party itself is, too.
    Leave(u8, bool),
    /// This party's answer is set aside, and the party holds it no longer.
    SetAside(u8),
    /// The parties change places: `order[new] = old`.
    Permute([u8; PARTIES]),
    /// Time passes.
    Pass(Passing),
    /// What a party remembers of it.
    Remember,
}

/// What a party knows, besides the record, when it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Look {
    /// Who.
    pub party: u8,
    /// What it knows of the attempt's owner.
    pub owner: Pulse,
    /// What it remembers.
    pub seen: Number,
    /// How much higher that one's version is.
    pub seen_ahead: i8,
    /// What it wants.
    pub wanted: Wanted,
    /// The answer of the record's attempt is set aside.
    pub aside: bool,
}

/// What is known of an attempt's owner: [`OwnerLife`], which has no hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pulse {
    /// It is alive.
    Alive,
    /// It is dead.
    Dead,
    /// Nothing is known.
    Unknown,
}

/// What a call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// No write; a caller is served, adopts or waits.
    Nothing,
    /// An end or a tombstone: only a new sign-in helps.
    SignIn,
    /// A back-off binds.
    BackOff,
    /// Claim with this many sends.
    Claim(u8),
    /// Settle the answer that is set aside.
    SettleAside,
    /// Write this record, whose version is that many higher. [`NEW`]: a new one.
    Write(Number, i16),
}

/// The step of a version that was drawn anew.
pub const NEW: i16 = i16::MIN;

/// An attempt, as [`Facts`] has it.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// The party whose exchange it is, if that is open; [`ASIDE`], if its answer is.
    pub exchange: Option<u8>,
    /// The party that owns it, if that lives.
    pub owner: Option<u8>,
    /// Its generation.
    pub generation: u8,
    /// Its sends.
    pub sends: u8,
    /// Nobody knows its outcome.
    pub doubt: bool,
    /// It is past its deadline.
    pub late: bool,
    /// It is past the hang limit as well.
    pub hung: bool,
}

/// What the search asks of a record again and again.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Its state.
    pub state: State,
    /// `rotation_lost`
    pub rotation_lost: bool,
    /// The grant here.
    pub grant: u8,
    /// The generation.
    pub generation: u8,
    /// The refresh token.
    pub token: Token,
    /// The spare.
    pub spare: Token,
    /// The access token's age.
    pub stage: Stage,
    /// The attempt.
    pub attempt: Option<Trial>,
    /// The party whose open exchange made this generation.
    pub made_by: Option<u8>,
    /// The party that the back-off binds.
    pub bound: Option<Bound>,
    /// The first token to revoke.
    pub first_to_revoke: Token,
    /// All refresh tokens to revoke.
    pub to_revoke: Tokens,
}

/// Whom a back-off binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// All.
    All,
    /// One party.
    One(u8),
}

impl Facts {
    /// Whether it is a session's, not a tombstone.
    pub fn is_session(&self) -> bool {
        matches!(self.state, State::Active | State::Ended)
    }

    /// Its refresh token and spare.
    pub fn tokens(&self) -> Tokens {
        (1 << self.token | 1 << self.spare) & !1
    }
}

/// What a run cares for; the rest is left out of its records.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Fingerprints, for `save`.
    pub known: bool,
    /// Back-offs. Without them a party may claim at any time: what they allow is a part of that.
    pub back_off: bool,
    /// All parties are on one machine.
    pub local: bool,
    /// A doubt ends the session.
    pub never_replays: bool,
}

/// The table.
pub struct Records {
    rules: Rules,
    keep: Keep,
    records: Vec<(Record, Facts)>,
    numbers: HashMap<String, Number>,
    effects: HashMap<(Number, Call), Effect>,
    seed: std::sync::Arc<str>,
    members: [Party; PARTIES],
    now: Now,
}

impl Records {
    /// An empty table.
    pub fn new(rules: Rules, keep: Keep) -> Self {
        let policy = Policy {
            renews: true,
            lost_reply: if keep.never_replays { LostReply::SignIn } else { LostReply::Replay },
            early_renewal: EarlyRenewal::Background,
            renew_before_ms: None,
            local: keep.local,
            jitter: 0,
        };
        let members = [0, 1, 2].map(|party| Party {
            owner: owner(party, keep.local),
            configuration: format!("configuration-{party}"),
            policy,
        });
        let mut records = Self {
            rules,
            keep,
            records: Vec::new(),
            numbers: HashMap::new(),
            effects: HashMap::new(),
            seed: "".into(),
            members,
            now: Now { ms: NOW_MS, clock: "clock".to_owned() },
        };
        let first = records.saved(None, 1, 1).expect("a session");
        records.seed = Fingerprints::of(&first).of_token(&secret(1));
        records.number(first);
        records
    }

    /// The session as it is saved at first.
    pub fn first(&self) -> Number {
        Number(0)
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What is asked of a record again and again.
    pub fn facts(&self, number: Number) -> &Facts {
        &self.records[number.0 as usize].1
    }

    /// The record.
    pub fn record(&self, number: Number) -> &Record {
        &self.records[number.0 as usize].0
    }

    /// The effect of a call.
    pub fn call(&mut self, record: Number, call: Call) -> Effect {
        if let Some(effect) = self.effects.get(&(record, call)) {
            return *effect;
        }
        let effect = self.carry_out(record, call);
        self.effects.insert((record, call), effect);
        effect
    }

    /// The same for calls that always make a record.
    pub fn changed(&mut self, record: Number, call: Call) -> Number {
        match self.call(record, call) {
            Effect::Write(number, _) => number,
            _ => record,
        }
    }

    fn carry_out(&mut self, number: Number, call: Call) -> Effect {
        let found = self.record(number).clone();
        let record = Some(&found);
        let moment = self.moment("party");
        let next = match call {
            Call::Decide(look) => return self.decide(&found, look),
            Call::Claim(party, sends) => Some((self.rules.claim)(&found, self.attempt(&found, party, sends))),
            Call::Settle(party, sent, fate) => {
                let sent = Sent {
                    attempt: exchange(party),
                    grant: grant(sent.grant),
                    generation: u64::from(sent.generation),
                    sends: u32::from(sent.sends),
                    refresh_token: secret(sent.token),
                };
                (self.rules.settle)(record, &sent, &self.outcome(fate, party), &moment)
            }
            Call::Save(token, grant) => self.saved(record, token, grant),
            Call::SignOut => (self.rules.sign_out)(record, true, &moment),
            Call::Forget => (self.rules.forget)(record, &moment),
            Call::Revoked(token) => (self.rules.revoked)(record, &secret(token)),
            Call::Leave(party, dies) => {
                let exchange_at = |at: u8| (at != party).then_some(at);
                Some(renamed(found, exchange_at, |at| (at != party || !dies).then_some(at)))
            }
            Call::SetAside(party) => Some(renamed(found, |at| Some(if at == party { ASIDE } else { at }), Some)),
            Call::Permute(order) => {
                let place = |old: u8| match order.iter().position(|at| *at == old) {
                    Some(at) => Some(at as u8),
                    None => Some(old).filter(|old| *old == ASIDE),
                };
                Some(self.rebound(renamed(found, place, place), place))
            }
            Call::Pass(passing) => Some(passed(found, passing)),
            Call::Remember => Some(remembered(found)),
        };
        match next {
            None => Effect::Nothing,
            Some(next) => {
                let step = if next.version == NEW_VERSION { NEW } else { (next.version - VERSION) as i16 };
                Effect::Write(self.number(next), step)
            }
        }
    }

    fn decide(&mut self, found: &Record, Look { party, owner, seen, seen_ahead, wanted, aside }: Look) -> Effect {
        let seen = seen.is_some().then(|| {
            let seen = self.record(seen).clone();
            Record { version: VERSION + i64::from(seen_ahead), ..seen }
        });
        let want = match wanted {
            Wanted::Token => Want::Token { min_valid_ms: 0 },
            Wanted::Other => Want::OtherThan(Secret::new(ACCESS_TOKEN)),
            Wanted::Anyway => Want::Newer { than: Some((found.grant, found.generation)), anyway: true },
            Wanted::NoDoubt => Want::NoDoubt,
        };
        let situation = Situation {
            record: Some(found),
            now: &self.now,
            wall_ms: WALL_MS,
            party: &self.members[usize::from(party)],
            owner: match owner {
                Pulse::Alive => OwnerLife::Alive,
                Pulse::Dead => OwnerLife::Dead,
                Pulse::Unknown => OwnerLife::Unknown,
            },
            // A party decides only while none of its exchanges runs.
            runs_here: false,
            seen: seen.as_ref(),
        };
        let decision = (self.rules.decide)(&situation, &want);
        if aside && (self.rules.takes_over)(&decision, Some(found)).is_some() {
            return Effect::SettleAside;
        }
        match decision {
            Decision::Serve { early: None } | Decision::Adopt | Decision::Wait => Effect::Nothing,
            Decision::Serve { early: Some(sends) } | Decision::Claim { sends } => Effect::Claim(sends as u8),
            Decision::Refuse(Refusal::SignIn { .. }) => Effect::SignIn,
            Decision::Refuse(Refusal::BackOff { .. }) => Effect::BackOff,
            Decision::Refuse(Refusal::Away { .. }) => unreachable!("tests/protocol/moves.rs has the moves"),
            Decision::Write(next, Correction::RolledBack | Correction::DoubtEnded) => {
                let step = (next.version - VERSION) as i16;
                Effect::Write(self.number(*next), step)
            }
        }
    }

    /// What `exchange` in src/session/renewer/job.rs writes.
    fn attempt(&self, record: &Record, party: u8, sends: u8) -> Attempt {
        Attempt {
            id: exchange(party),
            generation: record.generation,
            owner: self.members[usize::from(party)].owner.clone(),
            since_ms: NOW_MS,
            until_ms: NOW_MS + LEASE_MS,
            sends: u32::from(sends),
            doubt: false,
            others: Map::new(),
        }
    }

    fn moment<'a>(&'a self, party: &'a str) -> Moment<'a> {
        Moment { now: &self.now, wall_ms: WALL_MS, party, duration_ms: 0, life: Some(life(Stage::Good)), jitter: 0 }
    }

    fn saved(&self, record: Option<&Record>, token: Token, grant_here: u8) -> Option<Record> {
        let fresh =
            Fresh { version: NEW_VERSION, grant: grant(grant_here), fingerprint_key: Secret::new("fingerprint key") };
        let answer = answer(Some(secret(token)), true);
        (self.rules.save)(record, &answer, fresh, Some(life(Stage::Good)), &self.moment("party"))
    }

    fn outcome(&self, fate: Fate, party: u8) -> Outcome {
        // What is set aside binds nobody.
        let me = &self.members[usize::from(party) % PARTIES];
        let configuration = Binds::Configuration(me.configuration.clone());
        match fate {
            Fate::Done(token, usable) => Outcome::Done(Box::new(answer(Some(secret(token)), usable))),
            Fate::Same(usable) => Outcome::Done(Box::new(answer(None, usable))),
            Fate::InvalidGrant => Outcome::InvalidGrant(failure("expired_or_revoked", Binds::All)),
            Fate::NotSent => Outcome::NotSent(failure("network", Binds::Host(me.owner.host.clone()))),
            Fate::Throttled => Outcome::NotSent(failure("server_unavailable", Binds::All)),
            Fate::Refused => Outcome::Refused(failure("client_refused", configuration)),
            Fate::Busy => Outcome::Busy(failure("server_unavailable", Binds::All)),
            Fate::Unknown => Outcome::Unknown(failure("network", Binds::All)),
        }
    }

    /// Whom a back-off binds, after parties have changed places.
    fn rebound(&self, mut record: Record, place: impl Fn(u8) -> Option<u8>) -> Record {
        let bound = self.bound(&record);
        let (Some(back_off), Some(Bound::One(old))) = (&mut record.back_off, bound) else { return record };
        let new = &self.members[usize::from(place(old).unwrap_or(old))];
        back_off.binds = match back_off.binds {
            Binds::Host(_) => Binds::Host(new.owner.host.clone()),
            _ => Binds::Configuration(new.configuration.clone()),
        };
        record
    }

    fn bound(&self, record: &Record) -> Option<Bound> {
        let back_off = record.back_off.as_ref()?;
        let bound = |fits: &dyn Fn(&Party) -> bool| {
            let bound: Vec<_> = (0..PARTIES).filter(|at| fits(&self.members[*at])).collect();
            if bound.len() == 1 { Bound::One(bound[0] as u8) } else { Bound::All }
        };
        Some(match &back_off.binds {
            Binds::All => Bound::All,
            Binds::Host(host) => bound(&|party| party.owner.host == *host),
            Binds::Configuration(print) => bound(&|party| party.configuration == *print),
        })
    }

    /// The number of this record's canonical form.
    fn number(&mut self, record: Record) -> Number {
        let record = self.canonical(record);
        let texts = (serde_json::to_string(&record), serde_json::to_string(&record.secrets));
        let (Ok(text), Ok(secrets)) = texts else { panic!("a record is JSON") };
        let text = text + &secrets;
        if let Some(number) = self.numbers.get(&text) {
            return *number;
        }
        let number = Number(u32::try_from(self.records.len()).expect("fewer records"));
        let facts = self.facts_of(&record);
        self.records.push((record, facts));
        self.numbers.insert(text, number);
        number
    }

    fn canonical(&self, mut record: Record) -> Record {
        record.version = VERSION;
        record.history.clear();
        record.renewed_at_ms = 0;
        record.delete_after_ms = None;
        record.secrets.members = None;
        // Only the seed is ever saved again. The order tells which one is forgotten first, after sixteen.
        record.known.saved.retain(|kept| self.keep.known && *kept == self.seed);
        record.known.spent.sort_unstable();
        record.back_off = record.back_off.filter(|back_off| self.keep.back_off && back_off.until_ms > NOW_MS);
        if let Some(back_off) = &mut record.back_off {
            back_off.until_ms = NOW_MS + 1;
            back_off.count = 1;
            back_off.cause.clear();
            back_off.reason.clear();
        }
        record
    }

    fn facts_of(&self, record: &Record) -> Facts {
        let token = |token: &Option<Secret>| token.as_ref().map_or(0, number_of);
        let stage = match (&record.secrets.access_token, &record.life) {
            (None, _) => Stage::None,
            (_, Some(other)) => [Stage::Good, Stage::Early, Stage::Over]
                .into_iter()
                .find(|stage| life(*stage) == *other)
                .expect("a life of these three"),
            (Some(_), None) => Stage::Good,
        };
        let to_revoke = record.secrets.to_revoke.iter().map(number_of);
        Facts {
            state: record.state,
            rotation_lost: record.reason.as_deref() == Some("rotation_lost"),
            grant: (record.grant.0 & 0xff) as u8,
            generation: record.generation as u8,
            token: token(&record.secrets.refresh_token),
            spare: token(&record.secrets.spare),
            stage,
            attempt: record.attempt.as_ref().map(|attempt| Trial {
                exchange: place(attempt.id),
                owner: place(attempt.owner.handle),
                generation: attempt.generation as u8,
                sends: attempt.sends as u8,
                doubt: attempt.doubt,
                late: attempt.until_ms <= NOW_MS,
                hung: attempt.until_ms <= NOW_MS - HANG_LIMIT_MS,
            }),
            made_by: record.made_by.and_then(|by| place(by.attempt)),
            bound: self.bound(record),
            first_to_revoke: record.secrets.to_revoke.first().map_or(0, number_of),
            to_revoke: to_revoke.filter(|token| *token != ACCESS).fold(0, |set, token| set | 1 << token),
        }
    }
}

fn exchange(party: u8) -> Id {
    Id(u128::from(party) + 1)
}

/// The party that an id or a handle names, or [`ASIDE`].
fn place(id: Id) -> Option<u8> {
    (1..=PARTIES as u128 + 1).contains(&id.0).then(|| (id.0 - 1) as u8)
}

fn grant(number: u8) -> Id {
    Id(0xa00 + u128::from(number))
}

fn owner(party: u8, local: bool) -> Owner {
    let host = if local { "host".to_owned() } else { format!("host-{party}") };
    Owner { handle: exchange(party), host, boot: "boot".to_owned() }
}

fn secret(token: Token) -> Secret {
    if token == ACCESS { Secret::new(ACCESS_TOKEN) } else { Secret::new(token.to_string()) }
}

fn number_of(token: &Secret) -> Token {
    token.expose().parse().unwrap_or(ACCESS)
}

fn answer(refresh_token: Option<Secret>, usable: bool) -> Answer {
    Answer {
        refresh_token,
        access_token: usable.then(|| Secret::new(ACCESS_TOKEN)),
        members: Secret::new("{}"),
        expires_in_s: None,
        unusable: (!usable).then(String::new),
        signature_mismatch: false,
    }
}

fn failure(reason: &'static str, binds: Binds) -> Failure {
    Failure {
        message: String::new(),
        reason,
        error: None,
        error_description: None,
        error_uri: None,
        http_status: None,
        retry_after_ms: None,
        binds,
    }
}

fn life(stage: Stage) -> Life {
    let left_ms = match stage {
        Stage::Good => 3_600_000,
        Stage::Early => 1,
        _ => -1,
    };
    Life { from_ms: WALL_MS - 3_600_000, until_ms: Some(WALL_MS + left_ms), expiry: Expiry::Known }
}

/// With other ids of exchanges and handles of parties; `None`: that one is over, or dead.
fn renamed(mut record: Record, exchange_at: impl Fn(u8) -> Option<u8>, party_at: impl Fn(u8) -> Option<u8>) -> Record {
    let other = |id: Id, over: Id| match place(id) {
        Some(at) => exchange_at(at).map_or(over, exchange),
        None => id,
    };
    if let Some(attempt) = &mut record.attempt {
        attempt.id = other(attempt.id, OVER[0]);
        if let Some(at) = place(attempt.owner.handle) {
            attempt.owner.handle = party_at(at).map_or(DEAD, exchange);
        }
        attempt.owner.host.clear();
    }
    if let Some(MadeBy { attempt, .. }) = &mut record.made_by {
        *attempt = other(*attempt, OVER[1]);
    }
    record
}

fn passed(mut record: Record, passing: Passing) -> Record {
    let attempt = record.attempt.as_mut();
    match passing {
        Passing::Deadline => attempt.into_iter().for_each(|attempt| attempt.until_ms = NOW_MS),
        Passing::HangLimit => attempt.into_iter().for_each(|attempt| attempt.until_ms = NOW_MS - HANG_LIMIT_MS),
        Passing::BackOff => record.back_off = None,
        Passing::Prime => record.life = Some(life(Stage::Early)),
        Passing::Life => record.life = Some(life(Stage::Over)),
    }
    record
}

/// The part of a record that `decide` may write back.
fn remembered(mut record: Record) -> Record {
    record.attempt = None;
    record.back_off = None;
    record.known = Default::default();
    record.secrets.spare = None;
    record.secrets.to_revoke.clear();
    record
}
