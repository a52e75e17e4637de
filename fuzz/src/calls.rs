//! Calls of a queue, one on each line: what is accepted gives exactly one result, what is not is refused at once.

use std::sync::Arc;

use evergrant::queue::Queue;
use evergrant::{Client, Status};
use serde_json::Value;

use super::{check_error, offline_client};

const MOST: usize = 8;

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let client = Arc::new(offline_client());
    let queue = Queue::open().expect("a queue");
    let mut accepted = Vec::new();
    for (tag, call) in text.lines().take(MOST).enumerate() {
        let tag = u64::MAX - tag as u64;
        match queue.submit(Some(&client), tag, call) {
            Ok(()) => {
                accepted.push(tag);
                without_a_client(&queue, call);
            }
            Err(error) => {
                check_error(&error);
                assert_eq!(error.status, Status::InvalidArgument, "{error}");
                let named = ["call_json", "client: "].iter().any(|name| error.message.starts_with(name));
                assert!(named, "it names no argument: {error}");
            }
        }
    }
    let mut tags = results(&queue, &client, accepted.len());
    tags.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(tags, accepted, "results for other calls than those that were accepted");
}

/// A call that a client takes needs one.
fn without_a_client(queue: &Queue, call: &str) {
    let error = queue.submit(None, 0, call).expect_err("a call that needs a client was accepted without one");
    assert!(error.message.starts_with("client: must not be NULL"), "{error}");
}

/// The tags of all results; closing the client ends what waits.
fn results(queue: &Queue, client: &Client, expected: usize) -> Vec<u64> {
    let mut tags = Vec::new();
    let mut waits = [20, 10_000].into_iter();
    while tags.len() < expected {
        let wait = waits.next().unwrap_or_else(|| panic!("{} of {expected} results never came", expected - tags.len()));
        let mut taken = 1;
        while taken > 0 && tags.len() < expected {
            let json = queue.take(wait).expect("take");
            let some: Vec<Value> = serde_json::from_str(json.expose()).expect("JSON");
            taken = some.len();
            tags.extend(some.iter().map(check_result));
        }
        if tags.len() < expected {
            client.close(1_000);
        }
    }
    let none = queue.take(0).expect("take");
    assert_eq!(none.expose(), "[]", "more results than calls");
    tags
}

fn check_result(result: &Value) -> u64 {
    let status = result["status"].as_str().expect("a status");
    let known = Status::ALL.iter().find(|known| known.name() == status).expect("a known status");
    assert_ne!(*known, Status::Internal, "a defect: {result}");
    match known {
        Status::Ok => assert!(result.get("value").is_some() && result.get("error").is_none(), "{result}"),
        _ => assert_eq!(result["error"]["status"], status, "{result}"),
    }
    result["tag"].as_u64().expect("a tag")
}
