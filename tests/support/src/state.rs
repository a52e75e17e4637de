//! All that the server knows, behind one lock that is never held while something is waited for.

use crate::authority::Authority;
use crate::endpoints::{Call, Context, Endpoint};
use crate::faults::{self, Fault, FaultKind, Faults};
use crate::http::Reply;
use crate::log::{Delivery, Entry, Log, Stats};
use crate::options::Options;
use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) struct State {
    /// What a reset goes back to.
    initial: Options,
    pub(crate) options: Options,
    pub(crate) authority: Authority,
    pub(crate) faults: Faults,
    pub(crate) log: Log,
    pub(crate) stats: Stats,
    /// Refresh tokens whose requests are being processed.
    busy: HashSet<String>,
    pub(crate) url: String,
}

/// Unix time.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl State {
    pub(crate) fn new(options: Options, url: String) -> Self {
        Self {
            initial: options.clone(),
            options,
            authority: Authority::new(),
            faults: Faults::default(),
            log: Log::new(),
            stats: Stats::default(),
            busy: HashSet::new(),
            url,
        }
    }

    /// As freshly started, but for the connections that are open.
    pub(crate) fn reset(&mut self) {
        self.options = self.initial.clone();
        self.authority = Authority::new();
        self.faults.clear();
        self.log.clear();
        let (connections_open, in_flight) = (self.stats.connections_open, self.stats.in_flight);
        self.stats = Stats { connections_open, in_flight, ..Stats::default() };
        self.busy.clear();
    }

    /// A request was read. Returns its number in the log.
    pub(crate) fn open(&mut self, call: &mut Call, connection: u64, fault: Option<&FaultKind>) -> u64 {
        let token = call.token().map(str::to_owned);
        let lineage = token.as_deref().filter(|_| call.endpoint == Endpoint::Token);
        let lineage = lineage.and_then(|token| self.authority.presented(token));
        let head = &mut call.request.head;
        let mut raw = std::mem::take(&mut head.raw);
        raw.extend_from_slice(&call.request.body);
        let entry = Entry {
            at_ms: now_ms(),
            connection,
            endpoint: call.endpoint,
            target: format!("{} {}", head.method, head.path),
            grant_type: call.grant_type().map(str::to_owned),
            token,
            family: lineage.map(|(family, _)| family),
            generation: lineage.map(|(_, generation)| generation),
            fault: fault.map(FaultKind::name),
            outcome: "not_processed",
            raw,
            ..Entry::default()
        };
        self.stats.requests += 1;
        if call.endpoint == Endpoint::Token {
            self.stats.token_requests += 1;
            self.stats.in_flight += 1;
            self.stats.in_flight_max = self.stats.in_flight_max.max(self.stats.in_flight);
        }
        self.log.open(entry, self.options.log_limit)
    }

    /// One request per refresh token at a time: takes its place for as long as the pauses last, or gives the refusal.
    pub(crate) fn enter(&mut self, n: u64, call: &Call) -> Result<(), Reply> {
        let Some(token) = call.refreshes().filter(|_| self.options.busy_lock) else { return Ok(()) };
        if self.busy.insert(token.to_owned()) {
            return Ok(());
        }
        let now = now_ms();
        if let Some(entry) = self.log.entry(n) {
            entry.outcome = "busy";
            entry.processed_ms = Some(now);
        }
        self.count_outcome("busy");
        Err(faults::busy(self.options.legacy_busy_text))
    }

    /// Makes room for the next request with this refresh token.
    pub(crate) fn leave(&mut self, call: &Call) {
        if let Some(token) = call.refreshes() {
            self.busy.remove(token);
        }
    }

    /// Deals with a request and notes the outcome.
    pub(crate) fn process(&mut self, n: u64, call: &Call) -> Reply {
        let now = now_ms();
        let mut entry = self.log.entry(n).map(std::mem::take).unwrap_or_default();
        let mut context = Context { options: &self.options, authority: &mut self.authority, url: &self.url, now };
        let reply = context.answer(call, &mut entry);
        entry.processed_ms = Some(now);
        if call.endpoint == Endpoint::Token {
            self.count_outcome(entry.outcome);
            self.stats.rotations += u64::from(entry.rotated);
            self.stats.grace_replays += u64::from(entry.replayed);
        }
        if let Some(place) = self.log.entry(n) {
            *place = entry;
        }
        reply
    }

    fn count_outcome(&mut self, outcome: &'static str) {
        self.stats.token_requests_processed += 1;
        *self.stats.outcomes.entry(outcome).or_default() += 1;
        self.stats.reuses += u64::from(matches!(outcome, "reused" | "reused_and_revoked" | "superseded"));
    }

    /// The reply is about to be given. Done before the bytes go out, so that a client that has its answer finds it in the log.
    pub(crate) fn answered(&mut self, n: u64, endpoint: Endpoint, status: Option<u16>, delivery: Delivery) {
        if endpoint == Endpoint::Token {
            self.stats.in_flight = self.stats.in_flight.saturating_sub(1);
        }
        if let Some(entry) = self.log.entry(n) {
            entry.status = status;
        }
        self.delivered(n, delivery);
    }

    /// What became of the reply, as far as it is known now.
    pub(crate) fn delivered(&mut self, n: u64, delivery: Delivery) {
        let Some(entry) = self.log.entry(n) else { return };
        entry.reply = delivery;
        let lost = !matches!(delivery, Delivery::Written | Delivery::Pending);
        if lost && entry.endpoint == Endpoint::Token && entry.outcome == "ok" {
            self.stats.lost_answers += 1;
        }
    }

    pub(crate) fn take_fault(&mut self, endpoint: Endpoint) -> Option<Fault> {
        self.faults.take_for_request(endpoint)
    }
}
