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
//! Callers' threads run [`caller`], the library's threads run [`job`] and [`revoke`]; what both need is here.

mod aside;
mod ask;
mod caller;
mod job;
mod moves;
mod revoke;
mod sign_in;
mod words;

pub use moves::Destination;

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

use super::cache::{Held, Reading, Slot, Vault};
use super::events::{Event, Events, Stats, count};
use super::protocol::{self, Decision, Moment, Party, Policy, Situation, Want};
use super::recent;
use super::record::{Attempt, Id, Key, Record, State};
use crate::clock;
use crate::config::{Config, Transport};
use crate::error::{Error, Result, Status};
use crate::oauth::http::Http;
use crate::process::tasks::{Wakers, block_on, wake_at};
use crate::process::{self, AtExit, Runtime, lock};
use crate::secret::Secret;
use crate::store::{Life as OwnerLife, Now, Warning};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Instant, Mutex, RwLock};
use crate::token::{Age, Answer, Expiry, Life, Members};

/// How often one process tries to revoke what is left of a sign-out.
const SWEEP: Duration = Duration::from_secs(30);
/// How long a request may be on its way after its sender's death.
const LATEST_WINS: Duration = Duration::from_secs(2);

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
    http: Arc<Http>,
    slots: RwLock<HashMap<Arc<str>, Arc<Slot>>>,
    namespace: Arc<str>,
    me: Weak<Self>,
    closing: AtomicBool,
    abandoned: AtomicBool,
    /// It has been told that the state directory cannot be written.
    warned_of_aside: AtomicBool,
    /// How many of the store's warnings this client has told.
    warned: Mutex<usize>,
    jobs: Mutex<Jobs>,
}

#[derive(Default)]
struct Jobs {
    open: usize,
    /// Those who wait until none is.
    waiters: Wakers,
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
        let http = http(&config.registration.transport);
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
            http,
            slots: RwLock::default(),
            me: me.clone(),
            closing: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            warned_of_aside: AtomicBool::new(false),
            warned: Mutex::default(),
            jobs: Mutex::default(),
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
        // Closing has emptied, or will empty, what it finds: nothing may come after it.
        if !self.is_closing() {
            slots.insert(Arc::clone(&slot.key.session), Arc::clone(&slot));
        }
        slot
    }

    pub fn cached_sessions(&self) -> usize {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn open_exchanges(&self) -> usize {
        lock(&self.jobs).open
    }

    /// The token in memory and the Unix time in milliseconds until which memory answers: no I/O, and for a session that
    /// this thread has asked for lately no lock.
    pub fn peek<T>(&self, session: &[u8], read: impl FnOnce(&Held) -> T) -> Option<(T, i64)> {
        if self.is_closing() {
            return None; // A thread may know a slot that is still filled: by a job of ours, or by another client.
        }
        recent::with_slot(
            self.number,
            session,
            || self.cached(str::from_utf8(session).ok()?),
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
        let jitter = protocol::place_in_window(held.record.grant, slot.process);
        let policy = Policy { jitter, ..self.party.policy };
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
            Want::Newer { than: Some(than), .. } => held.is_valid(now, 0) && held.record.is_newer(*than),
            Want::Newer { than: None, .. } | Want::NoDoubt => false,
        };
        serves.then_some(held)
    }

    /// A token that is valid, whatever else: for a caller who would otherwise get nothing.
    fn still_valid(&self, slot: &Slot, want: &Want) -> Option<Arc<Held>> {
        let held = slot.held().clone()?;
        (matches!(want, Want::Token { .. }) && held.is_valid(Reading::now(), 0)).then_some(held)
    }

    /// Keeps a token that the application brings.
    pub fn save(&self, slot: &Slot, answer: &Answer) -> Result<()> {
        let life = self.life(answer, answer.issued_at_ms().unwrap_or(i64::MAX).min(clock::wall_ms()));
        let saved =
            self.write(slot, "saved", |record, moment| Ok(protocol::save(record, answer, fresh()?, life, moment)))?;
        // One that was there already, and whose end a crash has left unknown, counts as well.
        let endless = |record: &Record| record.life.is_some_and(|life| life.until_ms.is_none());
        if let Some(record) = saved.filter(|record| record.generation == 1 || endless(record)) {
            self.find_expiry(slot, &record, Age::Unknown);
        }
        Ok(())
    }

    /// Leaves a session, and has the server told; what it cannot be told now is told later.
    pub async fn sign_out(&self, slot: &Arc<Slot>, until: Instant) -> Result<()> {
        let left = self
            .write(slot, "signed_out", |record, moment| {
                check_here(&slot.key.session, record, true)?;
                Ok(protocol::sign_out(record, self.is_revocable(), moment))
            })?
            .is_some_and(|record| !record.secrets.to_revoke.is_empty());
        if !left {
            return Ok(());
        }
        let since = Instant::now();
        if let Some(job) = slot.running_job() {
            // It may have looked for what is left before there was anything.
            slot.job_ended(job, until, || self.is_closing()).await;
        }
        if let Some(job) = self.start_sweep(slot, since.elapsed()) {
            slot.job_ended(job, until, || self.is_closing()).await;
        }
        Ok(())
    }

    /// Erases a session here.
    pub fn forget(&self, slot: &Slot) -> Result<()> {
        self.write(slot, "forgotten", |record, moment| {
            check_here(&slot.key.session, record, false)?;
            Ok(protocol::forget(record, moment))
        })
        .map(drop)
    }

    /// Loads, changes and writes a record until nobody has come in between. Returns the record as it stands then.
    fn write(
        &self,
        slot: &Slot,
        kind: &'static str,
        change: impl Fn(Option<&Record>, &Moment) -> Result<Option<Record>>,
    ) -> Result<Option<Arc<Record>>> {
        self.check_open(&slot.key.session)?;
        self.rewrite(slot, Event::new(kind, &slot.key.session), change)
    }

    /// The same, also while the client is being closed. `event` tells of it.
    fn rewrite(
        &self,
        slot: &Slot,
        event: Event,
        change: impl Fn(Option<&Record>, &Moment) -> Result<Option<Record>>,
    ) -> Result<Option<Arc<Record>>> {
        loop {
            let (found, now) = self.load(slot)?;
            let party = self.party_name();
            let moment = self.moment(&now, &party, Duration::ZERO, None);
            let Some(next) = change(found.as_deref(), &moment)? else { return Ok(found) };
            let expected = found.as_ref().map(|record| record.version);
            if self.vault.store.compare_and_swap(&slot.key, expected, &next)? {
                let next = Arc::new(next);
                slot.publish(Some(&next), Reading::now());
                self.events.push(event);
                if next.state != State::Active {
                    self.remember(slot, &next);
                }
                return Ok(Some(next));
            }
        }
    }

    /// The record as the store has it now, and the store's clock.
    pub fn load(&self, slot: &Slot) -> Result<(Option<Arc<Record>>, Now)> {
        self.load_as(slot, || self.vault.store.load(&slot.key))
    }

    fn load_as(
        &self,
        slot: &Slot,
        load: impl Fn() -> Result<(Option<Record>, Now)>,
    ) -> Result<(Option<Arc<Record>>, Now)> {
        let read = Reading::now();
        count(&self.stats.store_reads);
        let (record, now) = loop {
            let (mut record, now) = load().map_err(|error| error.about(&slot.key.session))?;
            let seen = slot.seen();
            let goes_on = |record: &mut Record| {
                seen.as_ref().is_some_and(|seen| seen.grant == record.grant && seen.generation <= record.generation)
            };
            let Some(record) = record.take_if(|record| !goes_on(record)) else { break (record, now) };
            // Memory knows nothing, or the store went back: what this machine keeps beside it may know more.
            self.start_settling(slot);
            if let Some(record) = self.recall(slot, record, &now) {
                break (Some(record), now);
            }
        };
        self.tell_warnings();
        let mut record = record.map(Arc::new);
        if let Some(tombstone) = record.take_if(|record| self.may_delete(record)) {
            self.vault.store.delete(&slot.key, tombstone.version)?;
        }
        let made_by = record.as_ref().and_then(|record| record.made_by);
        // One of this process that is committed, and about to be published.
        let own = made_by.is_some_and(|made_by| self.vault.runs(made_by.attempt));
        if slot.publish(record.as_ref(), read) && !own {
            count(&self.stats.adopted);
            self.events.push(Event::new("adopted", &slot.key.session));
        }
        let left = record.as_ref().is_some_and(|record| !record.secrets.to_revoke.is_empty());
        if left && self.config.renews && slot.is_sweep_due() {
            self.start_sweep(slot, SWEEP);
        }
        Ok((record, now))
    }

    fn tell_warnings(&self) {
        let mut told = lock(&self.warned);
        for Warning { reason, message } in self.vault.store.warnings(*told) {
            *told += 1;
            self.events.push(Event::about_store(reason, message));
        }
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
        let jitter = record.map_or(0, |record| protocol::place_in_window(record.grant, slot.process));
        let party = Party { policy: Policy { jitter, ..self.party.policy }, ..self.party.clone() };
        let read = Reading::now();
        let held = slot.held();
        let same = |held: &&Arc<Held>| {
            record
                .is_some_and(|record| (record.grant, record.generation) == (held.record.grant, held.record.generation))
        };
        let situation = Situation {
            record,
            now,
            wall_ms: held.as_ref().filter(same).map_or(read.wall_ms, |held| held.wall_ms(read)),
            party: &party,
            owner: attempt.map_or(OwnerLife::Unknown, |attempt| self.life_of(slot, attempt)),
            runs_here: attempt.is_some_and(|attempt| self.vault.runs(attempt.id)),
            seen: seen.as_deref(),
        };
        protocol::decide(&situation, want)
    }

    /// Where the latest answer wins, a dead owner's request may still be on its way: it is not known dead at once.
    fn life_of(&self, slot: &Slot, attempt: &Attempt) -> OwnerLife {
        let life = self.vault.store.life_of(&attempt.owner);
        let waits = life == OwnerLife::Dead && self.config.registration.newest_wins;
        if waits && slot.known_dead_for(attempt.id) < LATEST_WINS { OwnerLife::Unknown } else { life }
    }

    /// The `instance_url` of the current token, if it has one.
    pub fn instance_url(&self, slot: &Slot) -> Result<Option<String>> {
        let held = slot.held().clone();
        let record = match held {
            Some(held) => Some(Arc::clone(&held.record)),
            None => self.load(slot)?.0,
        };
        let members = record.as_ref().and_then(|record| record.secrets.members.as_ref());
        Ok(members.and_then(|members| Members::parse(members.expose()).ok()?.text("instance_url")))
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
    pub async fn close(&self, until: Instant) -> bool {
        self.closing.store(true, Ordering::Release);
        self.events.close();
        let slots: Vec<_> =
            self.slots.read().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect();
        slots.iter().for_each(|slot| slot.wake());
        let settled = poll_fn(|context| {
            let mut jobs = lock(&self.jobs);
            if jobs.open == 0 || Instant::now() >= until {
                return Poll::Ready(jobs.open == 0);
            }
            jobs.waiters.add(context);
            wake_at(until);
            Poll::Pending
        });
        let settled = settled.await;
        self.abandoned.store(true, Ordering::Release);
        slots.iter().for_each(|slot| slot.wake());
        // What is not in memory cannot be read from it.
        slots.iter().for_each(|slot| slot.clear());
        self.slots.write().unwrap_or_else(PoisonError::into_inner).clear();
        settled
    }

    // ---- small things

    fn is_revocable(&self) -> bool {
        self.config.registration.has_revocation()
    }

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
        if lock(&self.jobs).open == 0 { Duration::ZERO } else { self.config.exit_wait }
    }

    fn exit(&self, until: Instant) {
        block_on(self.close(until));
    }
}

/// This process's connections for this transport: they serve every client that has it. They load nothing before the
/// first exchange.
pub fn http(transport: &Transport) -> Arc<Http> {
    let name = (PathBuf::new(), transport.name());
    let made: std::result::Result<_, Infallible> =
        process::runtime().shared(name, || Ok(Arc::new(Http::new(transport))));
    match made {
        Ok(http) => http,
    }
}

/// What is on its way to another store cannot be left here; what is there can only be forgotten here.
fn check_here(session: &str, record: Option<&Record>, and_signed_out: bool) -> Result<()> {
    let Some(record) = record.filter(|record| record.is_away()) else { return Ok(()) };
    let arrived = record.state == State::Moved;
    if arrived && !and_signed_out {
        return Ok(());
    }
    Err(words::away(session, arrived, record.moved.as_ref().map(|moved| &moved.place)))
}

fn fresh() -> Result<protocol::Fresh> {
    Ok(protocol::Fresh {
        version: (random_id()?.0 >> 66) as i64,
        grant: random_id()?,
        fingerprint_key: Secret::new(random_id()?.to_string()),
    })
}

fn random_id() -> Result<Id> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::new(Status::Internal, "the operating system gave no random numbers; nothing was sent"))?;
    Ok(Id(u128::from_be_bytes(bytes)))
}
