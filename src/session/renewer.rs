//! The driver around the protocol: loads, decides, claims, exchanges, settles, publishes.
//!
//! ```text
//! load ──► decide ──► serve        the token is good (memory, then store)
//!                 ├─► adopt        another party renewed: take its token
//!                 ├─► wait         another party's attempt is open: look again until it settles
//!                 ├─► refuse       the session has ended, or a back-off that binds this party is running
//!                 └─► claim ──► exchange ──► settle ──► serve
//! ```
//!
//! Callers run [`Renewer::obtain`] on their own threads, and wait. Jobs run [`Renewer::renew`] on threads of the
//! library, one for each session, and always finish.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};

use super::cache::{Failed, Held, Reading, Slot, Vault, Waited};
use super::events::{Event, Events, Stats, count};
use super::protocol::{self, Correction, Decision, Moment, Party, Policy, Refusal, Sent, Situation, Want};
use super::recent;
use super::record::{Attempt, Binds, Id, Key, Record, State};
use crate::clock;
use crate::config::{Config, EarlyRenewal};
use crate::error::{Error, Result, Status};
use crate::oauth::{self, Deadline, Outcome};
use crate::process::{self, AtExit, Runtime, lock};
use crate::secret::Secret;
use crate::store::{Life as OwnerLife, Now};
use crate::token::{Answer, Expiry, Life};

/// Added to an attempt's deadline after the exchange's hard limit: for the commit, drift and clock steps.
const MARGIN: Duration = Duration::from_secs(30);
/// Callers with time left wait for a renewal that goes on by itself within this time.
const SOON: Duration = Duration::from_secs(2);
/// The first and the longest wait between two looks at another party's attempt.
const POLL: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));
/// The first and the longest wait before a commit is tried again.
const COMMIT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));
/// How often one process tries to revoke what is left of a sign-out.
const SWEEP: Duration = Duration::from_secs(30);

/// One client in one process.
pub struct Renewer {
    /// Which process.
    pub generation: u64,
    /// Which client; never used again.
    number: u64,
    pub config: Arc<Config>,
    pub vault: Arc<Vault>,
    pub stats: Stats,
    pub events: Events,
    party: Party,
    recheck_ms: i64,
    runtime: &'static Runtime,
    slots: RwLock<HashMap<Arc<str>, Arc<Slot>>>,
    namespace: Arc<str>,
    me: Weak<Self>,
    closing: AtomicBool,
    abandoned: AtomicBool,
    open_jobs: Mutex<usize>,
    all_done: Condvar,
}

impl Renewer {
    pub fn open(config: Arc<Config>, vault: Arc<Vault>) -> Result<Arc<Self>> {
        let policy = Policy {
            renews: config.renews,
            lost_reply: config.lost_reply,
            early_renewal: config.early_renewal,
            renew_before_ms: config.renew_before_s.map(|s| i64::from(s) * 1000),
            local: vault.store.is_local(),
            jitter: 0,
        };
        let party =
            Party { owner: vault.store.owner()?, configuration: config.registration.fingerprint.clone(), policy };
        let runtime = process::runtime();
        let recheck_ms = i64::try_from(config.recheck.as_millis());
        let renewer = Arc::new_cyclic(|me: &Weak<Self>| Self {
            generation: runtime.generation,
            number: recent::next_number(),
            namespace: config.namespace.as_str().into(),
            config,
            vault,
            stats: Stats::default(),
            events: Events::default(),
            party,
            recheck_ms: recheck_ms.unwrap_or(i64::MAX / 2),
            runtime,
            slots: RwLock::default(),
            me: me.clone(),
            closing: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            open_jobs: Mutex::new(0),
            all_done: Condvar::new(),
        });
        let exit: Weak<dyn AtExit> = renewer.me.clone() as Weak<dyn AtExit>;
        process::register_exit(exit);
        Ok(renewer)
    }

    // ---- memory

    /// The slot of this session, if memory has one.
    pub fn cached(&self, session: &str) -> Option<Arc<Slot>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).get(session).cloned()
    }

    /// The slot of this session.
    pub fn slot(&self, session: &str) -> Arc<Slot> {
        if let Some(slot) = self.cached(session) {
            return slot;
        }
        let key = Key { namespace: Arc::clone(&self.namespace), session: session.into() };
        let slot = self.vault.slot(&key);
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= self.config.max_cached_sessions {
            // Any session that nobody is busy with: the store has it all the same.
            let idle = slots.iter().find(|(_, slot)| !slot.is_renewing() && Arc::strong_count(slot) == 1);
            if let Some(name) = idle.map(|(name, _)| Arc::clone(name)) {
                slots.remove(&name);
            }
        }
        slots.insert(Arc::clone(&slot.key.session), Arc::clone(&slot));
        slot
    }

    pub fn cached_sessions(&self) -> usize {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn open_exchanges(&self) -> usize {
        *lock(&self.open_jobs)
    }

    /// The token in memory and the Unix time in milliseconds until which memory answers: no I/O, and for a session that
    /// this thread has asked for lately no lock.
    pub fn peek<T>(&self, session: &str, read: impl FnOnce(&Held) -> T) -> Option<(T, i64)> {
        recent::with_slot(
            self.number,
            session,
            || self.cached(session),
            |slot, shard| {
                let held = slot.held();
                let held = held.as_ref()?;
                let fresh_until_ms = self.fresh_until_ms(slot, held, Reading::coarse())?;
                self.stats.hit(shard);
                Some((read(held), fresh_until_ms))
            },
        )
    }

    fn fresh_until_ms(&self, slot: &Slot, held: &Held, now: Reading) -> Option<i64> {
        let policy = Policy { jitter: slot.jitter, ..self.party.policy };
        held.fresh_until_ms(now, &policy, self.recheck_ms, slot.is_renewing())
    }

    /// What memory alone can answer.
    fn in_memory(&self, slot: &Slot, want: &Want) -> Option<Arc<Held>> {
        let held = slot.held().clone()?;
        let now = Reading::now();
        let serves = match want {
            Want::Token { min_valid_ms } => {
                held.is_valid(now, *min_valid_ms) && self.fresh_until_ms(slot, &held, now).is_some()
            }
            Want::OtherThan(rejected) => held.is_valid(now, 0) && held.access_token() != rejected,
            Want::Newer { than: Some(than), .. } => {
                held.is_valid(now, 0) && *than != (held.record.grant, held.record.generation)
            }
            Want::Newer { than: None, .. } | Want::NoDoubt => false,
        };
        serves.then_some(held)
    }

    /// A token that is valid, whatever else: for a caller who would otherwise get nothing.
    fn still_valid(&self, slot: &Slot, want: &Want) -> Option<Arc<Held>> {
        let held = slot.held().clone()?;
        (matches!(want, Want::Token { .. }) && held.is_valid(Reading::now(), 0)).then_some(held)
    }

    // ---- callers

    /// What a caller wants, from memory, from the store, or from a renewal that it starts or joins.
    pub fn obtain(&self, slot: &Arc<Slot>, mut want: Want, until: Instant) -> Result<Arc<Held>> {
        if let Want::Newer { than: than @ None, .. } = &mut want {
            let held = slot.held().clone();
            *than = match held {
                Some(held) => Some((held.record.grant, held.record.generation)),
                None => self.load(slot)?.0.map(|record| (record.grant, record.generation)),
            };
        }
        let mut interval = POLL.0;
        let mut found = None;
        loop {
            self.check_open(&slot.key.session)?;
            if let Some(held) = self.in_memory(slot, &want) {
                self.stats.hit(0);
                return Ok(held);
            }
            if let Some(held) = renewed_since(slot, found) {
                return Ok(held);
            }
            if let Some(job) = slot.running_job() {
                match self.join(slot, job, &want, until)? {
                    Some(held) => return Ok(held),
                    None => continue,
                }
            }
            let (record, now) = match self.load(slot) {
                Ok(loaded) => loaded,
                Err(error) => return self.still_valid(slot, &want).ok_or(error),
            };
            found = found.or_else(|| record.as_ref().map(|record| (record.grant, record.generation)));
            match self.decide(slot, record.as_deref(), &now, &want) {
                Decision::Serve { early } => {
                    let Some(held) = slot.held().clone() else { continue };
                    match early {
                        None => held.quiet_for(Reading::now(), 1000),
                        Some(_) => self.renew_early(slot, &want, until),
                    }
                    return Ok(self.still_valid(slot, &want).unwrap_or(held));
                }
                Decision::Adopt => {
                    if let Some(held) = slot.held().clone() {
                        return Ok(held);
                    }
                }
                Decision::Wait => {
                    if interval == POLL.0 {
                        count(&self.stats.waits);
                    }
                    if Instant::now() >= until {
                        return self.out_of_time(slot, &want);
                    }
                    slot.wait_to_poll(interval, until);
                    interval = (interval * 3 / 2).min(POLL.1);
                }
                Decision::Refuse(refusal) => {
                    let failed = refused(&slot.key.session, &refusal);
                    if let Some(held) = self.after_failure(slot, failed, &want, until)? {
                        return Ok(held);
                    }
                }
                Decision::Claim { .. } | Decision::Write(..) => {
                    let job = self.start(slot, want.clone());
                    if let Some(held) = self.join(slot, job, &want, until)? {
                        return Ok(held);
                    }
                }
            }
        }
    }

    /// Waits for a job. `None`: look again.
    fn join(&self, slot: &Slot, job: u64, want: &Want, until: Instant) -> Result<Option<Arc<Held>>> {
        match slot.wait_for_job(job, until, || self.is_closing()) {
            Waited::Finished => Ok(None),
            Waited::TimedOut => self.out_of_time(slot, want).map(Some),
            Waited::Failed(failed) => self.after_failure(slot, failed, want, until),
        }
    }

    /// A token that is still valid makes up for a failure; a renewal that goes on by itself soon is waited for.
    fn after_failure(&self, slot: &Slot, failed: Failed, want: &Want, until: Instant) -> Result<Option<Arc<Held>>> {
        if let Some(held) = self.still_valid(slot, want) {
            return Ok(Some(held));
        }
        match failed.goes_on_after {
            Some(wait) if wait <= SOON && Instant::now() + wait < until => {
                slot.wait_for_change(wait);
                Ok(None)
            }
            _ => Err(failed.error),
        }
    }

    fn out_of_time(&self, slot: &Slot, want: &Want) -> Result<Arc<Held>> {
        self.still_valid(slot, want).ok_or_else(|| {
            let session = &slot.key.session;
            let what = if self.config.renews {
                "your wait ended before the renewal did; it goes on without you, ask again"
            } else {
                "your wait ended before another party renewed it; this client has renews: false"
            };
            Error::new(Status::TimedOut, format!("session {session:?}: {what}")).about(session)
        })
    }

    fn renew_early(&self, slot: &Arc<Slot>, want: &Want, until: Instant) {
        let job = self.start(slot, want.clone());
        if self.config.early_renewal == EarlyRenewal::Wait {
            // Its failure is an event: the token is still valid.
            slot.wait_for_job(job, until, || self.is_closing());
        }
    }

    /// Keeps a token that the application brings.
    pub fn save(&self, slot: &Slot, answer: &Answer) -> Result<()> {
        let life = self.life(answer, answer.issued_at_ms().unwrap_or(i64::MAX).min(clock::wall_ms()));
        self.write(slot, "saved", |record, moment| {
            let fresh = protocol::Fresh {
                version: (random_id()?.0 >> 66) as i64,
                grant: random_id()?,
                fingerprint_key: Secret::new(random_id()?.to_string()),
            };
            Ok(protocol::save(record, answer, fresh, life, moment))
        })
        .map(drop)
    }

    /// Leaves a session, and has the server told; what it cannot be told now is told later.
    pub fn sign_out(&self, slot: &Arc<Slot>, until: Instant) -> Result<()> {
        let revocable = self.config.registration.revocation_endpoint.is_some();
        let left = self
            .write(slot, "signed_out", |record, moment| Ok(protocol::sign_out(record, revocable, moment)))?
            .is_some_and(|record| !record.secrets.to_revoke.is_empty());
        if left && let Some(job) = self.start_sweep(slot, Duration::ZERO) {
            slot.wait_for_job(job, until, || self.is_closing());
        }
        Ok(())
    }

    /// Erases a session here.
    pub fn forget(&self, slot: &Slot) -> Result<()> {
        self.write(slot, "forgotten", |record, moment| Ok(protocol::forget(record, moment))).map(drop)
    }

    /// Loads, changes and writes a record until nobody has come in between. Returns the record as it stands then.
    fn write(
        &self,
        slot: &Slot,
        kind: &'static str,
        change: impl Fn(Option<&Record>, &Moment) -> Result<Option<Record>>,
    ) -> Result<Option<Arc<Record>>> {
        self.check_open(&slot.key.session)?;
        loop {
            let (found, now) = self.load(slot)?;
            let party = self.party_name();
            let moment = self.moment(&now, &party, Duration::ZERO, None);
            let Some(next) = change(found.as_deref(), &moment)? else { return Ok(found) };
            let expected = found.as_ref().map(|record| record.version);
            if self.vault.store.compare_and_swap(&slot.key, expected, &next)? {
                let next = Arc::new(next);
                slot.publish(Some(&next), Reading::now());
                self.events.push(Event::new(kind, &slot.key.session));
                return Ok(Some(next));
            }
        }
    }

    /// The record as the store has it now, and the store's clock.
    pub fn load(&self, slot: &Slot) -> Result<(Option<Arc<Record>>, Now)> {
        let read = Reading::now();
        count(&self.stats.store_reads);
        let (record, now) = self.vault.store.load(&slot.key).map_err(|error| error.about(&slot.key.session))?;
        let mut record = record.map(Arc::new);
        if let Some(tombstone) = record.take_if(|record| self.may_delete(record)) {
            self.vault.store.delete(&slot.key, tombstone.version)?;
        }
        if slot.publish(record.as_ref(), read) {
            count(&self.stats.adopted);
            self.events.push(Event::new("adopted", &slot.key.session));
        }
        if record.as_ref().is_some_and(|record| !record.secrets.to_revoke.is_empty()) && self.config.renews {
            self.start_sweep(slot, SWEEP);
        }
        Ok((record, now))
    }

    /// A forgotten session's tombstone has done its work. (A signed-out one is kept: it knows which tokens are spent.)
    fn may_delete(&self, record: &Record) -> bool {
        self.config.renews
            && record.state == State::Forgotten
            && record.delete_after_ms.is_some_and(|after_ms| after_ms < clock::wall_ms())
    }

    pub fn decide(&self, slot: &Slot, record: Option<&Record>, now: &Now, want: &Want) -> Decision {
        let attempt = record.and_then(|record| record.attempt.as_ref());
        let seen = slot.seen();
        let party = Party { policy: Policy { jitter: slot.jitter, ..self.party.policy }, ..self.party.clone() };
        let read = Reading::now();
        let situation = Situation {
            record,
            now,
            wall_ms: slot.held().as_ref().map_or(read.wall_ms, |held| held.wall_ms(read)),
            party: &party,
            owner: attempt.map_or(OwnerLife::Unknown, |attempt| self.vault.store.life_of(&attempt.owner)),
            runs_here: attempt.is_some_and(|attempt| self.vault.runs(attempt.id)),
            seen: seen.as_deref(),
        };
        protocol::decide(&situation, want)
    }

    // ---- jobs

    /// Starts a job for this session, unless one runs. Returns the number to wait for.
    fn start(&self, slot: &Arc<Slot>, want: Want) -> u64 {
        self.start_job(slot, move |renewer, slot| renewer.renew(slot, &want))
    }

    fn start_job(
        &self,
        slot: &Arc<Slot>,
        work: impl FnOnce(&Self, &Arc<Slot>) -> std::result::Result<(), Failed> + Send + 'static,
    ) -> u64 {
        let (Some(renewer), Ok(number)) = (self.me.upgrade(), slot.begin_job()) else {
            return slot.running_job().unwrap_or_default();
        };
        *lock(&self.open_jobs) += 1;
        let job = OpenJob { renewer, slot: Arc::clone(slot), failure: Some(Failed::from(defect())) };
        if let Err(job) = self.runtime.workers.run(self.config.max_exchanges, Box::new(move || job.run(work))) {
            job(); // No thread can be started: the caller's does it.
        }
        number
    }

    /// Renews by itself after `wait`: the doubt is this party's own.
    fn start_later(&self, slot: &Arc<Slot>, wait: Duration) {
        let renewer = self.me.clone();
        let slot = Arc::clone(slot);
        let job = move || {
            if let Some(renewer) = renewer.upgrade().filter(|renewer| !renewer.is_closing()) {
                renewer.start(&slot, Want::NoDoubt);
            }
        };
        // If no thread can be started, the next caller replays.
        self.runtime.workers.run_later(wait, self.config.max_exchanges, Box::new(job));
    }

    fn renew(&self, slot: &Arc<Slot>, want: &Want) -> std::result::Result<(), Failed> {
        loop {
            self.check_open(&slot.key.session)?;
            let before = Instant::now();
            let (record, now) = self.load(slot)?;
            let decision = self.decide(slot, record.as_deref(), &now, want);
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
            slot.publish(Some(&Arc::new(next)), Reading::now());
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
            Err(error) if !self.is_claimed(slot, &sent) => return Err(error.about(&slot.key.session).into()),
            Err(_) => {}
        }
        if sends > 1 {
            count(&self.stats.replays);
        }
        let deadline = Deadline {
            first_byte: before + registration.connect_timeout,
            answer: before + registration.connect_timeout + registration.exchange_timeout,
        };
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
        let outcome = oauth::refresh::refresh(self.runtime.http(), registration, &sent.refresh_token, deadline, &gate);
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

    /// Commits an outcome, and then publishes. An answer that cannot be committed now is kept and served, and committed
    /// as soon as the store can be written; the refresh token is never sent again for it.
    fn settle(&self, slot: &Slot, claimed: &Record, exchanged: &Exchanged) -> Result<Option<Arc<Record>>> {
        let mut retry_after = COMMIT.0;
        let mut pending = false;
        let party = self.party_name();
        loop {
            let settled = self.vault.store.load(&slot.key).and_then(|(found, now)| {
                let moment = self.moment(&now, &party, exchanged.duration, exchanged.life);
                let next = protocol::settle(found.as_ref(), &exchanged.sent, &exchanged.outcome, &moment);
                let Some(next) = next else { return Ok(Some(found)) };
                let expected = found.map(|record| record.version);
                Ok(self.vault.store.compare_and_swap(&slot.key, expected, &next)?.then_some(Some(next)))
            });
            match settled {
                Ok(Some(record)) => {
                    let record = record.map(Arc::new);
                    slot.publish(record.as_ref(), exchanged.sent_at);
                    return Ok(record);
                }
                Ok(None) => continue,
                Err(error) => {
                    let done = matches!(exchanged.outcome, Outcome::Done(_));
                    if !done || self.abandoned.load(Ordering::Acquire) {
                        // Without an answer there is nothing to lose: the attempt is this party's to take over.
                        return Err(error.about(&slot.key.session));
                    }
                    if !std::mem::replace(&mut pending, true) {
                        self.serve_uncommitted(slot, claimed, exchanged, &party, error);
                    }
                }
            }
            count(&self.stats.commit_retries);
            slot.wait_for_change(retry_after);
            retry_after = (retry_after * 2).min(COMMIT.1);
        }
    }

    fn serve_uncommitted(&self, slot: &Slot, claimed: &Record, exchanged: &Exchanged, party: &str, error: Error) {
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
        record: Option<Arc<Record>>,
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
        let error = failed(session, outcome, &record);
        let mine = record.attempt.as_ref().is_some_and(|attempt| attempt.id == sent.attempt);
        match outcome {
            Outcome::InvalidGrant(_) if record.state == State::Ended => Err(error.into()),
            Outcome::NotSent(_) | Outcome::Refused(_) if record.attempt.is_none() => Err(error.into()),
            _ if !mine => Ok(Flow::Again),
            // The doubt is ours: replay it by ourselves, at once and then with back-off, until there is an answer.
            _ => match self.vault.store.load(&slot.key)? {
                (Some(record), now) if record.back_off.as_ref().is_some_and(|back_off| now.ms < back_off.until_ms) => {
                    let wait = record.back_off.map_or(0, |back_off| back_off.until_ms - now.ms);
                    let wait = Duration::from_millis(wait.unsigned_abs());
                    self.start_later(slot, wait);
                    Err(Failed { error, goes_on_after: Some(wait) })
                }
                _ => Ok(Flow::Again),
            },
        }
    }

    fn tell(&self, session: &str, record: Option<&Record>, exchanged: &Exchanged) {
        let failure = exchanged.outcome.failure();
        let ended = record.is_some_and(|record| record.state == State::Ended);
        let kind = match (&exchanged.outcome, ended) {
            (Outcome::Done(_), _) => "renewed",
            (Outcome::InvalidGrant(_), true) => "ended",
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

    /// Has what is left of a sign-out revoked, at most once in this long.
    fn start_sweep(&self, slot: &Slot, at_most_every: Duration) -> Option<u64> {
        if !slot.may_sweep(at_most_every) {
            return None;
        }
        // Through the vault, since a load knows its slot only by reference.
        let slot = self.vault.slot(&slot.key);
        Some(self.start_job(&slot, |renewer, slot| renewer.revoke(slot).map_err(Failed::from)))
    }

    /// RFC 7009, for every token that waits for it. Each confirmed one is removed.
    fn revoke(&self, slot: &Slot) -> Result<()> {
        let registration = &self.config.registration;
        let (Some(record), _) = self.vault.store.load(&slot.key)? else { return Ok(()) };
        for token in &record.secrets.to_revoke {
            let now = Instant::now();
            let deadline = Deadline {
                first_byte: now + registration.connect_timeout,
                answer: now + registration.connect_timeout + registration.exchange_timeout,
            };
            if let Err(failure) = oauth::revoke::revoke(self.runtime.http(), registration, token, "", deadline) {
                self.events.push(Event {
                    reason: Some(failure.reason.to_owned()),
                    message: Some(failure.message),
                    ..Event::new("revocation_failed", &slot.key.session)
                });
                return Ok(());
            }
            loop {
                let (found, _) = self.vault.store.load(&slot.key)?;
                let Some(next) = protocol::revoked(found.as_ref(), token) else { break };
                if self.vault.store.compare_and_swap(&slot.key, found.map(|record| record.version), &next)? {
                    slot.publish(Some(&Arc::new(next)), Reading::now());
                    break;
                }
            }
        }
        Ok(())
    }

    // ---- closing

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub fn check_open(&self, session: &str) -> Result<()> {
        if self.is_closing() {
            return Err(Error::new(Status::Closed, "the client has been closed; open a new one").about(session));
        }
        Ok(())
    }

    /// Lets open exchanges settle until then. Waiters are told at once. `false`: one is still open.
    pub fn close(&self, until: Instant) -> bool {
        self.closing.store(true, Ordering::Release);
        self.events.close();
        let slots: Vec<_> =
            self.slots.read().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect();
        slots.iter().for_each(|slot| slot.wake());
        let mut open = lock(&self.open_jobs);
        while *open > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            open = self.all_done.wait_timeout(open, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let settled = *open == 0;
        drop(open);
        self.abandoned.store(true, Ordering::Release);
        slots.iter().for_each(|slot| slot.wake());
        // What is not in memory cannot be read from it.
        slots.iter().for_each(|slot| slot.clear());
        self.slots.write().unwrap_or_else(PoisonError::into_inner).clear();
        settled
    }

    // ---- small things

    fn party_name(&self) -> String {
        format!("{}/{}", self.party.owner.host, self.party.owner.handle)
    }

    fn moment<'a>(&self, now: &'a Now, party: &'a str, duration: Duration, life: Option<Life>) -> Moment<'a> {
        Moment {
            now,
            wall_ms: clock::wall_ms(),
            party,
            duration_ms: duration.as_millis() as u64,
            life,
            jitter: random_id().map_or(512, |id| (id.0 & 1023) as i64),
        }
    }

    /// The life of an access token that was asked for at this time.
    fn life(&self, answer: &Answer, from_ms: i64) -> Option<Life> {
        answer.access_token.as_ref()?;
        let known = answer.expires_in_s;
        let assumed = self.config.session_lifetime_s.map(i64::from);
        let expiry = match (known, assumed) {
            (Some(_), _) => Expiry::Known,
            (None, Some(_)) => Expiry::Assumed,
            (None, None) => Expiry::Unknown,
        };
        let seconds = [known, assumed].into_iter().flatten().min();
        let until_ms = seconds.map(|seconds| from_ms.saturating_add(seconds.saturating_mul(1000)));
        Some(Life { from_ms, until_ms, expiry })
    }
}

impl AtExit for Renewer {
    fn wait(&self) -> Duration {
        if *lock(&self.open_jobs) == 0 { Duration::ZERO } else { self.config.exit_wait }
    }

    fn exit(&self, until: Instant) {
        self.close(until);
    }
}

/// A token that is newer than what a caller found. The server has no better one, even if it is shorter than was wanted,
/// or the rejected one once more: to ask again would be to ask for ever.
fn renewed_since(slot: &Slot, found: Option<(Id, u64)>) -> Option<Arc<Held>> {
    let (grant, generation) = found?;
    slot.held().clone().filter(|held| held.record.grant == grant && held.record.generation > generation)
}

/// An exchange that has ended.
struct Exchanged {
    sent: Sent,
    outcome: Outcome,
    life: Option<Life>,
    sent_at: Reading,
    duration: Duration,
}

/// What a job does next.
#[derive(PartialEq, Eq)]
enum Flow {
    Again,
    Finished,
}

/// A job that runs: when it is dropped, its waiters are told, whatever happened.
struct OpenJob {
    renewer: Arc<Renewer>,
    slot: Arc<Slot>,
    failure: Option<Failed>,
}

impl OpenJob {
    fn run(mut self, work: impl FnOnce(&Renewer, &Arc<Slot>) -> std::result::Result<(), Failed>) {
        let result = work(&self.renewer, &self.slot);
        self.failure = result.err();
    }
}

impl Drop for OpenJob {
    fn drop(&mut self) {
        self.slot.end_job(self.failure.take());
        *lock(&self.renewer.open_jobs) -= 1;
        self.renewer.all_done.notify_all();
    }
}

fn random_id() -> Result<Id> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::new(Status::Internal, "the operating system gave no random numbers; nothing was sent"))?;
    Ok(Id(u128::from_be_bytes(bytes)))
}

fn defect() -> Error {
    Error::new(Status::Internal, "the renewal ended by a defect of this library; please report it. The session is kept")
}

fn refused(session: &str, refusal: &Refusal) -> Failed {
    match refusal {
        Refusal::SignIn { reason } => {
            let why = match reason.as_str() {
                "no_session" => "there is none of this name: save a token first",
                "no_refresh_token" => {
                    "its token has expired and there is no refresh token to renew it: the user must sign in again"
                }
                "signed_out" => "the user has signed out: only a new sign-in helps",
                "rotation_lost" => {
                    "the answer to a renewal was lost and the server refuses the old refresh token: the user must sign in again"
                }
                "inactive_user" => {
                    "the server says that the user is inactive: after an administrator has repaired that, renew it with anyway: true"
                }
                _ => {
                    "it has ended, the server refuses its refresh token (expired, revoked, or used elsewhere): the user must sign in again"
                }
            };
            Error::new(Status::SignInRequired, format!("session {session:?}: {why}"))
                .because(reason)
                .about(session)
                .into()
        }
        Refusal::BackOff { retry_after_ms, cause, reason, binds, doubt } => {
            let status = match binds {
                Binds::Configuration(_) => Status::Refused,
                Binds::All | Binds::Host(_) => Status::Unavailable,
            };
            let wait = Duration::from_millis(retry_after_ms.unsigned_abs());
            let message =
                format!("session {session:?}: {cause}; it is kept, the next try is in {:.1} s", wait.as_secs_f32());
            let mut error = Error::new(status, message).because(reason).about(session);
            error.retry_after_ms = Some(retry_after_ms.unsigned_abs());
            Failed { error, goes_on_after: doubt.then_some(wait) }
        }
    }
}

/// The error of an exchange, with what it means for the session.
fn failed(session: &str, outcome: &Outcome, record: &Record) -> Error {
    let meaning = match outcome {
        Outcome::InvalidGrant(_) => "the session has ended, the user must sign in again",
        Outcome::Refused(_) => "the session is kept",
        Outcome::NotSent(_) => "the session is kept, try again later",
        _ => "the session is kept, and the renewal is tried again until there is an answer",
    };
    let mut error = outcome.error(|failure| format!("session {session:?}: {}; {meaning}", failure.message));
    if matches!(outcome, Outcome::InvalidGrant(_)) && record.state == State::Ended {
        error.reason.clone_from(&record.reason);
    }
    error.about(session)
}

fn unusable(session: &str, why: &str) -> Error {
    let message = format!(
        "session {session:?}: the server renewed it, but its answer has no access token that can be used ({why}); the new refresh token is kept"
    );
    let mut error = Error::new(Status::Refused, message).because("bad_answer").about(session);
    error.outcome = Some("refused");
    error
}
