//! What happened: every request, and counters.

use crate::endpoints::Endpoint;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};

/// What became of the reply to a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Not yet decided.
    #[default]
    Pending,
    /// Handed to the network completely.
    Written,
    /// Only a part of it was written.
    Partial,
    /// None of it was written; the connection was closed.
    Dropped,
    /// None of it was written; the connection was reset.
    Reset,
    /// The client was gone when it was to be written.
    Failed,
}

/// One request.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Entry {
    /// Counted from 1, in the order in which they were read.
    pub n: u64,
    /// Unix time at which it was read.
    pub at_ms: u64,
    /// The connection that it came on, counted from 1.
    pub connection: u64,
    /// Which endpoint it was for.
    pub endpoint: Endpoint,
    /// Its method and path, without the query.
    pub target: String,
    /// `grant_type`.
    pub grant_type: Option<String>,
    /// The client, once it was authenticated.
    pub client_id: Option<String>,
    /// How the client was authenticated.
    pub auth: Option<crate::options::AuthMethod>,
    /// The presented token: the refresh token of a token request, the token of a revocation or introspection, the bearer token.
    pub token: Option<String>,
    /// The family of a presented refresh token.
    pub family: Option<u64>,
    /// The generation of a presented refresh token.
    pub generation: Option<u32>,
    /// The fault that it met.
    pub fault: Option<&'static str>,
    /// When the authority dealt with it; none: it never did.
    pub processed_ms: Option<u64>,
    /// `ok`, or why not: `reused_and_revoked`, `busy`, `invalid_client`, …, `not_processed`.
    pub outcome: &'static str,
    /// A successor was issued.
    pub rotated: bool,
    /// A spent refresh token was answered inside its grace window.
    pub replayed: bool,
    /// Issued by this request.
    pub issued_access_token: Option<String>,
    /// Issued by this request.
    pub issued_refresh_token: Option<String>,
    /// The status of the reply.
    pub status: Option<u16>,
    /// What became of the reply.
    pub reply: Delivery,
    /// Head and body as they came.
    #[serde(skip)]
    pub raw: Vec<u8>,
}

/// The last requests, up to a limit.
pub(crate) struct Log {
    entries: VecDeque<Entry>,
    next: u64,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self { entries: VecDeque::new(), next: 1 }
    }

    /// Adds an entry and gives it its number.
    pub(crate) fn open(&mut self, mut entry: Entry, limit: usize) -> u64 {
        entry.n = self.next;
        self.next += 1;
        while self.entries.len() >= limit.max(1) {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
        self.next - 1
    }

    /// None: it has been dropped meanwhile.
    pub(crate) fn entry(&mut self, n: u64) -> Option<&mut Entry> {
        let behind = usize::try_from(self.next.checked_sub(n)?).ok()?;
        let position = self.entries.len().checked_sub(behind)?;
        self.entries.get_mut(position)
    }

    /// Forgets the entries; the numbers go on, so that a request that is still open does not write into another's.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }
}

/// Counters since the start or the last reset.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    /// Accepted, all in all.
    pub connections: u64,
    /// Open now.
    pub connections_open: u64,
    /// Requests of any kind that were read.
    pub requests: u64,
    /// Token requests that were read.
    pub token_requests: u64,
    /// Token requests that the authority dealt with.
    pub token_requests_processed: u64,
    /// Token requests by outcome; `ok` counts issued answers.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Successors issued.
    pub rotations: u64,
    /// Spent refresh tokens answered inside their grace window.
    pub grace_replays: u64,
    /// Spent or superseded refresh tokens presented outside of it.
    pub reuses: u64,
    /// Token requests that were answered with tokens that did not reach the network completely.
    pub lost_answers: u64,
    /// Token requests between being read and being answered, now.
    pub in_flight: u64,
    /// The highest that this has been.
    pub in_flight_max: u64,
}
