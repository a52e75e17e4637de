//! Records as the JSON that applications see. No refresh token leaves here.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::cache::Held;
use super::record::{Record, State};
use crate::clock;
use crate::error::{Error, Result, Status};
use crate::secret::Secret;
use crate::store::{Listed, Now};

/// A JSON object whose members pass through unchanged, in their order.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Members, A::Error> {
                let mut members: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    members.retain(|(other, _)| *other != name);
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The token as it is handed out: the server's members, and ours.
pub fn token(session: &str, held: &Held) -> Result<Secret> {
    let record = &held.record;
    let text = record.secrets.members.as_ref().map_or("{}", Secret::expose);
    let mut members: Members = serde_json::from_str(text).map_err(|_| unreadable())?;
    members.0.retain(|(name, _)| !matches!(name.as_str(), "refresh_token" | "expires_in"));
    let life = record.life;
    let until_ms = life.and_then(|life| life.until_ms);
    let mut ours = vec![
        ("expires_at_s", json!(until_ms.map(|ms| ms.div_euclid(1000)))),
        ("expiry", json!(life.map_or("unknown", |life| life.expiry.name()))),
        ("generation", json!(record.generation)),
        ("session", json!(session)),
    ];
    if let Some(until_ms) = until_ms {
        ours.push(("expires_in", json!((until_ms - clock::wall_ms()).max(0) / 1000)));
    }
    if held.uncommitted {
        ours.push(("uncommitted", json!(true)));
    }
    for (name, value) in ours {
        members.0.retain(|(other, _)| other != name);
        let value = serde_json::value::to_raw_value(&value).map_err(|_| unreadable())?;
        members.0.push((name.to_owned(), value));
    }
    serde_json::to_string(&members).map(Secret::new).map_err(|_| unreadable())
}

fn unreadable() -> Error {
    Error::new(Status::Internal, "a kept token answer is not a JSON object; please report it. The session is kept")
}

/// What the store knows of a session.
pub fn describe(session: &str, record: &Record, now: &Now) -> Value {
    let doubt = record.attempt.as_ref().is_some_and(|attempt| attempt.doubt);
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
        "reason": record.reason,
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
