//! Moving a session from one store to another, step by step: never do both believe that they hold its refresh token.
//!
//! ```text
//! source   active ──► moving ─────────────────► moved
//! target                      (copy) ──► active
//! ```
//!
//! Every step is one compare-and-swap, and whoever runs the same move again goes on where it stopped. To move the other
//! way instead takes it back: the target gets a tombstone first, which no copy of that move overwrites.

use super::{KEPT, Moment, remember};
use crate::session::fingerprint::Fingerprints;
use crate::session::record::{Id, Moved, Place, Record, Secrets, State};

/// A move: from which place to which.
#[derive(Clone, Debug)]
pub struct Journey<'a> {
    /// A new random value, for a move that begins here.
    pub id: Id,
    /// Where the session is.
    pub from: &'a Place,
    /// Where it is to be.
    pub to: &'a Place,
    /// A random version, for a record that is new there.
    pub version: i64,
}

/// The next step of a move.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Write this where the session was.
    WriteSource(Box<Record>),
    /// Write this where it is to be.
    WriteTarget(Box<Record>),
    /// It has arrived.
    Arrived,
    /// It cannot be moved.
    Refuse(Obstacle),
}

/// Why a session cannot be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// There is none, or it has ended or was signed out.
    Gone,
    /// Another session of this name is active there.
    Taken,
    /// It is on its way to this place.
    Elsewhere(Place),
    /// Somebody has moved it back.
    TakenBack,
}

/// The step after what was found. `source` must have been loaded after `target`, and must have no open attempt.
pub fn step(source: Option<&Record>, target: Option<&Record>, journey: &Journey, moment: &Moment) -> Step {
    let has_come =
        |record: Option<&Record>, moved: &Moved| record.is_some_and(|record| record.arrived.contains(&moved.id));
    let is_way_back = |record: Option<&Record>, moved: &Moved| {
        record.and_then(|record| record.moved.as_ref()).is_some_and(|back| back.id == moved.id)
    };
    let taken = |grant| target.is_some_and(|target| target.state == State::Active && target.grant != grant);
    match source.map(|source| (source, source.state, &source.moved)) {
        Some((source, State::Active, _)) if taken(source.grant) => Step::Refuse(Obstacle::Taken),
        Some((source, State::Active, _)) => Step::WriteSource(Box::new(departing(source, journey))),
        Some((source, State::Moving, Some(moved))) if moved.place == *journey.to => match target {
            // A late answer has come for what was copied.
            Some(target) if has_come(Some(target), moved) && target.is_behind(source) => {
                Step::WriteTarget(Box::new(arriving(source, Some(target), moved, journey)))
            }
            _ if has_come(target, moved) => Step::WriteSource(Box::new(gone(source, moved.clone(), moment))),
            _ if is_way_back(target, moved) => Step::WriteSource(Box::new(staying(source))),
            _ if taken(source.grant) => Step::Refuse(Obstacle::Taken),
            _ => Step::WriteTarget(Box::new(arriving(source, target, moved, journey))),
        },
        Some((_, State::Moving, Some(moved))) => Step::Refuse(Obstacle::Elsewhere(moved.place.clone())),
        found => match target.map(|target| (target, target.state, &target.moved)) {
            // The other way round: what was to leave the target has not arrived here.
            Some((target, State::Moving, Some(moved))) if moved.place == *journey.from && !has_come(source, moved) => {
                if is_way_back(source, moved) {
                    return Step::WriteTarget(Box::new(staying(target)));
                }
                let mut tombstone = gone(target, Moved { id: moved.id, place: journey.to.clone() }, moment);
                tombstone.version = source.map_or(journey.version, |source| source.next().version);
                if let Some(source) = source {
                    tombstone.arrived.clone_from(&source.arrived);
                    tombstone.secrets.to_revoke.clone_from(&source.secrets.to_revoke);
                }
                Step::WriteSource(Box::new(tombstone))
            }
            _ => match found {
                Some((_, State::Moved, Some(moved)))
                    if moved.place == *journey.to && (has_come(target, moved) || is_way_back(target, moved)) =>
                {
                    Step::Arrived
                }
                _ => Step::Refuse(Obstacle::Gone),
            },
        },
    }
}

/// Nobody renews it any more, and nobody else yet.
fn departing(source: &Record, journey: &Journey) -> Record {
    let mut next = source.next();
    next.state = State::Moving;
    next.moved = Some(Moved { id: journey.id, place: journey.to.clone() });
    next
}

/// The same session at the other place. Its waits and deadlines were of another clock.
fn arriving(source: &Record, target: Option<&Record>, moved: &Moved, journey: &Journey) -> Record {
    let mut next = source.clone();
    next.version = journey.version;
    next.state = State::Active;
    next.moved = None;
    next.attempt = None;
    next.back_off = None;
    next.arrived.clear();
    if let Some(target) = target {
        next.version = target.next().version;
        next.arrived.clone_from(&target.arrived);
        let left = target.secrets.to_revoke.iter().filter(|token| !source.secrets.to_revoke.contains(token));
        next.secrets.to_revoke.extend(left.cloned());
    }
    next.arrived.retain(|id| *id != moved.id);
    next.arrived.push(moved.id);
    let surplus = next.arrived.len().saturating_sub(KEPT);
    next.arrived.drain(..surplus);
    next
}

/// What is left of a session that lives elsewhere: it knows which refresh tokens it had.
fn gone(record: &Record, moved: Moved, moment: &Moment) -> Record {
    let mut next = record.next();
    next.state = State::Moved;
    next.moved = Some(moved);
    next.bury(record, moment);
    next.delete_after_ms = None;
    next.history.clear();
    let keys = Fingerprints::of(record);
    for token in record.secrets.refresh_token.iter().chain(&record.secrets.spare) {
        remember(&mut next.known.spent, keys.of_token(token));
    }
    next.secrets = Secrets { fingerprint_key: record.secrets.fingerprint_key.clone(), ..Secrets::default() };
    next
}

/// In a store that went back in time: the tombstone of a session that had left it. `None`: it had not.
pub fn gone_again(record: &Record, seen: &Record, moment: &Moment) -> Option<Record> {
    let moved = seen.moved.clone().filter(|_| seen.state == State::Moved)?;
    let mut next = gone(record, moved, moment);
    next.arrived.clone_from(&seen.arrived);
    Some(next)
}

/// A session whose move was taken back.
fn staying(record: &Record) -> Record {
    let mut next = record.next();
    next.state = State::Active;
    next
}

impl Record {
    fn is_behind(&self, source: &Record) -> bool {
        self.state == State::Active && self.grant == source.grant && self.generation < source.generation
    }

    /// On its way to another store, or there.
    pub fn is_away(&self) -> bool {
        matches!(self.state, State::Moving | State::Moved)
    }
}
