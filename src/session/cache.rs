//! What this process remembers of sessions: the token that is served from memory, and who is busy with what.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::future::{Future, poll_fn};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use super::protocol::Policy;
use super::record::{Id, Key, Record, State};
use crate::clock;
use crate::error::{Error, Status};
use crate::process::lock;
use crate::process::tasks::{Wakers, wake_at};
use crate::secret::Secret;
use crate::store::Store;
use crate::store::aside::Aside;
use crate::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use crate::sync::{ArcSwapOption, Instant, Mutex, MutexGuard};
use crate::token::Life;

/// An open store, and everything that the clients of this process on it share.
pub struct Vault {
    /// The store.
    pub store: Arc<dyn Store>,
    aside: Option<Aside>,
    slots: Mutex<HashMap<Key, Weak<Slot>>>,
    running: Mutex<HashSet<Id>>,
    /// An attempt of ours was left open: others must be able to learn of our end.
    unsettled: AtomicBool,
}

impl Drop for Vault {
    fn drop(&mut self) {
        self.store.leave(!*self.unsettled.get_mut());
    }
}

impl Vault {
    pub fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Self::with_aside(store, None)
    }

    /// What a store that has no place of its own for it leaves goes there.
    pub fn with_aside(store: Arc<dyn Store>, aside: Option<Aside>) -> Arc<Self> {
        Arc::new(Self {
            store,
            aside,
            slots: Mutex::default(),
            running: Mutex::default(),
            unsettled: AtomicBool::new(false),
        })
    }

    /// Where this machine keeps what the store could not take, and what it has seen of it; `None`: nowhere.
    pub fn aside(&self) -> Option<&Aside> {
        self.store.aside().or(self.aside.as_ref())
    }

    /// The one slot of this session in this process.
    pub fn slot(&self, key: &Key) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        if let Some(slot) = slots.get(key).and_then(Weak::upgrade) {
            return slot;
        }
        if slots.len() == slots.capacity() {
            slots.retain(|_, slot| slot.strong_count() > 0);
        }
        let slot = Arc::new(Slot::new(key.clone()));
        slots.insert(key.clone(), Arc::downgrade(&slot));
        slot
    }

    /// Says that the exchange of this attempt runs here, until the answer is dropped.
    pub fn begin(self: &Arc<Self>, attempt: Id) -> Running {
        lock(&self.running).insert(attempt);
        Running { vault: Arc::clone(self), attempt, settled: false }
    }

    /// Whether the exchange of this attempt runs here.
    pub fn runs(&self, attempt: Id) -> bool {
        lock(&self.running).contains(&attempt)
    }
}

/// An exchange that runs in this process.
pub struct Running {
    vault: Arc<Vault>,
    attempt: Id,
    settled: bool,
}

impl Running {
    /// Its outcome is in the store.
    pub fn settled(&mut self) {
        self.settled = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.settled {
            self.vault.unsettled.store(true, Ordering::Release);
        }
        lock(&self.vault.running).remove(&self.attempt);
    }
}

/// One session in this process: the parties of a process are one party.
pub struct Slot {
    /// Which session.
    pub key: Key,
    /// Changes when anything changes what a look into memory would answer.
    pub stamp: &'static AtomicU32,
    /// 0 to 1023: this process's place among those that share the session.
    pub process: i64,
    held: ArcSwapOption<Held>,
    renewing: AtomicBool,
    state: Mutex<SlotState>,
}

#[derive(Default)]
struct SlotState {
    /// A job of this process is busy with the session.
    running: bool,
    /// How many jobs have finished.
    finished: u64,
    /// How the last one failed.
    failure: Option<Failed>,
    /// One of the waiting callers looks at the store.
    polling: bool,
    /// The record of the highest generation seen.
    seen: Option<Arc<Record>>,
    /// The version that memory took over last, and when on the boot-time clock.
    latest: Option<(i64, i64)>,
    /// An attempt whose owner is dead, and when that was seen.
    dead: Option<(Id, Instant)>,
    /// When somebody last tried to revoke what is left of a sign-out.
    swept: Option<Instant>,
    /// When the server is ready for that, if it has said so.
    sweep_from: Option<Instant>,
    /// How often the record has changed, or everybody was woken.
    changes: u64,
    /// Those who wait for that.
    watchers: Wakers,
    /// Those who wait for a job to end.
    waiters: Wakers,
}

/// How a job failed.
#[derive(Clone, Debug)]
pub struct Failed {
    /// What its callers are told.
    pub error: Error,
    /// It goes on by itself after this long: callers with time left may wait for it.
    pub goes_on_after: Option<Duration>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        // A store that is away says when it is looked at again: by anybody, so it may be back before that.
        let again = error.retry_after_ms.filter(|_| error.status == Status::Store);
        Self { goes_on_after: again.map(|ms| Duration::from_millis(ms.min(500))), error }
    }
}

/// A token that memory serves.
pub struct Held {
    /// The record that it stands in.
    pub record: Arc<Record>,
    /// It stands in no record yet: the store cannot be written at the moment.
    pub uncommitted: bool,
    access_token: Secret,
    /// The end of its life on the wall clock and on the boot-time clock: the earlier counts, so that neither a clock
    /// set back nor a suspended machine serves a dead token.
    until_wall_ms: i64,
    until_boot_ms: i64,
    /// The boot-time clock when the store last agreed.
    loaded_boot_ms: AtomicI64,
    /// The boot-time clock before which an early renewal is not tried (again).
    quiet_until_boot_ms: AtomicI64,
}

/// The longest tick of a coarse clock.
const TICK_MS: i64 = 10;

/// A reading of both clocks that end a token's life.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Unix time in milliseconds.
    pub wall_ms: i64,
    /// Milliseconds since boot, suspend included.
    pub boot_ms: i64,
}

impl Reading {
    /// Now.
    pub fn now() -> Self {
        Self { wall_ms: clock::wall_ms(), boot_ms: clock::boot_ms() }
    }

    /// Now, cheaper and up to a tick ahead, never behind: a token at its end is left to who reads the clocks themselves.
    /// Both are read once in a tick of one that is never set.
    pub fn coarse() -> Self {
        thread_local! {
            static LAST: Cell<(i64, Reading)> = const { Cell::new((i64::MIN, Reading { wall_ms: 0, boot_ms: 0 })) };
        }
        let tick_ms = clock::monotonic_coarse_ms();
        LAST.with(|last| {
            if last.get().0 != tick_ms {
                let (wall_ms, boot_ms) = (clock::wall_coarse_ms() + TICK_MS, clock::boot_ms() + TICK_MS);
                last.set((tick_ms, Self { wall_ms, boot_ms }));
            }
            last.get().1
        })
    }
}

impl Held {
    /// `None` if there is nothing to serve. `read`: when its life was last measured against the clocks.
    pub fn new(record: Arc<Record>, uncommitted: bool, read: Reading) -> Option<Self> {
        if !matches!(record.state, State::Active | State::Moving) || record.reason.is_some() {
            return None;
        }
        let access_token = record.secrets.access_token.clone()?;
        let until_wall_ms = record.life.and_then(|life| life.until_ms).unwrap_or(i64::MAX);
        // A life that begins in the future means that this machine's clock is behind the one that measured it.
        let left_ms = match record.life {
            Some(Life { from_ms, until_ms: Some(until_ms), .. }) => until_ms - read.wall_ms.max(from_ms),
            _ => i64::MAX,
        };
        Some(Self {
            access_token,
            uncommitted,
            until_wall_ms,
            until_boot_ms: read.boot_ms.saturating_add(left_ms),
            loaded_boot_ms: AtomicI64::new(read.boot_ms),
            quiet_until_boot_ms: AtomicI64::new(0),
            record,
        })
    }

    /// The access token.
    pub fn access_token(&self) -> &Secret {
        &self.access_token
    }

    /// Whether it stays valid for this long.
    pub fn is_valid(&self, read: Reading, min_valid_ms: i64) -> bool {
        read.wall_ms.saturating_add(min_valid_ms) < self.until_wall_ms
            && read.boot_ms.saturating_add(min_valid_ms) < self.until_boot_ms
    }

    /// The wall clock, or what it would read if it had gone on evenly since this token came.
    pub fn wall_ms(&self, read: Reading) -> i64 {
        if self.until_wall_ms == i64::MAX {
            return read.wall_ms;
        }
        read.wall_ms.max(self.until_wall_ms.saturating_sub(self.until_boot_ms).saturating_add(read.boot_ms))
    }

    /// Unix time in milliseconds until which memory may serve it without a look at the store, if that time is not over.
    pub fn fresh_until_ms(&self, read: Reading, policy: &Policy, recheck_ms: i64, renewing: bool) -> Option<i64> {
        let mut left_ms = (self.until_wall_ms.saturating_sub(read.wall_ms))
            .min(self.until_boot_ms.saturating_sub(read.boot_ms))
            .min(self.loaded_boot_ms.load(Ordering::Relaxed).saturating_add(recheck_ms) - read.boot_ms);
        if !renewing && let Some(early_ms) = self.record.life.as_ref().and_then(|life| policy.early_from_ms(life)) {
            let quiet_ms = self.quiet_until_boot_ms.load(Ordering::Relaxed) - read.boot_ms;
            left_ms = left_ms.min((early_ms - read.wall_ms).max(quiet_ms));
        }
        (left_ms > 0).then(|| read.wall_ms.saturating_add(left_ms))
    }

    /// Lets memory serve for so long although the store, that is to be asked every `recheck_ms`, cannot be.
    pub fn trust_for(&self, read: Reading, recheck_ms: i64, wait_ms: i64) {
        let agreed_ms = read.boot_ms.saturating_sub(recheck_ms).saturating_add(wait_ms.min(recheck_ms));
        self.loaded_boot_ms.fetch_max(agreed_ms, Ordering::Relaxed);
        self.quiet_for(read, wait_ms);
    }

    /// Lets memory serve through the early window for this long, or for an eighth of what is left of it: somebody else
    /// renews, and who looks too late serves a token that ends on its way.
    pub fn quiet_for(&self, read: Reading, wait_ms: i64) {
        let wait_ms = wait_ms.min(self.until_boot_ms.saturating_sub(read.boot_ms) / 8);
        self.quiet_until_boot_ms.store(read.boot_ms.saturating_add(wait_ms), Ordering::Relaxed);
    }
}

/// What a wait ended with.
pub enum Waited {
    /// The job is done.
    Finished,
    /// The job has failed.
    Failed(Failed),
    /// The time is over.
    TimedOut,
}

impl Slot {
    fn new(key: Key) -> Self {
        let hash = fnv(key.session.as_bytes());
        let process = u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            stamp: stamp(hash),
            process: ((hash ^ process) >> 20 & 1023) as i64,
            key,
            held: ArcSwapOption::empty(),
            renewing: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// What memory holds: no lock, no I/O.
    pub fn held(&self) -> arc_swap::Guard<Option<Arc<Held>>> {
        self.held.load()
    }

    /// Whether a renewal is open in this process.
    pub fn is_renewing(&self) -> bool {
        self.renewing.load(Ordering::Acquire)
    }

    /// Takes over what the store said. Memory never moves to an older state of the same grant, nor from a token that is
    /// waiting to be committed to the one before it; nor to what was loaded before a later version came (a signed-out
    /// one, or a new sign-in). Returns whether another party has renewed.
    pub fn publish(&self, record: Option<&Arc<Record>>, read: Reading) -> bool {
        let mut state = lock(&self.state);
        if let (Some((version, since_boot_ms)), Some(record)) = (state.latest, record)
            && record.version < version
            && read.boot_ms <= since_boot_ms
        {
            return false;
        }
        let held = self.held.load_full();
        if let (Some(held), Some(record)) = (&held, record)
            && held.record.grant == record.grant
        {
            let older = if held.uncommitted {
                record.generation < held.record.generation && record.state == State::Active
            } else {
                // A store that went back in time counts its versions anew; a generation never comes twice.
                record.version < held.record.version && record.generation <= held.record.generation
            };
            if older {
                return false;
            }
            // One that has gone back comes to the same version again, with another token.
            let same = |record: &Record| (record.version, record.generation, record.made_by);
            if same(record) == same(&held.record) && !held.uncommitted {
                held.loaded_boot_ms.store(read.boot_ms, Ordering::Relaxed);
                return false;
            }
        }
        state.latest = record.map(|record| (record.version, clock::boot_ms()));
        let renewed = match (&state.seen, record) {
            (Some(seen), Some(record)) => seen.grant == record.grant && seen.generation < record.generation,
            _ => false,
        };
        let higher = |seen: &Arc<Record>, record: &Arc<Record>| {
            seen.grant != record.grant || seen.generation <= record.generation
        };
        match record.filter(|record| matches!(record.state, State::Active | State::Ended)) {
            None => state.seen = None,
            Some(record) if state.seen.as_ref().is_none_or(|seen| higher(seen, record)) => {
                state.seen = Some(Arc::clone(record));
            }
            Some(_) => {}
        }
        let mut next = record.and_then(|record| Held::new(Arc::clone(record), false, read));
        if let (Some(next), Some(held)) = (&mut next, &held)
            && (next.record.grant, next.record.generation) == (held.record.grant, held.record.generation)
        {
            // The same token: a wall clock that was set back since must not lengthen its life.
            next.until_boot_ms = next.until_boot_ms.min(held.until_boot_ms);
        }
        self.held.store(next.map(Arc::new));
        self.touch();
        self.tell(state, false);
        renewed
    }

    /// Serves a token that the store could not take yet.
    pub fn publish_uncommitted(&self, record: Arc<Record>, read: Reading) {
        let mut state = lock(&self.state);
        self.held.store(Held::new(Arc::clone(&record), true, read).map(Arc::new));
        state.seen = Some(record);
        // Its callers are served; the job goes on until the store takes it.
        state.finished += 1;
        state.failure = None;
        self.touch();
        self.tell(state, true);
    }

    /// Forgets the token.
    pub fn clear(&self) {
        let mut state = lock(&self.state);
        self.held.store(None);
        state.seen = None;
        self.touch();
    }

    /// The record of the highest generation that this process has committed or adopted.
    pub fn seen(&self) -> Option<Arc<Record>> {
        lock(&self.state).seen.clone()
    }

    /// For how long the owner of this attempt has been known to be dead.
    pub fn known_dead_for(&self, attempt: Id) -> Duration {
        let mut state = lock(&self.state);
        let now = Instant::now();
        let known = state.dead.filter(|(dead, _)| *dead == attempt);
        now - state.dead.insert(known.unwrap_or((attempt, now))).1
    }

    /// Whether it is time to sweep, at most once in this long.
    pub fn may_sweep(&self, every: Duration) -> bool {
        let mut state = lock(&self.state);
        let now = Instant::now();
        let due = state.swept.is_none_or(|swept| now - swept >= every);
        if due {
            state.swept = Some(now);
        }
        due
    }

    /// The server has asked to be left alone until then.
    pub fn sweep_not_before(&self, at: Instant) {
        lock(&self.state).sweep_from = Some(at);
    }

    /// Whether the server has not asked to be left alone.
    pub fn is_sweep_due(&self) -> bool {
        lock(&self.state).sweep_from.is_none_or(|from| Instant::now() >= from)
    }

    /// Begins a job, unless one runs. `Err`: the number to wait for.
    pub fn begin_job(&self) -> Result<u64, u64> {
        let mut state = lock(&self.state);
        if state.running {
            return Err(state.finished);
        }
        state.running = true;
        self.renewing.store(true, Ordering::Release);
        self.touch();
        Ok(state.finished)
    }

    /// The number to wait for, if a job runs.
    pub fn running_job(&self) -> Option<u64> {
        let state = lock(&self.state);
        state.running.then_some(state.finished)
    }

    /// Ends the job and tells its waiters.
    pub fn end_job(&self, failure: Option<Failed>) {
        let mut state = lock(&self.state);
        state.running = false;
        state.finished += 1;
        state.failure = failure;
        self.renewing.store(false, Ordering::Release);
        self.touch();
        self.tell(state, true);
    }

    /// Waits until the job with this number has ended, or `stop` says so.
    pub fn job_ended(&self, number: u64, until: Instant, stop: impl Fn() -> bool) -> impl Future<Output = Waited> {
        poll_fn(move |context| {
            let mut state = lock(&self.state);
            if state.finished > number {
                return Poll::Ready(match &state.failure {
                    Some(failed) if state.finished == number + 1 => Waited::Failed(failed.clone()),
                    _ => Waited::Finished,
                });
            }
            if Instant::now() >= until {
                return Poll::Ready(Waited::TimedOut);
            }
            if stop() {
                return Poll::Ready(Waited::Finished);
            }
            state.waiters.add(context);
            wake_at(until);
            Poll::Pending
        })
    }

    /// Waits until anything changes or `stop` says so, at most this long.
    pub fn changed(&self, at_most: Duration, stop: impl Fn() -> bool) -> impl Future<Output = ()> {
        let changes = lock(&self.state).changes;
        let until = Instant::now() + at_most;
        poll_fn(move |context| {
            let mut state = lock(&self.state);
            if state.changes != changes || Instant::now() >= until || stop() {
                return Poll::Ready(());
            }
            state.watchers.add(context);
            wake_at(until);
            Poll::Pending
        })
    }

    /// Waits before the next look at the store. Of all waiting callers one comes back after `interval`, the others when
    /// it has found something, or when it has left.
    pub async fn time_to_poll(&self, interval: Duration, until: Instant, stop: impl Fn() -> bool) {
        let left = until.saturating_duration_since(Instant::now());
        if std::mem::replace(&mut lock(&self.state).polling, true) {
            return self.changed((interval * 4).min(left), stop).await;
        }
        let _polling = Polling(self);
        self.changed(interval.min(left), stop).await;
    }

    /// Wakes everybody who waits.
    pub fn wake(&self) {
        self.tell(lock(&self.state), true);
    }

    /// Says that something has changed, and whether a job has ended.
    fn tell(&self, mut state: MutexGuard<'_, SlotState>, ended: bool) {
        state.changes += 1;
        let watchers = state.watchers.take();
        let waiters = if ended { state.waiters.take() } else { Wakers::default() };
        drop(state);
        watchers.wake();
        waiters.wake();
    }

    fn touch(&self) {
        self.stamp.fetch_add(1, Ordering::Release);
    }
}

/// Somebody looks at the store for all who wait.
struct Polling<'a>(&'a Slot);

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).polling = false;
    }
}

/// One word for several sessions: a fixed table, so that a pointer to it never dangles.
fn stamp(hash: u64) -> &'static AtomicU32 {
    const WORDS: usize = 4096;
    static STAMPS: [AtomicU32; WORDS] = [const { AtomicU32::new(1) }; WORDS];
    &STAMPS[(hash ^ hash >> 32) as usize % WORDS]
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
