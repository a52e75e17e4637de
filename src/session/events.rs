//! What a client has to tell: counters, and a bounded ring of events. No secrets.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use serde::Serialize;
use serde_json::{Value, json};

use crate::clock;
use crate::oauth::Outcome;
use crate::process::lock;
use crate::process::tasks::{Wakers, wake_at};
use crate::sync::{Instant, Mutex};

const RING: usize = 512;

/// How many counters stand for one that all threads raise.
pub const SHARDS: usize = 8;

/// A counter with a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Shard(AtomicU64);

/// Counters since open.
#[derive(Default)]
pub struct Stats {
    hits: [Shard; SHARDS],
    /// Records read from the store.
    pub store_reads: AtomicU64,
    /// Renewals by other parties that this one took over.
    pub adopted: AtomicU64,
    /// Callers that waited for another party's attempt.
    pub waits: AtomicU64,
    /// Exchanges that sent a refresh token again.
    pub replays: AtomicU64,
    /// Commits that were tried again.
    pub commit_retries: AtomicU64,
    done: AtomicU64,
    not_sent: AtomicU64,
    busy: AtomicU64,
    refused: AtomicU64,
    invalid_grant: AtomicU64,
    unknown: AtomicU64,
}

/// One more.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Stats {
    /// Counts an answer from memory. Threads that use different shards do not slow each other down.
    pub fn hit(&self, shard: usize) {
        count(&self.hits[shard % SHARDS].0);
    }

    /// Counts an exchange.
    pub fn exchange(&self, outcome: &Outcome) {
        count(match outcome {
            Outcome::Done(_) => &self.done,
            Outcome::NotSent(_) => &self.not_sent,
            Outcome::Busy(_) => &self.busy,
            Outcome::Refused(_) => &self.refused,
            Outcome::InvalidGrant(_) => &self.invalid_grant,
            Outcome::Unknown(_) => &self.unknown,
        });
    }

    /// As JSON.
    pub fn json(&self, cached_sessions: usize, open_exchanges: usize) -> Value {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "hits": self.hits.iter().map(|shard| read(&shard.0)).sum::<u64>(),
            "store_reads": read(&self.store_reads),
            "adopted": read(&self.adopted),
            "waits": read(&self.waits),
            "exchanges": {
                "done": read(&self.done),
                "not_sent": read(&self.not_sent),
                "busy": read(&self.busy),
                "refused": read(&self.refused),
                "invalid_grant": read(&self.invalid_grant),
                "unknown": read(&self.unknown),
            },
            "replays": read(&self.replays),
            "commit_retries": read(&self.commit_retries),
            "cached_sessions": cached_sessions,
            "open_exchanges": open_exchanges,
        })
    }
}

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Its number: 1, 2, 3, …
    pub n: u64,
    /// Unix time.
    pub at_s: i64,
    /// One of those that `evergrant_client_events()` names.
    pub kind: &'static str,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// An exchange's outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<&'static str>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// In words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How long an exchange took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

impl Event {
    /// An event of this kind, now.
    pub fn new(kind: &'static str, session: &str) -> Self {
        Self {
            n: 0,
            at_s: clock::wall_ms() / 1000,
            kind,
            session: Some(session.to_owned()),
            outcome: None,
            reason: None,
            message: None,
            duration_ms: None,
        }
    }

    /// A warning about the store of all sessions.
    pub fn about_store(reason: &str, message: String) -> Self {
        Self { session: None, reason: Some(reason.into()), message: Some(message), ..Self::new("store_warning", "") }
    }
}

/// The last events, numbered.
#[derive(Default)]
pub struct Events {
    ring: Mutex<Ring>,
}

#[derive(Default)]
struct Ring {
    last: u64,
    events: VecDeque<Event>,
    closed: bool,
    waiters: Wakers,
}

impl Events {
    /// Adds one; the oldest goes if there are too many.
    pub fn push(&self, mut event: Event) {
        let mut ring = lock(&self.ring);
        ring.last += 1;
        event.n = ring.last;
        if ring.events.len() == RING {
            ring.events.pop_front();
        }
        ring.events.push_back(event);
        let waiters = ring.waiters.take();
        drop(ring);
        waiters.wake();
    }

    /// Wakes everybody who waits, now and from now on.
    pub fn close(&self) {
        let mut ring = lock(&self.ring);
        ring.closed = true;
        let waiters = ring.waiters.take();
        drop(ring);
        waiters.wake();
    }

    /// The events after this number; waits until then for the first.
    pub async fn after(&self, after: u64, until: Instant) -> Value {
        poll_fn(|context| {
            let mut ring = lock(&self.ring);
            if ring.last > after || ring.closed || Instant::now() >= until {
                return Poll::Ready(());
            }
            ring.waiters.add(context);
            wake_at(until);
            Poll::Pending
        })
        .await;
        let ring = lock(&self.ring);
        let first = ring.events.front().map_or(ring.last + 1, |event| event.n);
        let events: Vec<&Event> = ring.events.iter().filter(|event| event.n > after).collect();
        json!({
            "events": events,
            "next": ring.last.max(after.min(ring.last)),
            "dropped": (first - 1).saturating_sub(after),
        })
    }
}
