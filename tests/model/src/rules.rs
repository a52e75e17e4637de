//! The functions under test. A mutation is a set of them in which one is wrapped.

use evergrant::Secret;
use evergrant::oauth::Outcome;
use evergrant::session::protocol::{self, Decision, Fresh, Moment, Sent, Situation, Want};
use evergrant::session::record::{Attempt, Id, Record};
use evergrant::token::{Answer, Life};

type Save = fn(Option<&Record>, &Answer, Fresh, Option<Life>, &Moment) -> Option<Record>;

/// What the driver calls. Each is pure.
#[derive(Clone, Copy)]
pub struct Rules {
    /// What to do about a record.
    pub decide: fn(&Situation, &Want) -> Decision,
    /// The attempt whose answer is looked for before a decision is carried out.
    pub takes_over: fn(&Decision, Option<&Record>) -> Option<Id>,
    /// A record with a new attempt.
    pub claim: fn(&Record, Attempt) -> Record,
    /// What an answer makes of a record.
    pub settle: fn(Option<&Record>, &Sent, &Outcome, &Moment) -> Option<Record>,
    /// A sign-in.
    pub save: Save,
    /// A sign-out.
    pub sign_out: fn(Option<&Record>, bool, &Moment) -> Option<Record>,
    /// An erasure.
    pub forget: fn(Option<&Record>, &Moment) -> Option<Record>,
    /// A confirmed revocation.
    pub revoked: fn(Option<&Record>, &Secret) -> Option<Record>,
}

impl Rules {
    /// What the library ships.
    pub const SHIPPED: Rules = Rules {
        decide: protocol::decide,
        takes_over: protocol::takes_over,
        claim: protocol::claim,
        settle: protocol::settle,
        save: protocol::save,
        sign_out: protocol::sign_out,
        forget: protocol::forget,
        revoked: protocol::revoked,
    };
}
