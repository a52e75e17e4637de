//! What jobs run, on threads of the library, one at a time for each session: claim, exchange, settle, publish. A job
//! always finishes, whether anybody still waits for it or not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::words::{defect, failed, refused, unspent, unusable};
use super::{Renewer, random_id};
use crate::error::{Error, Result};
use crate::oauth::{self, Deadline, Outcome};
use crate::process::lock;
use crate::process::tasks::block_on;
use crate::session::cache::{Failed, Reading, Slot};
use crate::session::events::{Event, count};
use crate::session::protocol::{self, Correction, Decision, Sent, Want};
use crate::session::record::{Attempt, Record, State};
use crate::store::Now;
use crate::sync::Instant;
use crate::token::{Age, Life};

/// Added to an attempt's deadline after the exchange's hard limit: for the commit, drift and clock steps.
const MARGIN: Duration = Duration::from_secs(30);
/// The first and the longest wait before a commit is tried again.
const COMMIT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

/// What a caller has found is good for its job for this long: a busy job's clock must not run before it does.
const FRESH: Duration = Duration::from_millis(100);

/// A record as it was loaded.
pub(super) struct Loaded {
    /// Read before the load: the deadlines count from here.
    pub before: Instant,
    pub record: Option<Arc<Record>>,
    /// The store's clock.
    pub now: Now,
}

impl Renewer {
    /// Starts a job for this session, unless one runs. `found`: what made the caller want it. Returns the number to wait
    /// for.
    pub(super) fn start(&self, slot: &Arc<Slot>, want: Want, found: Option<Loaded>) -> u64 {
        self.start_job(slot, move |renewer, slot| renewer.renew(slot, &want, found))
    }

    pub(super) fn start_job(
        &self,
        slot: &Arc<Slot>,
        work: impl FnOnce(&Self, &Arc<Slot>) -> std::result::Result<(), Failed> + Send + 'static,
    ) -> u64 {
        // Closing looks at the open jobs: none begins behind its back.
        let mut jobs = lock(&self.jobs);
        let Some(renewer) = self.me.upgrade().filter(|_| !self.is_closing()) else {
            return u64::MAX; // Its waiters look whether the client is being closed.
        };
        let number = match slot.begin_job() {
            Ok(number) => number,
            Err(number) => return number,
        };
        jobs.open += 1;
        drop(jobs);
        let job = OpenJob { slot: Arc::clone(slot), failure: Some(Failed::from(defect())), open: Open(renewer) };
        if let Err(job) = self.runtime.workers.run(self.config.max_exchanges, Box::new(move || job.run(work))) {
            job(); // No thread can be started: the caller's does it.
        }
        number
    }

    /// Runs `work` beside the session's job. Closing lets it end, too.
    pub(super) fn start_beside(&self, work: impl FnOnce(&Self) + Send + 'static) {
        let mut jobs = lock(&self.jobs);
        let Some(renewer) = self.me.upgrade().filter(|_| !self.is_closing()) else { return };
        jobs.open += 1;
        drop(jobs);
        let open = Open(renewer);
        if let Err(job) = self.runtime.workers.run(self.config.max_exchanges, Box::new(move || work(&open.0))) {
            job();
        }
    }

    /// Renews by itself after `wait`: the doubt is this party's own.
    fn start_later(&self, slot: &Arc<Slot>, wait: Duration) {
        let renewer = self.me.clone();
        let slot = Arc::clone(slot);
        let job = move || {
            if let Some(renewer) = renewer.upgrade().filter(|renewer| !renewer.is_closing()) {
                renewer.start(&slot, Want::NoDoubt, None);
            }
        };
        // If no thread can be started, the next caller replays.
        self.runtime.workers.run_later(wait, self.config.max_exchanges, self.me.clone(), Box::new(job));
    }

    /// Loads, and notes when.
    pub(super) fn load_at(&self, slot: &Slot) -> Result<Loaded> {
        let before = Instant::now();
        let (record, now) = self.load(slot)?;
        Ok(Loaded { before, record, now })
    }

    /// The same for one who can do without.
    pub(super) fn load_soon(&self, slot: &Slot, limit: Duration) -> Result<Loaded> {
        let before = Instant::now();
        let (record, now) = self.load_as(slot, || self.vault.store.load_within(&slot.key, limit))?;
        Ok(Loaded { before, record, now })
    }

    fn renew(&self, slot: &Arc<Slot>, want: &Want, found: Option<Loaded>) -> std::result::Result<(), Failed> {
        let mut found = found.filter(|found| found.before.elapsed() < FRESH);
        loop {
            self.check_open(&slot.key.session)?;
            let Loaded { before, record, now } = match found.take() {
                Some(found) => found,
                None => self.load_at(slot).map_err(unspent)?,
            };
            let decision = self.decide(slot, record.as_deref(), &now, want);
            if let Some(taken) = protocol::takes_over(&decision, record.as_deref())
                && self.settle_pending(slot, Some(taken)).map_err(|error| error.about(&slot.key.session))?
            {
                continue; // Its answer is there: nothing is replayed.
            }
            match (decision, record) {
                (Decision::Claim { sends } | Decision::Serve { early: Some(sends) }, Some(record)) => {
                    if self.exchange(slot, &record, &now, before, sends)? == Flow::Finished {
                        return Ok(());
                    }
                }
                (Decision::Write(next, correction), Some(record)) => self.correct(slot, &record, *next, correction)?,
                (Decision::Refuse(refusal), _) => return Err(refused(&slot.key.session, &refusal)),
                _ => return Ok(()),
            }
        }
    }

    fn correct(&self, slot: &Slot, record: &Record, next: Record, correction: Correction) -> Result<()> {
        if self.vault.store.compare_and_swap(&slot.key, Some(record.version), &next)? {
            let (kind, reason) = match correction {
                Correction::RolledBack => ("store_warning", "store_rolled_back"),
                Correction::DoubtEnded => ("ended", "rotation_lost"),
            };
            self.events.push(Event { reason: Some(reason.to_owned()), ..Event::new(kind, &slot.key.session) });
            let next = Arc::new(next);
            slot.publish(Some(&next), Reading::now());
            self.remember(slot, &next);
        }
        Ok(())
    }

    /// Claims, sends once, settles.
    fn exchange(
        &self,
        slot: &Arc<Slot>,
        record: &Record,
        now: &Now,
        before: Instant,
        sends: u32,
    ) -> std::result::Result<Flow, Failed> {
        let registration = &self.config.registration;
        let Some(refresh_token) = record.secrets.refresh_token.clone() else { return Ok(Flow::Again) };
        let lease = registration.connect_timeout + registration.exchange_timeout + MARGIN;
        let attempt = Attempt {
            id: random_id()?,
            generation: record.generation,
            owner: self.party.owner.clone(),
            since_ms: now.ms,
            until_ms: now.ms + lease.as_millis() as i64,
            sends,
            doubt: false,
            others: Default::default(),
        };
        let sent =
            Sent { attempt: attempt.id, grant: record.grant, generation: record.generation, sends, refresh_token };
        let mut running = self.vault.begin(sent.attempt);
        let claimed = protocol::claim(record, attempt);
        match self.vault.store.compare_and_swap(&slot.key, Some(record.version), &claimed) {
            Ok(true) => {}
            Ok(false) => {
                running.settled();
                return Ok(Flow::Again);
            }
            // It may have been written all the same: only the record can tell.
            Err(error) if !self.is_claimed(slot, &sent) => return Err(unspent(error.about(&slot.key.session)).into()),
            Err(_) => {}
        }
        if sends > 1 {
            count(&self.stats.replays);
        }
        let deadline = Deadline::from(before, registration);
        let gate = || {
            if self.is_closing() {
                return Err("the client is being closed".to_owned());
            }
            if sends > 1 && !self.is_claimed(slot, &sent) {
                return Err("another party has taken over".to_owned());
            }
            Ok(())
        };
        let sent_at = Reading::now();
        let started = Instant::now();
        let outcome = oauth::refresh::refresh(&self.http, registration, &sent.refresh_token, deadline, &gate);
        self.stats.exchange(&outcome);
        let life = match &outcome {
            Outcome::Done(answer) => self.life(answer, sent_at.wall_ms),
            _ => None,
        };
        let exchanged = Exchanged { sent, outcome, life, sent_at, duration: started.elapsed() };
        let settled = self.settle(slot, &claimed, &exchanged)?;
        running.settled();
        drop(running);
        self.conclude(slot, settled, &exchanged)
    }

    /// Whether the record still has this attempt, for the generation that the record is of.
    fn is_claimed(&self, slot: &Slot, sent: &Sent) -> bool {
        let Ok((Some(record), _)) = self.vault.store.load(&slot.key) else { return false };
        record.grant == sent.grant
            && record.generation == sent.generation
            && record.attempt.is_some_and(|attempt| attempt.id == sent.attempt)
    }

    /// Commits an outcome, and then publishes. An answer that cannot be committed now is set aside and served, and
    /// committed as soon as the store can be written; the refresh token is never sent again for it.
    fn settle(&self, slot: &Slot, claimed: &Record, exchanged: &Exchanged) -> Result<Settled> {
        let mut retry_after = COMMIT.0;
        let mut pending = false;
        let party = self.party_name();
        loop {
            match self.settle_once(slot, &party, exchanged) {
                Ok(Some(settled)) => {
                    if pending {
                        self.no_longer_aside(slot, exchanged.sent.attempt);
                    }
                    self.publish(slot, &settled, exchanged);
                    return Ok(settled);
                }
                Ok(None) => continue,
                Err(error) => {
                    let done = matches!(exchanged.outcome, Outcome::Done(_));
                    if !done {
                        // Without an answer there is nothing to lose: the attempt is this party's to take over.
                        return Err(error.about(&slot.key.session));
                    }
                    let first = !std::mem::replace(&mut pending, true);
                    if first {
                        self.set_aside(slot, exchanged);
                    }
                    if self.abandoned.load(Ordering::Acquire) {
                        return Err(error.about(&slot.key.session));
                    }
                    if first {
                        self.serve_uncommitted(slot, claimed, exchanged, &party, &error);
                    }
                }
            }
            count(&self.stats.commit_retries);
            block_on(slot.changed(retry_after, || self.abandoned.load(Ordering::Acquire)));
            retry_after = (retry_after * 2).min(COMMIT.1);
        }
    }

    /// Loads, applies the table, writes. It loads first, always: in a store that went back in time, a version may stand
    /// for another record. `None`: somebody has written in between.
    pub(super) fn settle_once(&self, slot: &Slot, party: &str, exchanged: &Exchanged) -> Result<Option<Settled>> {
        let (found, now) = self.vault.store.load(&slot.key)?;
        let moment = self.moment(&now, party, exchanged.duration, exchanged.life);
        let next = protocol::settle(found.as_ref(), &exchanged.sent, &exchanged.outcome, &moment);
        let Some(next) = next else {
            return Ok(Some(Settled { record: found.map(Arc::new), now, written: false }));
        };
        let expected = found.map(|record| record.version);
        let written = self.vault.store.compare_and_swap(&slot.key, expected, &next)?;
        Ok(written.then(|| Settled { record: Some(Arc::new(next)), now, written }))
    }

    /// Takes over, and has this machine remember, what an outcome came to.
    pub(super) fn publish(&self, slot: &Slot, settled: &Settled, exchanged: &Exchanged) {
        slot.publish(settled.record.as_ref(), exchanged.sent_at);
        let news =
            |record: &&Arc<Record>| record.state != State::Active || record.generation > exchanged.sent.generation;
        if let Some(record) = settled.record.as_ref().filter(|_| settled.written).filter(news) {
            self.remember(slot, record);
            self.find_expiry(slot, record, Age::New);
        }
    }

    fn serve_uncommitted(&self, slot: &Slot, claimed: &Record, exchanged: &Exchanged, party: &str, error: &Error) {
        let now = Now { ms: 0, clock: String::new() };
        let moment = self.moment(&now, party, exchanged.duration, exchanged.life);
        if let Some(record) = protocol::settle(Some(claimed), &exchanged.sent, &exchanged.outcome, &moment) {
            slot.publish_uncommitted(Arc::new(record), exchanged.sent_at);
        }
        self.events
            .push(Event { message: Some(error.message.clone()), ..Event::new("commit_pending", &slot.key.session) });
    }

    /// What a settled outcome means for those who wait.
    fn conclude(
        &self,
        slot: &Arc<Slot>,
        Settled { record, now, .. }: Settled,
        exchanged: &Exchanged,
    ) -> std::result::Result<Flow, Failed> {
        let session = &slot.key.session;
        let Exchanged { sent, outcome, .. } = exchanged;
        self.tell(session, record.as_deref(), exchanged);
        if record.as_ref().is_some_and(|record| !record.secrets.to_revoke.is_empty()) {
            self.revoke(slot)?;
        }
        if let Outcome::Done(answer) = outcome {
            return match &answer.unusable {
                Some(why) => Err(unusable(session, why).into()),
                None => Ok(Flow::Finished),
            };
        }
        let Some(record) = record else { return Ok(Flow::Again) };
        let wait_ms = record.back_off.as_ref().and_then(|back_off| back_off.runs_for(&now)).map(i64::unsigned_abs);
        let mut error = failed(session, outcome, &record);
        error.retry_after_ms = wait_ms.or(error.retry_after_ms);
        let mine = record.attempt.as_ref().is_some_and(|attempt| attempt.id == sent.attempt);
        match outcome {
            Outcome::InvalidGrant(_) if record.state == State::Ended => Err(error.into()),
            Outcome::NotSent(_) | Outcome::Refused(_) if record.attempt.is_none() => Err(error.into()),
            _ if !mine => Ok(Flow::Again),
            // The doubt is ours: replay it by ourselves, at once and then with back-off, until there is an answer.
            _ => match wait_ms.map(Duration::from_millis) {
                Some(wait) => {
                    self.start_later(slot, wait);
                    Err(Failed { error, goes_on_after: Some(wait) })
                }
                None => Ok(Flow::Again),
            },
        }
    }

    pub(super) fn tell(&self, session: &str, record: Option<&Record>, exchanged: &Exchanged) {
        let failure = exchanged.outcome.failure();
        let ended = matches!(exchanged.outcome, Outcome::InvalidGrant(_))
            && record.is_some_and(|record| record.state == State::Ended);
        let kind = match &exchanged.outcome {
            Outcome::Done(_) => "renewed",
            _ if ended => "ended",
            _ => "renewal_failed",
        };
        let event = Event {
            outcome: Some(exchanged.outcome.name()),
            reason: failure.map(|failure| {
                let reason = record.filter(|_| ended).and_then(|record| record.reason.clone());
                reason.unwrap_or_else(|| failure.reason.to_owned())
            }),
            message: failure.map(|failure| failure.message.clone()),
            duration_ms: Some(exchanged.duration.as_millis() as u64),
            ..Event::new(kind, session)
        };
        self.events.push(event);
        if matches!(&exchanged.outcome, Outcome::Done(answer) if answer.signature_mismatch) {
            self.events.push(Event::new("signature_mismatch", session));
        }
    }
}

/// An exchange that has ended.
pub(super) struct Exchanged {
    pub sent: Sent,
    pub outcome: Outcome,
    pub life: Option<Life>,
    pub sent_at: Reading,
    pub duration: Duration,
}

/// The record as it stands after an outcome, and the store's clock then.
pub(super) struct Settled {
    pub record: Option<Arc<Record>>,
    pub now: Now,
    /// It was written for this outcome.
    pub written: bool,
}

/// What a job does next.
#[derive(PartialEq, Eq)]
enum Flow {
    Again,
    Finished,
}

/// Something that runs: closing waits until it is dropped.
pub(super) struct Open(pub(super) Arc<Renewer>);

impl Drop for Open {
    fn drop(&mut self) {
        let mut jobs = lock(&self.0.jobs);
        jobs.open -= 1;
        let waiters = jobs.waiters.take();
        drop(jobs);
        waiters.wake();
    }
}

/// A job that runs: when it is dropped, its waiters are told, whatever happened.
struct OpenJob {
    slot: Arc<Slot>,
    failure: Option<Failed>,
    open: Open,
}

impl OpenJob {
    fn run(mut self, work: impl FnOnce(&Renewer, &Arc<Slot>) -> std::result::Result<(), Failed>) {
        let renewer = &self.open.0;
        let result = work(renewer, &self.slot);
        // Callers of another client on this store may have joined: that this one is closed is no failure of theirs.
        self.failure = result.err().filter(|_| !renewer.is_closing());
    }
}

impl Drop for OpenJob {
    fn drop(&mut self) {
        self.slot.end_job(self.failure.take());
    }
}
