//! Random walks: a few parties, one record, one authorization server, and faults in any order. Each step is what the
//! driver does between two points at which it can be interrupted.

use std::collections::HashMap;

use evergrant::Secret;
use evergrant::config::{EarlyRenewal, LostReply};
use evergrant::oauth::Outcome;
use evergrant::session::protocol::{
    Decision, Fresh, Party, Policy, Sent, Situation, Want, claim, decide, save, settle,
};
use evergrant::session::record::{Attempt, Binds, Id, Record, State};
use evergrant::store::{Life as OwnerLife, Now};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Map;

use crate::parts::*;
use crate::properties::config;

/// What a server does about a refresh token that was used before.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Server {
    /// It revokes the family.
    Strict,
    /// It refuses it, and nothing else.
    Refuses,
    /// It answers the latest one again with what it has answered.
    SamePair,
    /// Refresh tokens do not rotate.
    NoRotation,
}

/// An authorization server with one grant. Its n-th refresh token is the text n.
#[derive(Debug)]
struct Authority {
    server: Server,
    current: u32,
    revoked: bool,
}

impl Authority {
    /// The successor, or `None`: invalid_grant.
    fn renew(&mut self, token: &Secret) -> Option<u32> {
        let token: u32 = token.expose().parse().expect("a number");
        if self.revoked {
            return None;
        }
        if token == self.current {
            self.current += u32::from(self.server != Server::NoRotation);
            return Some(self.current);
        }
        match self.server {
            Server::SamePair if token + 1 == self.current => return Some(self.current),
            Server::Strict => self.revoked = true,
            _ => {}
        }
        None
    }

    fn accepts(&self, token: &Secret) -> bool {
        let current = self.current.to_string();
        let before = self.current.saturating_sub(1).to_string();
        !self.revoked && (token.expose() == current || self.server == Server::SamePair && token.expose() == before)
    }
}

/// Where a party stands.
#[derive(Clone, Debug)]
enum Step {
    Idle,
    /// It has loaded the record and decided to write another one; with a presentation if it is a claim. The time for
    /// its first byte runs from the load: a claim may take long.
    Decided {
        loaded_ms: i64,
        version: i64,
        next: Box<Record>,
        sent: Option<Sent>,
    },
    Claimed {
        sent: Sent,
        first_byte_ms: i64,
    },
    /// The request is on its way.
    Sent(Sent),
    /// The answer is on its way; it may be a rotation's.
    Answered {
        sent: Sent,
        outcome: Outcome,
        rotated: bool,
    },
    /// The party knows the outcome.
    Holds {
        sent: Sent,
        outcome: Outcome,
        rotated: bool,
    },
}

/// What happens to a party at its next step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Goes,
    /// It cannot connect.
    NotSent,
    /// The request or the answer is lost, and the party waits until its hard limit.
    Lost,
    /// The same, and the request reaches the server later.
    Ghost,
    /// The server refuses the client.
    Refused,
    /// The server is processing that token already.
    Busy,
    /// The party dies; what was on its way is lost.
    Dies,
    /// The same, but the server has got the request.
    DiesAfterSending,
    /// It saves the token that it was configured with.
    SavesSeed,
    /// Every back-off ends.
    Waits,
    /// Every deadline passes while parties stand where they are.
    Pauses,
    /// A request whose sender has gone reaches the server.
    Arrives,
}

struct World {
    authority: Authority,
    /// Deadlines and pauses as on a store that several machines share.
    shared: bool,
    now_ms: i64,
    record: Record,
    parties: Vec<(Party, Step)>,
    /// Requests of senders who have given up.
    ghosts: Vec<Secret>,
    /// How often each generation's token may have been processed.
    presented: HashMap<(u64, String), u32>,
    ids: u128,
    /// An answer with a successor has reached nobody.
    excused: bool,
}

impl World {
    fn new(server: Server, shared: bool, parties: usize) -> Self {
        let now = now();
        let fresh = Fresh { version: 1, grant: GRANT, fingerprint_key: secret("key") };
        let record = save(None, &answer(Some("1"), None), fresh, None, &moment(&now)).expect("a session");
        let policy = Policy {
            renews: true,
            lost_reply: LostReply::Replay,
            early_renewal: EarlyRenewal::Off,
            renew_before_ms: None,
            local: !shared,
            jitter: 0,
        };
        let party = |n: usize| {
            let owner =
                evergrant::session::record::Owner { handle: Id(n as u128), host: format!("{n}"), boot: String::new() };
            (Party { owner, configuration: format!("{n}"), policy }, Step::Idle)
        };
        Self {
            authority: Authority { server, current: 1, revoked: false },
            shared,
            now_ms: now.ms,
            record,
            parties: (0..parties).map(party).collect(),
            ghosts: vec![],
            presented: HashMap::new(),
            ids: 1_000,
            excused: false,
        }
    }

    fn id(&mut self) -> Id {
        self.ids += 1;
        Id(self.ids)
    }

    fn now(&self) -> Now {
        Now { ms: self.now_ms, ..now() }
    }

    /// The compare-and-swap.
    fn write(&mut self, version: i64, next: Record) -> bool {
        let written = self.record.version == version;
        if written {
            assert_eq!(next.version, version + 1);
            self.record = next;
        }
        written
    }

    fn step(&mut self, n: usize, fate: Fate) {
        match fate {
            Fate::Waits => return self.now_ms += 10 * 60 * 1000,
            Fate::Pauses => return self.now_ms += 2 * LEASE_MS + 10 * 60 * 1000,
            Fate::Dies | Fate::DiesAfterSending => return self.die(n, fate == Fate::DiesAfterSending),
            Fate::SavesSeed => {
                let now = self.now();
                let fresh = Fresh { version: 1, grant: Id(0xf0), fingerprint_key: secret("") };
                let again = save(Some(&self.record), &answer(Some("1"), None), fresh, None, &moment(&now));
                assert!(again.is_none(), "the seed is known for as long as a walk is");
                return;
            }
            Fate::Arrives => {
                if let Some(token) = self.ghosts.pop() {
                    self.lose(&token);
                }
                return;
            }
            _ => {}
        }
        let step = std::mem::replace(&mut self.parties[n].1, Step::Idle);
        self.parties[n].1 = match step {
            Step::Idle => self.decide(n),
            Step::Decided { loaded_ms, version, next, sent } => {
                let first = sent.as_ref().is_some_and(|sent| sent.sends == 1);
                if self.write(version, *next)
                    && let Some(sent) = sent
                {
                    assert!(!first || self.presented_before(&sent) == 0, "a replay that is not counted");
                    Step::Claimed { sent, first_byte_ms: loaded_ms + LEASE_MS / 4 }
                } else {
                    Step::Idle
                }
            }
            Step::Claimed { sent, first_byte_ms } => {
                let claimed = self.record.generation == sent.generation
                    && self.record.attempt.as_ref().is_some_and(|attempt| attempt.id == sent.attempt);
                if fate == Fate::NotSent || self.shared && self.now_ms > first_byte_ms || sent.sends > 1 && !claimed {
                    let outcome = Outcome::NotSent(failure("network", Binds::Host(n.to_string())));
                    Step::Holds { sent, outcome, rotated: false }
                } else {
                    *self.presented.entry(Self::key(&sent)).or_default() += 1;
                    assert!(self.presented_before(&sent) <= sent.sends, "more presentations than claims");
                    Step::Sent(sent)
                }
            }
            Step::Sent(sent) => self.serve(sent, fate),
            Step::Answered { sent, rotated, .. } if matches!(fate, Fate::Lost | Fate::Ghost) => {
                self.excused |= rotated;
                Step::Holds { sent, outcome: unknown(), rotated: false }
            }
            Step::Answered { sent, outcome, rotated } => Step::Holds { sent, outcome, rotated },
            Step::Holds { sent, outcome, .. } => {
                self.settle(&sent, &outcome);
                Step::Idle
            }
        };
        self.check();
    }

    fn decide(&mut self, n: usize) -> Step {
        let party = &self.parties[n].0;
        let lives = |handle: Id| self.parties.iter().any(|(party, _)| party.owner.handle == handle);
        let runs = |id: Id| match &self.parties[n].1 {
            Step::Claimed { sent, .. } | Step::Sent(sent) => sent.attempt == id,
            Step::Answered { sent, .. } | Step::Holds { sent, .. } => sent.attempt == id,
            Step::Idle | Step::Decided { .. } => false,
        };
        let attempt = self.record.attempt.as_ref();
        let owner = match attempt {
            // Machines that share a store know nothing of each other.
            Some(attempt) if self.shared && attempt.owner.handle != party.owner.handle => OwnerLife::Unknown,
            Some(attempt) if !lives(attempt.owner.handle) => OwnerLife::Dead,
            _ => OwnerLife::Alive,
        };
        let now = self.now();
        let situation = Situation {
            record: Some(&self.record),
            now: &now,
            wall_ms: WALL_MS,
            party,
            owner,
            runs_here: attempt.is_some_and(|attempt| runs(attempt.id)),
            seen: None,
        };
        let (next, sent) = match decide(&situation, &Want::Newer { than: None, anyway: false }) {
            Decision::Claim { sends } => {
                let refresh_token = self.record.secrets.refresh_token.clone().expect("a refresh token");
                let owner = party.owner.clone();
                let Record { grant, generation, .. } = self.record;
                let sent = Sent { attempt: self.id(), grant, generation, sends, refresh_token };
                let attempt = Attempt {
                    id: sent.attempt,
                    generation,
                    owner,
                    since_ms: now.ms,
                    until_ms: now.ms + if self.shared { LEASE_MS } else { i64::MAX / 4 },
                    sends,
                    doubt: false,
                    others: Map::new(),
                };
                (claim(&self.record, attempt), Some(sent))
            }
            Decision::Write(next, _) => (*next, None),
            _ => return Step::Idle,
        };
        Step::Decided { loaded_ms: now.ms, version: self.record.version, next: Box::new(next), sent }
    }

    fn serve(&mut self, sent: Sent, fate: Fate) -> Step {
        let outcome = match fate {
            Fate::Lost => unknown(),
            Fate::Ghost => {
                self.ghosts.push(sent.refresh_token.clone());
                unknown()
            }
            Fate::Refused => {
                // It says nothing of the token, and leaves it as it is.
                *self.presented.entry(Self::key(&sent)).or_default() -= 1;
                Outcome::Refused(failure("client_refused", Binds::Configuration("0".to_owned())))
            }
            Fate::Busy => Outcome::Busy(failure("server_unavailable", Binds::All)),
            _ => {
                let (outcome, rotated) = match self.authority.renew(&sent.refresh_token) {
                    Some(token) => {
                        let token = token.to_string();
                        let rotated = token != sent.refresh_token.expose();
                        (done(Some(&token), Some("at")), rotated)
                    }
                    None => (Outcome::InvalidGrant(failure("expired_or_revoked", Binds::All)), false),
                };
                return Step::Answered { sent, outcome, rotated };
            }
        };
        Step::Holds { sent, outcome, rotated: false }
    }

    /// The server processes a request, and its answer reaches nobody.
    fn lose(&mut self, token: &Secret) {
        let rotated = self.authority.renew(token).is_some_and(|next| next.to_string() != token.expose());
        self.excused |= rotated;
    }

    fn die(&mut self, n: usize, after_sending: bool) {
        match std::mem::replace(&mut self.parties[n].1, Step::Idle) {
            Step::Sent(sent) if after_sending => self.lose(&sent.refresh_token),
            Step::Answered { rotated, .. } | Step::Holds { rotated, .. } => self.excused |= rotated,
            _ => {}
        }
        // Whoever starts in its place is somebody else.
        self.parties[n].0.owner.handle = self.id();
    }

    fn settle(&mut self, sent: &Sent, outcome: &Outcome) {
        let now = self.now();
        if let Some(next) = settle(Some(&self.record), sent, outcome, &moment(&now)) {
            assert!(self.write(self.record.version, next));
        }
    }

    fn key(sent: &Sent) -> (u64, String) {
        (sent.generation, sent.refresh_token.expose().to_owned())
    }

    fn presented_before(&self, sent: &Sent) -> u32 {
        self.presented.get(&Self::key(sent)).copied().unwrap_or(0)
    }

    fn check(&self) {
        let open = self.parties.iter().filter(|(_, step)| !matches!(step, Step::Idle | Step::Decided { .. })).count();
        assert!(self.shared || open <= 1, "{open} open exchanges");
        assert!(self.excused || !self.authority.revoked, "the family is revoked, though every answer arrived");
        let held = self.parties.iter().any(|(_, step)| matches!(step, Step::Answered { .. } | Step::Holds { .. }));
        // A paused party may hold the successor; its Done revives the session.
        let ended = self.record.state == State::Ended;
        assert!(!ended || self.excused || self.shared && held, "ended, though every answer arrived: {:?}", self.record);
    }

    /// Without further faults everything settles, and the session can be renewed unless an answer was lost.
    fn finish(mut self) {
        for _ in 0..self.ghosts.len() {
            self.step(0, Fate::Arrives);
        }
        for round in 0..8 {
            for n in 0..self.parties.len() {
                for _ in 0..8 {
                    self.step(n, Fate::Goes);
                    if matches!(self.parties[n].1, Step::Idle) {
                        break;
                    }
                }
            }
            self.step(0, if round % 2 == 0 { Fate::Waits } else { Fate::Pauses });
        }
        let idle = self.parties.iter().all(|(_, step)| matches!(step, Step::Idle));
        assert!(idle && self.record.attempt.is_none(), "stuck: {:?}", self.record);
        if self.record.state == State::Active || !self.excused {
            let token = self.record.secrets.refresh_token.as_ref().expect("a refresh token");
            assert_eq!(self.record.state, State::Active);
            assert!(self.authority.accepts(token), "its refresh token is dead: {:?}", self.record);
        }
        if matches!(self.authority.server, Server::NoRotation | Server::SamePair) {
            assert_eq!(self.record.state, State::Active, "no fault costs a session here");
        }
    }
}

fn unknown() -> Outcome {
    Outcome::Unknown(failure("network", Binds::All))
}

/// Mostly nothing goes wrong; of the rest, each of these as often.
fn fates(faults: Vec<Fate>) -> impl Strategy<Value = Vec<(usize, Fate)>> {
    let fate = prop_oneof![7 => Just(Fate::Goes), 3 => select(faults)];
    vec((0..3usize, fate), 1..80)
}

fn walk(server: Server, shared: bool, parties: usize, fates: Vec<(usize, Fate)>) {
    let mut world = World::new(server, shared, parties);
    for (n, fate) in fates {
        world.step(n % parties, fate);
    }
    world.finish();
}

const FAULTS: [Fate; 8] = [
    Fate::NotSent,
    Fate::Lost,
    Fate::Refused,
    Fate::Busy,
    Fate::Dies,
    Fate::DiesAfterSending,
    Fate::SavesSeed,
    Fate::Waits,
];

proptest! {
    #![proptest_config(config(4_000))]

    /// One machine: a session is lost only if the answer of a rotation was.
    #[test]
    fn processes_of_one_machine(
        server in select(vec![Server::Strict, Server::Strict, Server::Refuses, Server::SamePair, Server::NoRotation]),
        parties in 2..=3usize,
        fates in fates(FAULTS.to_vec()),
    ) {
        walk(server, false, parties, fates);
    }

    /// Several machines: not even pauses past every deadline and requests that outlive their senders cost a session
    /// where a used token is merely refused.
    #[test]
    fn machines_that_share_a_store(
        server in select(vec![Server::Refuses, Server::Refuses, Server::NoRotation]),
        parties in 2..=3usize,
        fates in fates([&FAULTS[..], &[Fate::Pauses, Fate::Pauses, Fate::Ghost, Fate::Arrives]].concat()),
    ) {
        walk(server, true, parties, fates);
    }
}
