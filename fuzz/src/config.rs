//! Configurations: a wrong one is refused with its key and without its values, a right one gives a client.

use evergrant::config::{Config, KEYS, StoreLocation};
use evergrant::{Client, Error, Result, Status};
use serde_json::Value;

use super::{CANARY, check_error, members};

/// Where a value names a file to be read: the machine's own devices would block.
const FILES: [&str; 3] = ["config_file", "client_secret_file", "encryption_key_file"];

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let given: Option<Value> = serde_json::from_str(text).ok();
    let path = |key: &&str| given.as_ref()?.get(key)?.as_str().map(str::to_owned);
    if FILES.iter().filter_map(path).any(|path| path.contains("dev") || path.contains("proc")) {
        return;
    }
    let config = Config::from_json(text);
    let request = Config::from_refresh_request(text).map(|(config, _)| config);
    for (result, argument) in [(&config, "config_json is "), (&request, "request_json is ")] {
        check(text, given.as_ref(), result, argument);
    }
    assert!(config.is_err() || request.is_err(), "refresh_token is missing, or one too many");
    if let Ok(Config { store: StoreLocation::Memory, .. }) = config {
        let client = Client::open(text).expect("a configuration that was read");
        let _: Value = serde_json::from_str(&client.stats().expect("stats")).expect("JSON");
    }
}

fn check(text: &str, given: Option<&Value>, result: &Result<Config>, argument: &str) {
    // The names of keys may be shown, and so what stands in their place.
    let named = given.is_some_and(|given| names(given).contains(CANARY));
    match result {
        Err(error) => {
            check_refusal(error, argument);
            assert!(named || !error.message.contains(CANARY), "a value is shown: {error}");
        }
        Ok(config) => {
            let given = members(text).expect("accepted what is no JSON object");
            for name in given.keys().filter(|name| *name != "refresh_token") {
                assert!(KEYS.iter().any(|key| key.name == name), "accepted the key {name:?}");
            }
            let registration = &config.registration;
            let others = [&registration.authorization_endpoint, &registration.revocation_endpoint];
            for url in others.into_iter().flatten().chain([&registration.token_endpoint]) {
                check_endpoint(url);
            }
            let shown = [registration.token_endpoint.as_str(), &registration.client_id, &config.namespace];
            let open = format!("{shown:?}{:?}", config.store).contains(CANARY);
            assert!(named || open || !format!("{config:?}").contains(CANARY), "Debug shows a secret");
        }
    }
}

fn check_refusal(error: &Error, argument: &str) {
    check_error(error);
    match error.status {
        Status::InvalidArgument => assert!(
            error.message.starts_with("configuration key \"")
                || error.message.starts_with(argument)
                || error.message.starts_with("the file that config_file names is "),
            "it names no key: {error}"
        ),
        // There is no home directory.
        status => assert!(status == Status::Store && error.message.contains("set store"), "{error}"),
    }
}

/// A secret goes to https, or to this machine.
fn check_endpoint(url: &str) {
    let lower = url.to_ascii_lowercase();
    let local = ["http://localhost", "http://127.", "http://[::1]", "http://[0", "http://[:"];
    let safe = lower.starts_with("https://") || local.iter().any(|start| lower.starts_with(start));
    assert!(safe, "accepted {url:?}");
    assert!(url.is_ascii() && !url.contains(['#', '@', '\\', '\r', '\n', ' ']), "accepted {url:?}");
}

fn names(value: &Value) -> String {
    match value {
        Value::Object(members) => members.iter().map(|(name, value)| format!("{name} {}", names(value))).collect(),
        Value::Array(values) => values.iter().map(names).collect(),
        _ => String::new(),
    }
}
