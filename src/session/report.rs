//! Records as the JSON that applications see. No refresh token leaves here.

use serde_json::value::to_raw_value;
use serde_json::{Value, json};

use super::cache::Held;
use super::ends::why_ended;
use super::record::{Record, State};
use crate::clock;
use crate::error::{Error, Result, Status};
use crate::secret::Secret;
use crate::store::{Listed, Now};
use crate::token::Members;

/// The token as it is handed out: the server's members unchanged, and ours.
pub fn token(session: &str, held: &Held) -> Result<Secret> {
    let record = &held.record;
    let until_ms = record.life.and_then(|life| life.until_ms);
    let mut ours = vec![
        ("expires_at_s", json!(until_ms.map(|ms| ms.div_euclid(1000)))),
        ("expiry", json!(record.life.map_or("unknown", |life| life.expiry.name()))),
        ("generation", json!(record.generation)),
        ("session", json!(session)),
    ];
    if let Some(until_ms) = until_ms {
        ours.push(("expires_in", json!((until_ms - clock::wall_ms()).max(0) / 1000)));
    }
    if held.uncommitted {
        ours.push(("uncommitted", json!(true)));
    }
    let ours = ours
        .into_iter()
        .map(|(name, value)| Ok((name, to_raw_value(&value)?)))
        .collect::<serde_json::Result<Vec<_>>>()
        .map_err(|_| unreadable())?;
    let mut members =
        Members::parse(record.secrets.members.as_ref().map_or("{}", Secret::expose)).map_err(|_| unreadable())?;
    members.remove("expires_in");
    for (name, value) in &ours {
        members.set(name, value);
    }
    Ok(members.without("refresh_token"))
}

fn unreadable() -> Error {
    Error::new(Status::Internal, "a kept token answer is not a JSON object; please report it. The session is kept")
}

/// What the store knows of a session.
pub fn describe(session: &str, record: &Record, now: &Now) -> Value {
    let doubt = record.attempt.as_ref().is_some_and(|attempt| attempt.doubt);
    let ended = match record.state {
        State::SignedOut => Some("signed_out"),
        _ => record.reason.as_deref(),
    };
    let state = match record.state {
        State::Active if doubt => "in_doubt",
        state => state.name(),
    };
    // The store's clock, as Unix time.
    let unix_s = |ms: i64| (clock::wall_ms() + ms - now.ms).div_euclid(1000);
    let attempt = record.attempt.as_ref().map(|attempt| {
        json!({
            "owner": format!("{}/{}", attempt.owner.host, attempt.owner.handle),
            "since_s": unix_s(attempt.since_ms),
            "until_s": unix_s(attempt.until_ms),
            "sends": attempt.sends,
        })
    });
    let history: Vec<Value> = record
        .history
        .iter()
        .map(|entry| {
            json!({
                "at_s": entry.at_ms.div_euclid(1000),
                "party": entry.party,
                "outcome": entry.outcome,
                "reason": entry.reason,
                "refresh_token_fingerprint": entry.refresh_token_fingerprint,
                "duration_ms": entry.duration_ms,
            })
        })
        .collect();
    json!({
        "session": session,
        "state": state,
        "reason": ended,
        "message": ended.map(why_ended),
        "version": record.version,
        "generation": record.generation,
        "expires_at_s": record.life.and_then(|life| life.until_ms).map(|ms| ms.div_euclid(1000)),
        "expiry": record.life.map_or("unknown", |life| life.expiry.name()),
        "renewed_at_s": record.renewed_at_ms.div_euclid(1000),
        "signature_mismatch": record.signature_mismatch,
        "to_revoke": record.secrets.to_revoke.len(),
        "attempt": attempt,
        "retry_after_ms": record
            .back_off
            .as_ref()
            .filter(|back_off| back_off.clock == now.clock && back_off.until_ms > now.ms)
            .map(|back_off| back_off.until_ms - now.ms),
        "history": history,
    })
}

/// One page of sessions.
pub fn list(rows: &[Listed], more: bool) -> Value {
    let sessions: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "session": row.session,
                "state": row.state.name(),
                "version": row.version,
                "expires_at_s": row.expires_at_ms.map(|ms| ms.div_euclid(1000)),
            })
        })
        .collect();
    json!({ "sessions": sessions, "next": rows.last().filter(|_| more).map(|row| &row.session) })
}
