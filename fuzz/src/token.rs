//! Tokens that an application saves: whatever is in them, what is accepted passes through unchanged.

use evergrant::Status;
use evergrant::token::Answer;
use serde_json::Value;

use super::{CANARY, SESSION, check_error, check_unchanged, is_token, members, offline_client, string};

/// What the library says itself, whatever the server said.
const OURS: [&str; 6] = ["refresh_token", "expires_in", "expires_at_s", "expiry", "generation", "session"];

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let client = offline_client();
    let read = Answer::from_json(text);
    let saved = client.save(SESSION, text);
    if let Err(error) = &read {
        check_error(error);
        assert_eq!(error.status, Status::InvalidArgument);
        assert!(error.message.starts_with("token_json: "), "it names no argument: {error}");
        assert!(!error.message.contains(CANARY), "it shows a part of the token: {error}");
        assert_eq!(saved.expect_err("saved what cannot be read").message, error.message);
        assert_eq!(client.describe(SESSION).expect_err("a session of nothing").status, Status::SignInRequired);
        return;
    }
    let answer = read.expect("checked above");
    saved.expect("saved what can be read");
    let given = members(text).expect("accepted what is no JSON object");
    let refresh_token = string(&given, "refresh_token").filter(|token| is_token(token, false));
    assert_eq!(answer.refresh_token.as_ref().map(|token| token.expose()), refresh_token.as_deref());
    let whole = members(answer.whole().expect("whole").expose()).expect("JSON");
    check_unchanged(&given, &whole, &["refresh_token"]);
    assert_eq!(string(&whole, "refresh_token"), refresh_token);

    let mut shown = vec![client.describe(SESSION).expect("describe"), client.list(None, 10).expect("list")];
    for json in &shown {
        let _: Value = serde_json::from_str(json).expect("JSON");
    }
    match client.token(SESSION, None) {
        Ok(token) => {
            let token = token.expose().to_owned();
            let out = members(&token).expect("JSON");
            assert!(!out.contains_key("refresh_token"), "a refresh token leaves");
            check_unchanged(&given, &out, &OURS);
            let access_token = string(&given, "access_token").filter(|token| is_token(token, true));
            assert_eq!(client.access_token(SESSION, None).ok().map(|token| token.expose().to_owned()), access_token);
            shown.push(token);
        }
        Err(error) => {
            check_error(&error);
            shown.push(error.message.clone());
        }
    }
    let elsewhere = given
        .iter()
        .any(|(name, raw)| name.contains(CANARY) || (name != "refresh_token" && raw.get().contains(CANARY)));
    if refresh_token.is_some_and(|token| token.contains(CANARY)) && !elsewhere {
        assert!(!shown.concat().contains(CANARY), "the refresh token is shown");
    }
}
