//! What no input may do. Each module is a target: its `run` takes any bytes, and panics where a property does not hold.
//!
//! The fuzzer calls them with what it makes up (`fuzz/run.sh`), `tests/fuzz_corpus.rs` with the committed corpus.

use std::collections::HashMap;

use evergrant::{Client, Error, Status};
use serde_json::Value;
use serde_json::value::RawValue;

pub mod answer;
pub mod c_functions;
pub mod calls;
pub mod config;
pub mod database;
pub mod sealed;
pub mod token;

/// A target: its name, which is its corpus' directory, and its `run`.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 7] = [
    ("answer", answer::run),
    ("c_functions", c_functions::run),
    ("calls", calls::run),
    ("config", config::run),
    ("database", database::run),
    ("sealed", sealed::run),
    ("token", token::run),
];

/// What marks a secret, in what is sent and in the corpus.
const CANARY: &str = "canary";
const SESSION: &str = "alice";

/// A client that never spends a refresh token, so that no input can make it use the network.
const OFFLINE: &str = r#"{"token_endpoint": "https://login.example.com/token", "client_id": "client",
    "client_secret": "canary-client-secret", "store": "memory:", "renews": false, "max_wait_ms": 0,
    "max_cached_sessions": 8}"#;

fn offline_client() -> Client {
    Client::open(OFFLINE).expect("a good configuration")
}

/// What every error must be: one line that says something, and the same as JSON.
fn check_error(error: &Error) {
    check_message(&error.message);
    let json: Value = serde_json::from_str(&serde_json::to_string(error).expect("JSON")).expect("JSON");
    assert_eq!(json["status"], error.status.name());
    assert_ne!(error.status, Status::Ok);
    assert_ne!(error.status, Status::Internal, "a defect: {error}");
}

fn check_message(message: &str) {
    assert!(message.trim().len() >= 10, "an error that says nothing: {message:?}");
    assert!(!message.chars().any(char::is_control), "an error is one line: {message:?}");
}

/// The members of a JSON object as they were written, the last of each name: an independent reading.
fn members(text: &str) -> Option<HashMap<String, Box<RawValue>>> {
    serde_json::from_str(text).ok()
}

fn string(members: &HashMap<String, Box<RawValue>>, name: &str) -> Option<String> {
    serde_json::from_str(members.get(name)?.get()).ok()
}

/// A member that is there and is not null.
fn has(members: &HashMap<String, Box<RawValue>>, name: &str) -> bool {
    members.get(name).is_some_and(|raw| raw.get() != "null")
}

/// Whether all members but `except` are the same, byte for byte.
fn check_unchanged(before: &HashMap<String, Box<RawValue>>, after: &HashMap<String, Box<RawValue>>, except: &[&str]) {
    for (name, raw) in before.iter().filter(|(name, _)| !except.contains(&name.as_str())) {
        assert_eq!(after.get(name).map(|raw| raw.get()), Some(raw.get()), "the member {name:?} has changed");
    }
}

/// RFC 6749 appendix A.17; RFC 6750 section 2.1 for what is `bearer`.
fn is_token(text: &str, bearer: bool) -> bool {
    let first = if bearer { b'!' } else { b' ' };
    !text.is_empty() && text.bytes().all(|byte| (first..=b'~').contains(&byte))
}
