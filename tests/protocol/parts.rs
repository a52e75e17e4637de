//! Records, answers and moments that the tests start from, and how records are compared.

use std::sync::Arc;

use evergrant::Secret;
use evergrant::oauth::{Failure, Outcome};
use evergrant::session::fingerprint::Fingerprints;
use evergrant::session::protocol::{KEPT, Moment, Sent};
use evergrant::session::record::{Attempt, BackOff, Binds, Entry, Id, Known, MadeBy, Owner, Record, Secrets, State};
use evergrant::store::Now;
use evergrant::token::{Answer, Expiry, Life};
use serde_json::{Map, Value, json};

/// The store's clock.
pub const NOW_MS: i64 = 1_000_000;
/// The wall clock.
pub const WALL_MS: i64 = 1_700_000_000_000;
/// An attempt's time from its claim to its deadline.
pub const LEASE_MS: i64 = 100_000;
/// The generation whose refresh token the tests send.
pub const G: u64 = 5;
/// The grant that it belongs to.
pub const GRANT: Id = Id(0xa1);
/// The attempt that is settled.
pub const MINE: Id = Id(0x01);
/// Another attempt.
pub const THEIRS: Id = Id(0x02);
/// The handle of the party that decides and settles.
pub const ME: u128 = 0xaa;
/// The handle of another party.
pub const OTHER: u128 = 0xbb;
/// The life of the access token in a Done.
pub const NEW_LIFE: Life =
    Life { from_ms: WALL_MS - 1_000, until_ms: Some(WALL_MS + 7_199_000), expiry: Expiry::Assumed };

pub fn secret(text: &str) -> Secret {
    Secret::new(text)
}

pub fn now() -> Now {
    Now { ms: NOW_MS, clock: "boot-1".to_owned() }
}

pub fn moment(now: &Now) -> Moment<'_> {
    Moment { now, wall_ms: WALL_MS, party: "here/aa", duration_ms: 321, life: Some(NEW_LIFE), jitter: 0 }
}

pub fn owner(handle: u128) -> Owner {
    let host = if handle == ME { "here" } else { "there" };
    Owner { handle: Id(handle), host: host.to_owned(), boot: "boot-1".to_owned() }
}

/// An active session of generation [`G`] that nobody renews, with a token that is good for an hour.
pub fn record() -> Record {
    let mut record = Record {
        version: 70,
        grant: GRANT,
        generation: G,
        state: State::Active,
        reason: None,
        life: Some(Life { from_ms: WALL_MS, until_ms: Some(WALL_MS + 3_600_000), expiry: Expiry::Known }),
        renewed_at_ms: WALL_MS,
        made_by: Some(MadeBy { attempt: Id(0x99), sends: 1 }),
        attempt: None,
        back_off: None,
        known: Known::default(),
        history: Vec::new(),
        signature_mismatch: false,
        moved: None,
        arrived: Vec::new(),
        delete_after_ms: None,
        others: Map::from_iter([("newer".to_owned(), json!({"kept": true}))]),
        secrets: Secrets {
            refresh_token: Some(secret("rt-5")),
            access_token: Some(secret("at-5")),
            members: Some(secret(r#"{"access_token":"at-5"}"#)),
            spare: None,
            to_revoke: Vec::new(),
            fingerprint_key: secret("fingerprint key"),
            others: Map::from_iter([("newer".to_owned(), json!(1))]),
        },
    };
    record.known.saved.push(fingerprint(&record, "seed"));
    record
}

/// The same with its lists full, a server's word running, and tokens of an earlier grant to revoke.
pub fn full_record() -> Record {
    let mut record = record();
    record.known.spent = (0..KEPT).map(|n| fingerprint(&record, &format!("spent-{n}"))).collect();
    record.history = (0..KEPT as i64).map(|n| Entry { at_ms: n, ..entry("done") }.into()).collect();
    record.back_off = Some(back_off(Binds::All));
    record.signature_mismatch = true;
    record.secrets.to_revoke = vec![secret("old grant's")];
    record
}

pub fn ended(reason: &str) -> Record {
    with(record(), |record| {
        record.state = State::Ended;
        record.reason = Some(reason.to_owned());
    })
}

pub fn attempt(id: Id, generation: u64) -> Attempt {
    Attempt {
        id,
        generation,
        owner: owner(if id == MINE { ME } else { OTHER }),
        since_ms: NOW_MS - 5_000,
        until_ms: NOW_MS - 5_000 + LEASE_MS,
        sends: 1,
        doubt: false,
        others: Map::from_iter([("newer".to_owned(), json!("kept"))]),
    }
}

pub fn in_doubt(attempt: Attempt) -> Attempt {
    Attempt { doubt: true, ..attempt }
}

pub fn back_off(binds: Binds) -> BackOff {
    BackOff {
        until_ms: NOW_MS + 4_000,
        clock: now().clock,
        count: 3,
        binds,
        cause: "the server is down".to_owned(),
        reason: "server_unavailable".to_owned(),
    }
}

pub fn entry(outcome: &str) -> Entry {
    Entry {
        at_ms: WALL_MS,
        party: "here/aa".to_owned(),
        outcome: outcome.to_owned(),
        reason: None,
        refresh_token_fingerprint: None,
        duration_ms: None,
    }
}

pub fn sent(sends: u32) -> Sent {
    Sent { attempt: MINE, grant: GRANT, generation: G, sends, refresh_token: secret("rt-5") }
}

pub fn answer(refresh_token: Option<&str>, access_token: Option<&str>) -> Answer {
    Answer {
        refresh_token: refresh_token.map(secret),
        access_token: access_token.map(secret),
        members: secret(&json!({"access_token": access_token, "token_type": "Bearer"}).to_string()),
        expires_in_s: None,
        unusable: access_token.is_none().then(|| "token_type is not Bearer".to_owned()),
        signature_mismatch: false,
    }
}

pub fn done(refresh_token: Option<&str>, access_token: Option<&str>) -> Outcome {
    Outcome::Done(Box::new(answer(refresh_token, access_token)))
}

pub fn failure(reason: &'static str, binds: Binds) -> Failure {
    Failure {
        message: format!("what happened: {reason}"),
        reason,
        error: None,
        error_description: None,
        error_uri: None,
        http_status: None,
        retry_after_ms: None,
        binds,
    }
}

pub fn fingerprint(record: &Record, token: &str) -> Arc<str> {
    Fingerprints::of(record).of_token(&secret(token))
}

/// What the lists of a record become: the newest last, each once, the oldest dropped.
pub fn keep<T: PartialEq>(list: &mut Vec<T>, item: impl Into<T>) {
    let item = item.into();
    list.retain(|kept| *kept != item);
    list.push(item);
    list.drain(..list.len().saturating_sub(KEPT));
}

pub fn with<T>(mut value: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut value);
    value
}

/// Asserts that two records are the same, and names the members that are not: `Debug` hides the secrets.
#[track_caller]
pub fn assert_same(what: &str, got: Option<&Record>, expected: Option<&Record>) {
    let (got_members, expected_members) = (members(got), members(expected));
    let names: std::collections::BTreeSet<_> = got_members.keys().chain(expected_members.keys()).collect();
    let differences: Vec<String> = names
        .into_iter()
        .filter(|name| got_members.get(*name) != expected_members.get(*name))
        .map(|name| format!("\n  {name}: {:?}, not {:?}", got_members.get(name), expected_members.get(name)))
        .collect();
    assert!(differences.is_empty(), "{what}: {}", differences.concat());
    assert_eq!(got, expected, "{what}");
}

fn members(record: Option<&Record>) -> Map<String, Value> {
    let Some(record) = record else { return Map::new() };
    let Ok(Value::Object(mut members)) = serde_json::to_value(record) else { panic!("a record is an object") };
    members.insert("version".to_owned(), json!(record.version));
    members.insert("secrets".to_owned(), json!(record.secrets));
    members
}
