//! What is searched.

use crate::properties::{Case, Cases};
use crate::records::Keep;
use crate::servers::Server;

/// What may go wrong. Each time costs one of a run's faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A party dies, or closes its client, at any step; another one starts in its place.
    Crash,
    /// The same, but only with a commit pending.
    CrashUncommitted,
    /// A request or a reply is lost.
    Loss,
    /// No connection.
    NoConnection,
    /// The server refuses the client.
    Refused,
    /// The server asks to wait (429).
    Throttled,
    /// A commit fails, or is said to have failed.
    Store,
    /// A gateway says 5xx after the server has answered.
    Gateway,
    /// An answer has no usable access token.
    Unusable,
    /// A party pauses past its deadline.
    Pause,
    /// The same between the check of the clock and the first byte.
    PauseAtSend,
    /// On a local store, a party hangs for ten more minutes.
    Hang,
    /// A request outlives its sender, or its sender's deadline.
    Ghost,
    /// The store goes back by one commit.
    Rollback,
    /// The grace window of all tokens closes.
    WindowCloses,
    /// A revocation fails.
    RevocationFails,
}

/// A search: parties, faults, and what the users do.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// As reports show it.
    pub name: &'static str,
    /// The server.
    pub server: Server,
    /// How many parties.
    pub parties: u8,
    /// They are on one machine, and know who is dead.
    pub local: bool,
    /// They are on one machine, whose state directory keeps what could not be committed.
    pub aside: bool,
    /// What may go wrong.
    pub may: &'static [Fault],
    /// How often.
    pub faults: u8,
    /// How often the access token ends, or is rejected.
    pub renewals: u8,
    /// It may also be rejected before its end.
    pub rejections: bool,
    /// It is renewed early.
    pub early: bool,
    /// How often the user signs out.
    pub sign_outs: u8,
    /// How often the user signs in anew.
    pub sign_ins: u8,
    /// How often the session is forgotten.
    pub forgets: u8,
    /// How often the first token is saved again.
    pub seeds: u8,
    /// How often somebody tries past an end.
    pub anyways: u8,
    /// Loading and claiming are two steps. (One is as good where versions never repeat: the second fails if anybody has
    /// written in between, and then begins anew.)
    pub split: bool,
    /// Versions count, instead of only "written since".
    pub versions: bool,
    /// The server works on a token for a while, and answers others who bring it "already being processed".
    pub busy: bool,
    /// Revoking a spent token revokes its grant.
    pub cascade: bool,
    /// The dead are known to be dead only when their requests have been dealt with.
    pub drained: bool,
    /// Back-offs are kept.
    pub back_off: bool,
    /// `lost_reply: "sign_in"`: a doubt ends the session, and no token is presented twice.
    pub never_replays: bool,
    /// No more states than this.
    pub most: usize,
}

impl Run {
    /// Two parties on a shared store, one fault-free renewal.
    pub const BASE: Run = Run {
        name: "",
        server: Server::StrictRevokes,
        parties: 2,
        local: false,
        aside: false,
        may: &[],
        faults: 0,
        renewals: 1,
        rejections: false,
        early: false,
        sign_outs: 0,
        sign_ins: 0,
        forgets: 0,
        seeds: 0,
        anyways: 0,
        split: false,
        versions: false,
        busy: false,
        cascade: false,
        drained: false,
        back_off: false,
        never_replays: false,
        most: 20_000_000,
    };

    /// Whether this may go wrong.
    pub fn may(&self, fault: Fault) -> bool {
        self.may.contains(&fault)
    }

    /// What its records keep.
    pub fn keep(&self) -> Keep {
        let Run { back_off, local, never_replays, seeds, .. } = *self;
        Keep { known: seeds > 0, back_off, local, never_replays }
    }

    /// The named cases that its faults may come to. It says what docs/guarantees.md says.
    pub fn expected(&self) -> Cases {
        let mut cases = Cases::default();
        let any = |faults: &[Fault]| faults.iter().any(|fault| self.may(*fault));
        if any(&[Fault::Crash, Fault::Loss, Fault::Gateway, Fault::Ghost])
            || self.may(Fault::CrashUncommitted) && !self.aside
        {
            cases.add(Case::LostReply);
        }
        // Where the dead are known, their requests may outlive them by a moment.
        let ghosts = any(&[Fault::Ghost, Fault::PauseAtSend, Fault::Rollback])
            || self.local && !self.drained && self.may(Fault::Crash);
        let kills = !matches!(self.server, Server::StrictRefuses | Server::NoRotation);
        if ghosts && kills {
            cases.add(Case::Ghost);
        }
        // Until the hang limit, a local store's owner that is alive is waited for.
        let paused = self.may(Fault::Pause) || self.may(Fault::Store) && !self.aside;
        let paused = paused && (!self.local || self.may(Fault::Hang));
        let paused = paused || self.may(Fault::Rollback);
        if paused && kills {
            cases.add(Case::HeldReply);
            cases.add(Case::LateCommit);
        }
        if self.sign_outs > 0 && !self.cascade {
            cases.add(Case::Orphan);
        }
        if self.may(Fault::Rollback) {
            cases.add(Case::RolledBack);
        }
        // Only these answer a refresh token twice, and differently.
        match self.server {
            Server::GraceAllSiblings => cases.0 |= Cases::of(&[Case::ThirdAnswer, Case::OldSibling]).0,
            server if server.newest_wins() => {
                cases.add(Case::ThirdAnswer);
                // A store that goes back can make one token the current one of two generations.
                if self.may(Fault::Rollback) {
                    cases.add(Case::OldSibling);
                }
            }
            _ => {}
        }
        cases
    }
}

use Fault::*;

/// Everything that can happen to parties and requests while the store and the clocks are good.
const PLAIN: &[Fault] = &[Crash, Loss, NoConnection, Refused, Throttled, Gateway, Unusable];
/// Everything that a shared store's parties may come to.
const ALL: &[Fault] = &[
    Crash,
    Loss,
    NoConnection,
    Refused,
    Throttled,
    Gateway,
    Unusable,
    Store,
    Pause,
    PauseAtSend,
    Ghost,
    WindowCloses,
    RevocationFails,
];
/// What makes one generation have several answers.
const PAUSES: &[Fault] = &[Pause, Ghost, Store, Unusable];
/// An owner that is alive, and later than anybody waits for.
const HANGS: &[Fault] = &[Crash, Loss, Store, Pause, Hang];
/// A store that cannot be written, and parties that die of it or are waited for too long.
const UNCOMMITTED: &[Fault] = &[Store, CrashUncommitted, Hang, NoConnection, Unusable];
/// The same as [`ALL`] on one machine.
const ALL_LOCAL: &[Fault] =
    &[Crash, Loss, NoConnection, Refused, Throttled, Gateway, Unusable, Store, WindowCloses, RevocationFails];

/// A bound for every day: seconds.
pub fn small() -> Vec<Run> {
    let base = Run { faults: 2, ..Run::BASE };
    let session = Run { sign_outs: 1, sign_ins: 1, ..base };
    for_each_server(&[
        Run { name: "plain", may: PLAIN, renewals: 2, early: true, rejections: true, seeds: 1, anyways: 1, ..base },
        Run { name: "plain, signing out and in", may: PLAIN, faults: 1, seeds: 1, split: true, ..session },
        Run { name: "back-offs", may: PLAIN, back_off: true, anyways: 1, ..base },
        Run { name: "shared, everything", may: ALL, renewals: 2, seeds: 1, ..base },
        Run { name: "shared, three parties", may: ALL, parties: 3, ..base },
        Run { name: "shared, signing out and in", may: ALL, faults: 1, cascade: true, ..session },
        Run { name: "shared, three, pauses", may: PAUSES, parties: 3, faults: 3, ..base },
        Run { name: "local, everything", may: ALL_LOCAL, local: true, renewals: 2, seeds: 1, ..base },
        Run { name: "local, no ghosts", may: ALL_LOCAL, local: true, drained: true, renewals: 2, ..base },
        Run { name: "local, hanging", may: HANGS, local: true, renewals: 2, ..base },
        Run { name: "set aside, local", may: UNCOMMITTED, aside: true, local: true, renewals: 2, ..base },
        Run { name: "set aside, shared", may: UNCOMMITTED, aside: true, sign_outs: 1, ..base },
        Run { name: "set aside, everything", may: ALL, aside: true, ..base },
        Run { name: "busy server", may: &[Crash, Loss, Ghost], local: true, busy: true, ..base },
        Run {
            name: "store goes back",
            may: &[Rollback, Loss, Crash],
            versions: true,
            split: true,
            renewals: 2,
            ..base
        },
        Run { name: "never replaying", may: ALL, never_replays: true, renewals: 2, ..base },
        Run { name: "forgetting", may: &[Crash, Loss], forgets: 1, faults: 1, ..session },
    ])
}

/// The same farther out: minutes.
pub fn large() -> Vec<Run> {
    let base = Run { faults: 3, renewals: 2, ..Run::BASE };
    let session = Run { sign_outs: 1, sign_ins: 1, faults: 2, ..base };
    for_each_server(&[
        Run { name: "plain", may: PLAIN, faults: 4, early: true, rejections: true, seeds: 1, anyways: 1, ..base },
        Run { name: "plain, signing out and in", may: PLAIN, seeds: 1, split: true, ..session },
        Run { name: "back-offs", may: PLAIN, back_off: true, parties: 3, faults: 4, anyways: 1, ..base },
        Run { name: "shared, everything", may: ALL, faults: 4, seeds: 1, ..base },
        Run { name: "shared, three parties", may: ALL, parties: 3, ..base },
        Run { name: "shared, signing out and in", may: ALL, seeds: 1, ..session },
        Run { name: "shared, cascade", may: ALL, cascade: true, ..session },
        Run { name: "shared, three, signing out", may: ALL, parties: 3, renewals: 1, ..session },
        Run { name: "shared, three, pauses", may: PAUSES, parties: 3, faults: 4, ..base },
        Run { name: "local, everything", may: ALL_LOCAL, local: true, faults: 4, seeds: 1, ..base },
        Run { name: "local, three parties", may: ALL_LOCAL, local: true, parties: 3, faults: 4, ..base },
        Run { name: "local, no ghosts", may: ALL_LOCAL, local: true, drained: true, parties: 3, faults: 4, ..base },
        Run { name: "local, hanging", may: HANGS, local: true, parties: 3, ..base },
        Run { name: "set aside, local", may: UNCOMMITTED, aside: true, local: true, parties: 3, ..base },
        Run { name: "set aside, shared", may: UNCOMMITTED, aside: true, parties: 3, ..base },
        Run { name: "set aside, everything", may: ALL, aside: true, seeds: 1, ..base },
        Run { name: "set aside, signing out", may: UNCOMMITTED, aside: true, faults: 3, ..session },
        Run { name: "busy server", may: &[Crash, Loss, Ghost], local: true, busy: true, parties: 3, ..base },
        Run { name: "store goes back", may: &[Rollback, Loss, Crash], versions: true, split: true, ..base },
        Run { name: "never replaying", may: ALL, never_replays: true, parties: 3, faults: 4, ..base },
        Run { name: "forgetting", may: &[Crash, Loss, Store], forgets: 1, ..session },
    ])
}

fn for_each_server(runs: &[Run]) -> Vec<Run> {
    runs.iter().flat_map(|run| Server::ALL.map(|server| Run { server, ..*run })).collect()
}
