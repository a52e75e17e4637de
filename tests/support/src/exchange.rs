//! One request from its first byte to the end of its reply, with the fault that it meets.

use crate::endpoints::{self, Call, Endpoint};
use crate::faults::{Fault, FaultKind};
use crate::http::{Connection, Ended, Head, Reply, Request};
use crate::log::Delivery;
use crate::server::Shared;
use std::time::{Duration, Instant};

/// What becomes of the connection.
#[derive(PartialEq, Eq)]
enum Next {
    KeepAlive,
    Close,
}

/// Serves a client until one of both has had enough.
pub(crate) fn serve(shared: &Shared, connection: &mut Connection) {
    if shared.state().faults.take_for_connection() {
        return connection.reset();
    }
    loop {
        let ended = match connection.read_head().and_then(|head| exchange(shared, connection, head)) {
            Ok(Next::KeepAlive) => continue,
            Ok(Next::Close) => return,
            Err(ended) => ended,
        };
        if let Ended::Bad(reply) = ended {
            let _ = connection.write(&reply.with("Connection", "close").to_bytes().0);
        }
        return;
    }
}

fn exchange(shared: &Shared, connection: &mut Connection, head: Head) -> Result<Next, Ended> {
    let (endpoint, prefix, fault) = {
        let mut state = shared.state();
        let (endpoint, prefix) = endpoints::route(&state.options, &head.path);
        let fault = state.take_fault(endpoint);
        (endpoint, prefix, fault)
    };
    let kind = fault.as_ref().map(|fault| &fault.kind);
    let unread = kind == Some(&FaultKind::ResetBeforeRead);
    let body = if unread { Vec::new() } else { connection.read_body(&head)? };
    let wants_close = head.wants_close();

    let mut state = shared.state();
    let mut call = Call::new(&state.options, Request { head, body }, endpoint, prefix);
    let n = state.open(&mut call, connection.number, kind);
    match kind {
        Some(FaultKind::ResetBeforeRead | FaultKind::ResetAfterRead) => {
            state.answered(n, endpoint, None, Delivery::Reset);
            connection.reset();
            return Ok(Next::Close);
        }
        Some(FaultKind::Hang) => {
            drop(state);
            connection.wait_for_close();
            shared.state().answered(n, endpoint, None, Delivery::Dropped);
            return Ok(Next::Close);
        }
        Some(FaultKind::ProcessLate { delay_ms }) => {
            drop(state);
            connection.wait_for_close();
            shared.pause(*delay_ms);
            if shared.is_stopped() {
                return Ok(Next::Close);
            }
        }
        _ => drop(state),
    }

    let reply = reply(shared, n, &call, fault.as_ref());
    let (next, delivery) = deliver(shared, connection, n, endpoint, &reply, kind, wants_close);
    if let Some(delivery) = delivery {
        shared.state().delivered(n, delivery);
    }
    Ok(next)
}

/// The answer, or what the fault makes of it, after the pauses that are due.
fn reply(shared: &Shared, n: u64, call: &Call, fault: Option<&Fault>) -> Reply {
    let mut state = shared.state();
    let latency_ms = if call.endpoint == Endpoint::Token { state.options.latency_ms } else { 0 };
    let before_ms = latency_ms + fault.map_or(0, |fault| fault.before_ms);
    let after_ms = fault.map_or(0, |fault| fault.after_ms);
    if let Some(reply) = fault.and_then(|fault| fault.kind.instead(state.options.legacy_busy_text)) {
        drop(state);
        shared.pause(before_ms + after_ms);
        return reply;
    }
    let reply = match state.enter(n, call) {
        Err(busy) => busy,
        Ok(()) => {
            if before_ms > 0 {
                drop(state);
                shared.pause(before_ms);
                state = shared.state();
            }
            let reply = state.process(n, call);
            if after_ms > 0 {
                drop(state);
                shared.pause(after_ms);
                state = shared.state();
            }
            state.leave(call);
            reply
        }
    };
    drop(state);
    match fault {
        Some(fault) => fault.kind.spoil(reply),
        None => reply,
    }
}

/// Gives the reply, or as much of it as the fault leaves. What it returns is still to be noted.
fn deliver(
    shared: &Shared,
    connection: &mut Connection,
    n: u64,
    endpoint: Endpoint,
    reply: &Reply,
    fault: Option<&FaultKind>,
    wants_close: bool,
) -> (Next, Option<Delivery>) {
    let answered = |delivery| shared.state().answered(n, endpoint, Some(reply.status), delivery);
    let (bytes, head) = reply.to_bytes();
    let part = match fault {
        Some(FaultKind::DropReply | FaultKind::ProcessLate { .. }) => {
            answered(Delivery::Dropped);
            return (Next::Close, None);
        }
        Some(FaultKind::ResetAfterProcess) => {
            answered(Delivery::Reset);
            connection.reset();
            return (Next::Close, None);
        }
        Some(FaultKind::Truncate { bytes }) => head + bytes,
        Some(FaultKind::TruncateHead { bytes }) => *bytes,
        Some(FaultKind::Slow { bytes_per_s, total_ms }) => {
            answered(Delivery::Pending);
            let whole = dribble(shared, connection, &bytes, *bytes_per_s, *total_ms);
            let next = if whole && !wants_close { Next::KeepAlive } else { Next::Close };
            return (next, Some(if whole { Delivery::Written } else { Delivery::Failed }));
        }
        _ => bytes.len(),
    };
    if part < bytes.len() {
        answered(Delivery::Partial);
        let _ = connection.write(&bytes[..part]);
        return (Next::Close, None);
    }
    answered(Delivery::Written);
    if connection.write(&bytes).is_err() {
        return (Next::Close, Some(Delivery::Failed));
    }
    let next = match fault {
        Some(FaultKind::ConnectionClose | FaultKind::Truncate { .. } | FaultKind::TruncateHead { .. }) => Next::Close,
        Some(FaultKind::SilentClose { delay_ms }) => {
            shared.pause(*delay_ms);
            Next::Close
        }
        _ if wants_close => Next::Close,
        _ => Next::KeepAlive,
    };
    (next, None)
}

/// Writes in some twenty pieces a second. False: the client was gone before the end.
fn dribble(
    shared: &Shared,
    connection: &mut Connection,
    bytes: &[u8],
    bytes_per_s: Option<u64>,
    total_ms: Option<u64>,
) -> bool {
    let length = bytes.len() as u64;
    let total = total_ms.unwrap_or_else(|| length * 1000 / bytes_per_s.unwrap_or(1000).max(1));
    let pieces = (total / 50).clamp(2, length);
    let start = Instant::now();
    for piece in 0..pieces {
        let due = Duration::from_millis(total * (piece + 1) / pieces);
        shared.pause(due.saturating_sub(start.elapsed()).as_millis() as u64);
        let range = (length * piece / pieces) as usize..(length * (piece + 1) / pieces) as usize;
        if shared.is_stopped() || connection.write(&bytes[range]).is_err() {
            return false;
        }
    }
    true
}
