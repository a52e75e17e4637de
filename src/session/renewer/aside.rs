//! What this machine keeps beside the store ([`crate::store::aside`]): answers that could not be committed, and what it
//! has seen of a session. All of it is as good as the disk is; a failure is told once and hurts nobody.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Renewer;
use super::job::Exchanged;
use crate::error::Result;
use crate::oauth::Outcome;
use crate::session::cache::{Failed, Reading, Slot};
use crate::session::events::Event;
use crate::session::protocol;
use crate::session::record::{Id, Record, State};
use crate::store::aside::{Aside, Pending};
use crate::store::{Life as OwnerLife, Now};

impl Renewer {
    // ---- answers

    /// Lets an answer that could not be committed outlive this process.
    pub(super) fn set_aside(&self, slot: &Slot, exchanged: &Exchanged) {
        let Outcome::Done(answer) = &exchanged.outcome else { return };
        let Some(aside) = self.vault.aside() else {
            if !self.vault.store.is_local() {
                self.warn_once("there is no home directory to keep answers in: set HOME or XDG_STATE_HOME");
            }
            return;
        };
        let pending = Pending {
            sent: exchanged.sent.clone(),
            answer: (**answer).clone(),
            life: exchanged.life,
            owner: self.party.owner.clone(),
            duration_ms: exchanged.duration.as_millis() as u64,
        };
        self.check_aside(aside, aside.keep(&slot.key, &pending));
    }

    /// The record shows this attempt's answer.
    pub(super) fn no_longer_aside(&self, slot: &Slot, attempt: Id) {
        if let Some(aside) = self.vault.aside() {
            aside.settled(&slot.key, attempt);
        }
    }

    /// Settles what is set aside of a session, if there is anything: the job to wait for.
    pub(super) fn start_settling(&self, slot: &Slot) -> Option<u64> {
        let aside = self.vault.aside().filter(|_| self.config.renews)?;
        if !aside.pending(&slot.key).iter().any(|pending| self.is_left(pending)) {
            return None;
        }
        // Through the vault, since a load knows its slot only by reference.
        let slot = self.vault.slot(&slot.key);
        Some(self.start_job(&slot, |renewer, slot| {
            renewer.settle_pending(slot, None).map(drop).map_err(|error| Failed::from(error.about(&slot.key.session)))
        }))
    }

    /// Commits, by the settle table, what others of this machine could not. Those who live do it themselves, except for
    /// the attempt that is about to be `taken`. Returns whether the record has changed.
    pub(super) fn settle_pending(&self, slot: &Slot, taken: Option<Id>) -> Result<bool> {
        let Some(aside) = self.vault.aside().filter(|_| self.config.renews) else { return Ok(false) };
        let mut changed = false;
        for pending in aside.pending(&slot.key) {
            let attempt = pending.sent.attempt;
            if taken != Some(attempt) && !self.is_left(&pending) {
                continue;
            }
            let party = format!("{}/{}", pending.owner.host, pending.owner.handle);
            let exchanged = Exchanged {
                sent: pending.sent,
                outcome: Outcome::Done(Box::new(pending.answer)),
                life: pending.life,
                sent_at: Reading::now(),
                duration: Duration::from_millis(pending.duration_ms),
            };
            let settled = loop {
                if let Some(settled) = self.settle_once(slot, &party, &exchanged)? {
                    break settled;
                }
            };
            self.publish(slot, &settled, &exchanged);
            // Only now: a taker that finds no file must find the record changed.
            aside.settled(&slot.key, attempt);
            if settled.written {
                self.tell(&slot.key.session, settled.record.as_deref(), &exchanged);
                changed = true;
            }
            if settled.record.is_some_and(|record| !record.secrets.to_revoke.is_empty()) {
                self.revoke(slot)?;
            }
        }
        Ok(changed)
    }

    /// Nobody is busy with it.
    fn is_left(&self, pending: &Pending) -> bool {
        let mine = pending.owner.handle == self.party.owner.handle;
        !self.vault.runs(pending.sent.attempt) && (mine || self.vault.store.life_of(&pending.owner) != OwnerLife::Alive)
    }

    // ---- generations

    /// Has this machine remember a record that was committed.
    pub(super) fn remember(&self, slot: &Slot, record: &Record) {
        if let Some(aside) = self.vault.aside() {
            self.check_aside(aside, aside.remember(&slot.key, record));
        }
    }

    /// A record of which this process knows nothing, and what this machine remembers. Of a later generation it is taken
    /// for seen, and [`protocol::decide`] has it written back. A session that was left here is left again, and comes
    /// back as the tombstone that it is. `None`: somebody has written in between.
    pub(super) fn recall(&self, slot: &Slot, record: Record, now: &Now) -> Option<Record> {
        let remembered = self.vault.aside().and_then(|aside| aside.recall(&slot.key));
        let lives = matches!(record.state, State::Active | State::Ended);
        let Some(seen) = remembered.filter(|seen| lives && seen.grant == record.grant) else { return Some(record) };
        let party = self.party_name();
        let moment = self.moment(now, &party, Duration::ZERO, None);
        let left = match seen.state {
            State::SignedOut => protocol::sign_out(Some(&record), self.is_revocable(), &moment),
            State::Forgotten => protocol::forget(Some(&record), &moment),
            State::Moving | State::Moved => protocol::moves::gone_again(&record, &seen, &moment),
            State::Active | State::Ended => {
                if seen.generation > record.generation {
                    slot.publish(Some(&Arc::new(seen)), Reading::now());
                }
                return Some(record);
            }
        };
        let Some(mut left) = left else { return Some(record) };
        left.version = left.version.max(seen.version.saturating_add(1));
        match self.vault.store.compare_and_swap(&slot.key, Some(record.version), &left) {
            Ok(true) => self.events.push(Event {
                reason: Some("store_rolled_back".to_owned()),
                ..Event::new("store_warning", &slot.key.session)
            }),
            Ok(false) => return None,
            // It is left, whether the store can be written or not.
            Err(_) => {}
        }
        Some(left)
    }

    // ---- trouble

    fn check_aside(&self, aside: &Aside, done: io::Result<()>) {
        if let Err(error) = done {
            self.warn_once(&format!("{} cannot be written: {error}", aside.directory().display()));
        }
    }

    fn warn_once(&self, what: &str) {
        if !self.warned_of_aside.swap(true, Ordering::Relaxed) {
            let message = format!(
                "{what}; sessions work without it, but an answer that the store cannot take is lost with its process, and \
                 a store that goes back in time is noticed by fewer"
            );
            self.events.push(Event::about_store("state_directory", message));
        }
    }
}
