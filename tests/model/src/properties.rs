//! What must hold, and the named cases in which a session may be lost all the same.

use std::fmt;

/// A property. The numbers are those of docs/guarantees.md where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Property {
    /// 1. Every presentation belongs to its own recorded claim.
    Claimed,
    /// 1. Only what may have been presented before is counted as a replay.
    Counted,
    /// 2. Only the holder of an open attempt presents, or one past its deadline. (A sign-out in between takes it away.)
    HoldsAttempt,
    /// 2. Never two open exchanges of one grant, none of them past its deadline.
    OneExchange,
    /// 3. No write leaves a record that cannot renew, if the record or the answer had a living token.
    NothingDropped,
    /// 3. The same when all is quiet: no party has had a living token that the record has not.
    NothingLost,
    /// 3. No owner's write reaches another grant.
    OwnGrant,
    /// 3. Saving a token that was spent replaces no living one.
    SaveKeeps,
    /// 4. Only invalid_grant to the latest claim ends a session, and the reason fits.
    EndedByAnswer,
    /// 4. No session has ended whose own token renews.
    EndedForGood,
    /// 5. Signed out stays signed out, forgotten stays forgotten.
    StaysSignedOut,
    /// 5. When all is quiet, no grant that was signed out lives on by a token that somebody has had.
    Revoked,
    /// 6. From every state, steps without a fault lead to a settled one.
    Settles,
    /// A session is lost only if the answer of a rotation was, or in a named case.
    LostForACause,
    /// A back-off binds whom it names, and nobody else.
    BackOff,
    /// A named case that this run excludes.
    Unexpected,
}

impl Property {
    /// All of them.
    pub const ALL: [Property; 16] = [
        Property::Claimed,
        Property::Counted,
        Property::HoldsAttempt,
        Property::OneExchange,
        Property::NothingDropped,
        Property::NothingLost,
        Property::OwnGrant,
        Property::SaveKeeps,
        Property::EndedByAnswer,
        Property::EndedForGood,
        Property::StaysSignedOut,
        Property::Revoked,
        Property::Settles,
        Property::LostForACause,
        Property::BackOff,
        Property::Unexpected,
    ];
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A set of properties that do not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Broken(pub u16);

impl Broken {
    /// Adds one.
    pub fn add(&mut self, property: Property) {
        self.0 |= 1 << property as u8;
    }

    /// The members.
    pub fn iter(self) -> impl Iterator<Item = Property> {
        Property::ALL.into_iter().filter(move |property| self.0 >> *property as u8 & 1 == 1)
    }
}

/// The cases of docs/guarantees.md, "What a crash or a pause can cost", and its remarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Case {
    /// The answer of a rotation reached nobody who could keep it.
    LostReply,
    /// A request that was given up, or is past its deadline, kills a living successor.
    Ghost,
    /// A replay kills the successor that a paused owner, or one that is cut off from the store, holds.
    HeldReply,
    /// A replay kills the successor that such an owner has committed in the meantime.
    LateCommit,
    /// A successor that nobody holds outlives a sign-out.
    Orphan,
    /// The store went back in time.
    RolledBack,
    /// A third answer for one generation finds the one spare taken.
    ThirdAnswer,
    /// A living sibling of an older generation is not kept: its answer comes two generations late, or it was the spare
    /// of a generation that has been renewed.
    OldSibling,
}

impl Case {
    /// All of them.
    pub const ALL: [Case; 8] = [
        Case::LostReply,
        Case::Ghost,
        Case::HeldReply,
        Case::LateCommit,
        Case::Orphan,
        Case::RolledBack,
        Case::ThirdAnswer,
        Case::OldSibling,
    ];
}

/// A set of cases.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Cases(pub u8);

impl Cases {
    /// These.
    pub const fn of(cases: &[Case]) -> Self {
        let mut set = 0;
        let mut at = 0;
        while at < cases.len() {
            set |= 1 << cases[at] as u8;
            at += 1;
        }
        Self(set)
    }

    /// Adds one.
    pub fn add(&mut self, case: Case) {
        self.0 |= 1 << case as u8;
    }

    /// Whether it is there.
    pub fn has(self, case: Case) -> bool {
        self.0 >> case as u8 & 1 == 1
    }

    /// Those that are not in the other set.
    pub fn without(self, other: Cases) -> Cases {
        Cases(self.0 & !other.0)
    }

    /// Whether one of them explains the loss of a session.
    pub fn cost_a_session(self) -> bool {
        self.without(Cases::of(&[Case::Orphan, Case::OldSibling])) != Cases::default()
    }
}

impl fmt::Debug for Cases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Case::ALL.iter().filter(|case| self.has(**case)).map(|case| format!("{case:?}"));
        f.write_str(&names.collect::<Vec<_>>().join(" "))
    }
}
