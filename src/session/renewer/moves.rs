//! Moving a session to another store.

use std::sync::Arc;
use std::time::Duration;

use super::words::{away, refused};
use super::{Renewer, random_id};
use crate::error::{Error, Result, Status};
use crate::session::cache::{Reading, Slot, Vault};
use crate::session::events::Event;
use crate::session::protocol::moves::{self, Journey, Obstacle, Step};
use crate::session::protocol::{Decision, Want};
use crate::session::record::{Key, Place, Record, State};
use crate::sync::Instant;

/// The other place of a move.
pub struct Destination {
    /// Its store.
    pub vault: Arc<Vault>,
    /// Where that is.
    pub place: Place,
}

impl Renewer {
    /// Moves a session to another store; an open renewal is waited for first. Whoever calls it again after a crash goes
    /// on where it stopped.
    pub async fn move_session(&self, slot: &Arc<Slot>, to: &Destination, until: Instant) -> Result<()> {
        let session = &slot.key.session;
        let key = Key { namespace: to.place.namespace.as_str().into(), session: Arc::clone(session) };
        let there = to.vault.slot(&key);
        let from = self.config.place();
        let journey = Journey { id: random_id()?, from: &from, to: &to.place, version: (random_id()?.0 >> 66) as i64 };
        let party = self.party_name();
        let mut begun = false;
        loop {
            self.settle_open_attempt(slot, until).await?;
            // In this order: a tombstone there that the move must not pass over changes what is found there first.
            let (target, _) = to.vault.store.load(&key).map_err(|error| error.about(session))?;
            let (source, now) = self.load(slot)?;
            if source.as_ref().is_some_and(|source| source.attempt.is_some() && source.state == State::Active) {
                continue;
            }
            let moment = self.moment(&now, &party, Duration::ZERO, None);
            match moves::step(source.as_deref(), target.as_ref(), &journey, &moment) {
                Step::WriteSource(next) => {
                    let begins = next.state == State::Moving;
                    if begins && begun {
                        return Err(obstacle(session, &Obstacle::TakenBack, &to.place));
                    }
                    let expected = source.map(|source| source.version);
                    if self.vault.store.compare_and_swap(&slot.key, expected, &next)? {
                        begun |= begins;
                        self.publish_moved(slot, *next);
                    }
                }
                Step::WriteTarget(next) => {
                    let expected = target.map(|target| target.version);
                    if to.vault.store.compare_and_swap(&key, expected, &next)? {
                        there.publish(Some(&Arc::new(*next)), Reading::now());
                    }
                }
                Step::Arrived => return Ok(()),
                Step::Refuse(why) => return Err(obstacle(session, &why, &to.place)),
            }
        }
    }

    fn publish_moved(&self, slot: &Slot, record: Record) {
        if record.state == State::Moved {
            self.remember(slot, &record);
            self.events.push(Event::new("moved", &slot.key.session));
        }
        slot.publish(Some(&Arc::new(record)), Reading::now());
    }

    /// Waits until no attempt of an active session is open; one that can be taken over is replayed.
    async fn settle_open_attempt(&self, slot: &Arc<Slot>, until: Instant) -> Result<()> {
        loop {
            self.check_open(&slot.key.session)?;
            let loaded = self.load_at(slot)?;
            let attempt = loaded.record.as_ref().filter(|record| record.state == State::Active);
            if attempt.is_none_or(|record| record.attempt.is_none()) {
                return Ok(());
            }
            if Instant::now() >= until {
                let message = format!(
                    "session {:?}: a renewal was still open when your wait ended; it was not moved, try again",
                    slot.key.session
                );
                return Err(Error::new(Status::TimedOut, message).about(&slot.key.session));
            }
            match self.decide(slot, loaded.record.as_deref(), &loaded.now, &Want::Newer { than: None, anyway: false }) {
                Decision::Claim { .. } | Decision::Write(..) => {
                    let job = self.start(slot, Want::NoDoubt, Some(loaded));
                    slot.job_ended(job, until, || self.is_closing()).await;
                }
                Decision::Refuse(refusal) => {
                    let failed = refused(&slot.key.session, &refusal);
                    match failed.goes_on_after {
                        Some(wait) if Instant::now() + wait < until => slot.changed(wait, || self.is_closing()).await,
                        _ => return Err(failed.error),
                    }
                }
                _ => slot.time_to_poll(Duration::from_millis(20), until, || self.is_closing()).await,
            }
        }
    }
}

fn obstacle(session: &str, why: &Obstacle, to: &Place) -> Error {
    let there = &to.store;
    let error = |status, text: String| Error::new(status, format!("session {session:?}: {text}"));
    let error = match why {
        Obstacle::Gone => error(
            Status::SignInRequired,
            "there is none here that could be moved: it has ended, was signed out, or never was".to_owned(),
        )
        .because("no_session"),
        Obstacle::Taken => error(
            Status::InvalidArgument,
            format!("{there} has another session of this name: sign that one out first. This one stays here"),
        ),
        Obstacle::Elsewhere(place) => return away(session, false, Some(place)),
        Obstacle::TakenBack => error(
            Status::Unavailable,
            format!("somebody has moved it back, or signed in anew, while it was moved to {there}: see where it is"),
        ),
    };
    error.about(session)
}
