use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::*;
use crate::config::Config;
use crate::sync::Instant;

/// Answers every request with `HTTP/1.1` and this, then closes; returns the endpoint and what it heard.
pub(crate) fn answering(answer: &str) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/token", listener.local_addr().unwrap());
    let answer = format!("HTTP/1.1 {}", answer.replacen("\r\n", "\r\nConnection: close\r\n", 1)).into_bytes();
    let (heard, hear) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // A request is one write, and these are small.
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or(0);
            let _ = heard.send(String::from_utf8_lossy(&request[..length]).into_owned());
            let _ = stream.write_all(&answer);
        }
    });
    (endpoint, hear)
}

pub(crate) fn deadline() -> Deadline {
    let soon = Instant::now() + Duration::from_secs(10);
    Deadline { first_byte: soon, answer: soon }
}

/// A client of this token endpoint, with these further members in its configuration.
pub(crate) fn registration(endpoint: &str, members: &str) -> Registration {
    let json = format!(r#"{{"token_endpoint":"{endpoint}","client_id":"id","store":"memory:",{members}}}"#);
    Config::from_json(&json).unwrap().registration
}

fn exchange(answer: &str, members: &str) -> Outcome {
    let (endpoint, _) = answering(answer);
    let token = Secret::new("canary-refresh-token");
    refresh(&Http::default(), &registration(&endpoint, members), &token, deadline(), &|| Ok(()))
}

fn outcome(answer: &str) -> Outcome {
    exchange(answer, r#""client_secret":"canary-client-secret""#)
}

fn failure(outcome: &Outcome) -> &Failure {
    match outcome {
        Outcome::NotSent(f)
        | Outcome::Busy(f)
        | Outcome::Refused(f)
        | Outcome::InvalidGrant(f)
        | Outcome::Unknown(f) => f,
        Outcome::Done(answer) => panic!("{answer:?}"),
    }
}

fn binds(failure: &Failure) -> &'static str {
    match failure.binds {
        Binds::All => "all",
        Binds::Host(_) => "host",
        Binds::Configuration(_) => "configuration",
    }
}

#[test]
fn classification() {
    let json = "\r\nContent-Type: application/json\r\n\r\n";
    let error = |status: &str, error: &str, description: &str| {
        format!("{status}{json}{{\"error\":\"{error}\",\"error_description\":\"{description}\"}}")
    };
    let rows: Vec<(String, &str, &str, &str)> = vec![
        // RFC 6749 §5.2
        (
            error("400 Bad", "invalid_grant", "expired access/refresh token"),
            "invalid_grant",
            "used_elsewhere_or_revoked",
            "all",
        ),
        (error("400 Bad", "invalid_grant", ""), "invalid_grant", "used_elsewhere_or_revoked", "all"),
        (error("400 Bad", "invalid_grant", "never heard of"), "invalid_grant", "used_elsewhere_or_revoked", "all"),
        // Other servers' words
        (error("400 Bad", "invalid_grant", "Token is not active"), "invalid_grant", "expired_or_revoked", "all"),
        (error("400 Bad", "invalid_grant", "Refresh token expired"), "invalid_grant", "expired_or_revoked", "all"),
        (
            error("400 Bad", "invalid_grant", "Token has been expired or revoked."),
            "invalid_grant",
            "used_elsewhere_or_revoked",
            "all",
        ),
        (
            error("400 Bad", "invalid_grant", "Refresh token has been used already"),
            "invalid_grant",
            "used_elsewhere_or_revoked",
            "all",
        ),
        (error("400 Bad", "invalid_client", "x"), "refused", "client_refused", "configuration"),
        (error("401 No", "invalid_client", "x"), "refused", "client_refused", "configuration"),
        (error("400 Bad", "invalid_request", "x"), "refused", "client_refused", "configuration"),
        (error("400 Bad", "unauthorized_client", "x"), "refused", "client_refused", "configuration"),
        (error("400 Bad", "unsupported_grant_type", "x"), "refused", "client_refused", "configuration"),
        (error("400 Bad", "invalid_scope", "x"), "refused", "client_refused", "configuration"),
        (error("403 No", "unheard_of", "x"), "refused", "client_refused", "configuration"),
        (error("400 Bad", "server_error", "x"), "unknown", "server_unavailable", "all"),
        (error("400 Bad", "temporarily_unavailable", "x"), "unknown", "server_unavailable", "all"),
        // Salesforce
        (
            error("400 Bad", "invalid_grant", "token request is already being processed"),
            "busy",
            "server_unavailable",
            "all",
        ),
        (
            error("400 Bad", "invalid_grant", "Token Request is already being processed."),
            "busy",
            "server_unavailable",
            "all",
        ),
        (error("400 Bad", "invalid_grant", "expired authorization code"), "busy", "server_unavailable", "all"),
        (error("400 Bad", "invalid_grant", "token validity expired"), "invalid_grant", "expired_or_revoked", "all"),
        (error("400 Bad", "invalid_grant", "Inactive User"), "invalid_grant", "inactive_user", "all"),
        (error("400 Bad", "inactive_user", ""), "invalid_grant", "inactive_user", "all"),
        (error("400 Bad", "inactive_org", ""), "invalid_grant", "inactive_user", "all"),
        (
            error("400 Bad", "invalid_grant", "authentication failure"),
            "invalid_grant",
            "used_elsewhere_or_revoked",
            "all",
        ),
        (error("400 Bad", "invalid_grant", "login rate exceeded"), "refused", "server_unavailable", "all"),
        (error("400 Bad", "rate_limit_exceeded", ""), "refused", "server_unavailable", "all"),
        (
            error("400 Bad", "invalid_client_id", "client identifier invalid"),
            "refused",
            "client_refused",
            "configuration",
        ),
        (error("400 Bad", "invalid_app_access", "x"), "refused", "client_refused", "configuration"),
        (
            "400 Bad\r\n\r\nerror=invalid_grant&error_description=inactive+user".into(),
            "invalid_grant",
            "inactive_user",
            "all",
        ),
        // Servers that say no with HTTP 200, and their words
        (error("200 OK", "bad_refresh_token", "x"), "invalid_grant", "used_elsewhere_or_revoked", "all"),
        (error("200 OK", "invalid_refresh_token", "x"), "invalid_grant", "used_elsewhere_or_revoked", "all"),
        (error("200 OK", "invalid_client", "x"), "refused", "client_refused", "configuration"),
        // Not a word of the authorization server's, or none that can be understood
        (error("429 Slow", "invalid_grant", "x"), "not_sent", "server_unavailable", "all"),
        ("429 Slow\r\n\r\n".into(), "not_sent", "server_unavailable", "all"),
        (error("503 Down", "invalid_grant", "x"), "unknown", "server_unavailable", "all"),
        (error("500 Oops", "invalid_client", "x"), "unknown", "server_unavailable", "all"),
        ("502 Bad Gateway\r\n\r\n<html>".into(), "unknown", "server_unavailable", "all"),
        (error("408 Late", "invalid_request", "x"), "unknown", "bad_answer", "all"),
        ("404 Gone\r\n\r\n<html>".into(), "unknown", "bad_answer", "all"),
        ("400 Bad\r\n\r\n".into(), "unknown", "bad_answer", "all"),
        ("400 Bad\r\n\r\n{\"error\":{\"code\":400}}".into(), "unknown", "bad_answer", "all"),
        ("400 Bad\r\n\r\n{\"error\":\"invalid_gr".into(), "unknown", "bad_answer", "all"),
        ("307 Moved\r\nLocation: https://other.example/t\r\n\r\n".into(), "unknown", "bad_answer", "configuration"),
        ("304 Same\r\n\r\n".into(), "unknown", "bad_answer", "configuration"),
        ("204 Empty\r\n\r\n".into(), "unknown", "bad_answer", "all"),
        ("200 OK\r\n\r\n".into(), "unknown", "bad_answer", "all"),
        ("200 OK\r\n\r\n<html>".into(), "unknown", "bad_answer", "all"),
        ("200 OK\r\n\r\n[]".into(), "unknown", "bad_answer", "all"),
        ("200 OK\r\n\r\n{}".into(), "unknown", "bad_answer", "all"),
        ("200 OK\r\n\r\n{\"access_token\":5}".into(), "unknown", "bad_answer", "all"),
        ("200 OK\r\n\r\n{\"access_token\":\"a b\"}".into(), "unknown", "bad_answer", "all"),
        ("200 OK\r\n\r\n{\"access_token\":\"a\",\"refresh_token\":".into(), "unknown", "bad_answer", "all"),
        (
            "200 OK\r\n\r\n{\"access_token\":\"a\",\"token_type\":\"DPoP\"}".into(),
            "refused",
            "bad_answer",
            "configuration",
        ),
    ];
    for (answer, name, reason, bound) in rows {
        let outcome = outcome(&answer);
        let failure = failure(&outcome);
        assert_eq!((outcome.name(), failure.reason, binds(failure)), (name, reason, bound), "{answer}: {failure:?}");
        assert!(failure.http_status.is_some() && failure.message.starts_with("127.0.0.1:"), "{failure:?}");
        assert!(!failure.message.contains('\n') && !failure.message.contains("canary"), "{failure:?}");
    }
}

#[test]
fn successes() {
    for (body, access_token, refresh_token, unusable) in [
        (r#"{"access_token":"a","token_type":"Bearer"}"#, Some("a"), None, None),
        (r#"{"access_token":"a"}"#, Some("a"), None, None),
        (r#"{"access_token":"a","token_type":"bEARER","refresh_token":"r"}"#, Some("a"), Some("r"), None),
        (r#"{"access_token":"a","refresh_token":""}"#, Some("a"), None, None),
        (r#"{"access_token":"a","refresh_token":["r"]}"#, Some("a"), None, None),
        (r#"{"refresh_token":"r"}"#, None, Some("r"), Some("no access_token")),
        (r#"{"access_token":"a b","refresh_token":"r"}"#, None, Some("r"), Some("characters")),
        (r#"{"access_token":"a","token_type":"DPoP","refresh_token":"r"}"#, None, Some("r"), Some("token_type")),
        (r#"{"access_token":"a","error":"none of ours"}"#, Some("a"), None, None),
    ] {
        let Outcome::Done(answer) = outcome(&format!("200 OK\r\n\r\n{body}")) else { panic!("{body}") };
        assert_eq!(answer.access_token.as_ref().map(Secret::expose), access_token, "{body}");
        assert_eq!(answer.refresh_token.as_ref().map(Secret::expose), refresh_token, "{body}");
        assert_eq!(answer.unusable.is_some(), unusable.is_some(), "{body}");
        assert!(answer.unusable.unwrap_or_default().contains(unusable.unwrap_or_default()), "{body}");
    }
    // Any 2xx.
    assert!(matches!(outcome("201 Created\r\n\r\n{\"access_token\":\"a\"}"), Outcome::Done(_)));
}

#[test]
fn bytes_that_are_not_utf_8_are_a_bad_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/token", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"access_token\":\"\xff\"}");
    });
    let registration = registration(&endpoint, r#""scope":"a""#);
    let outcome = refresh(&Http::default(), &registration, &Secret::new("r"), deadline(), &|| Ok(()));
    assert_eq!((outcome.name(), failure(&outcome).reason), ("unknown", "bad_answer"));
    assert!(failure(&outcome).message.contains("UTF-8"));
}

#[test]
fn a_wrong_signature_is_a_mark_and_no_error() {
    let answer = |signature: &str| {
        let body = r#"{"access_token":"a","id":"https://login.salesforce.com/id/00Dxx0000001gEREAY/005xx000001Sv6AAAS","issued_at":"1790000000000""#;
        let answer = format!("200 OK\r\n\r\n{body},\"signature\":\"{signature}\"}}");
        match exchange(&answer, r#""client_secret":"PLACEHOLDER_CONSUMER_SECRET""#) {
            Outcome::Done(answer) => answer.signature_mismatch,
            other => panic!("{other:?}"),
        }
    };
    assert!(!answer("oylgSGeaumzttdIvmRzb2tJ090Wm3L/cnfWp6+SSudo="));
    assert!(answer("AylgSGeaumzttdIvmRzb2tJ090Wm3L/cnfWp6+SSudo="));
}

#[test]
fn the_servers_word_is_kept_and_scrubbed() {
    let description = "bad \\u001b[31mtoken canary-refresh-token of canary-client-secret (eyJhbGciOiJub25lIn0.e30.x)";
    let outcome = outcome(&format!(
        "400 Bad\r\nRetry-After: 9\r\n\r\n{{\"error\":\"invalid_grant\",\"error_description\":\"{description}\",\
         \"error_uri\":\"https://help.example/canary-refresh-token\"}}"
    ));
    let failure = failure(&outcome);
    assert_eq!(failure.error.as_deref(), Some("invalid_grant"));
    let expected = "bad  [31mtoken [redacted] of [redacted] ([redacted]";
    assert_eq!(failure.error_description.as_deref(), Some(expected));
    assert!(failure.message.contains(expected), "{}", failure.message);
    assert_eq!(failure.error_uri.as_deref(), Some("https://help.example/[redacted]"));
    assert_eq!((failure.http_status, failure.retry_after_ms), (Some(400), Some(9_000)));
    assert!(!format!("{outcome:?}").contains("canary"), "{outcome:?}");
}

#[test]
fn a_long_word_is_cut() {
    let outcome =
        outcome(&format!("400 Bad\r\n\r\n{{\"error\":\"x\",\"error_description\":\"{}\"}}", "lo ng".repeat(1000)));
    assert!(failure(&outcome).message.chars().count() < 600);
}

#[test]
fn messages_say_what_to_do() {
    let invalid_client = "401 No\r\n\r\n{\"error\":\"invalid_client\"}";
    let unsupported = "400 Bad\r\n\r\n{\"error\":\"unsupported_grant_type\"}";
    for (answer, members, words) in [
        (invalid_client, r#""client_secret":"s""#, &["basic_encoding", "client_secret", "try \"raw\""][..]),
        (invalid_client, r#""client_secret":"s","basic_encoding":"raw""#, &["basic_encoding", "try \"form\""]),
        (
            invalid_client,
            r#""client_secret":"s","client_auth":"client_secret_post""#,
            &["basic_encoding", "client_auth"],
        ),
        (invalid_client, r#""scope":"a""#, &["basic_encoding", "client_secret"]),
        (unsupported, r#""parameters_in":"headers""#, &["parameters_in"]),
        (unsupported, r#""scope":"a""#, &["token_endpoint"]),
        ("400 Bad\r\n\r\n{\"error\":\"invalid_scope\"}", r#""scope":"a""#, &["check scope"]),
        (
            "302 Found\r\nLocation: https://other.example/x?canary\r\n\r\n",
            r#""scope":"a""#,
            &["redirect to other.example ", "not followed"],
        ),
        ("302 Found\r\nLocation: /x\r\n\r\n", r#""scope":"a""#, &["redirect to 127.0.0.1:"]),
    ] {
        let outcome = exchange(answer, members);
        let message = &failure(&outcome).message;
        assert!(words.iter().all(|word| message.contains(word)), "{members}: {message}");
        assert!(!message.contains("canary"), "{message}");
    }
}

#[test]
fn retry_after_is_kept() {
    let retry_after = |answer: &str| failure(&outcome(answer)).retry_after_ms;
    assert_eq!(retry_after("429 Slow\r\nRetry-After: 7\r\n\r\n"), Some(7_000));
    assert_eq!(retry_after("503 Down\r\nRetry-After: 7\r\n\r\n"), Some(7_000));
    let rate = "{\"error\":\"invalid_grant\",\"error_description\":\"login rate exceeded\"}";
    assert_eq!(retry_after(&format!("400 Bad\r\n\r\n{rate}")), Some(60_000));
    assert_eq!(retry_after(&format!("400 Bad\r\nRetry-After: 90\r\n\r\n{rate}")), Some(90_000));
}

#[test]
fn the_request_as_configured() {
    let (endpoint, hear) = answering("200 OK\r\n\r\n{\"access_token\":\"a\"}");
    let heard = |members: &str| {
        let outcome =
            refresh(&Http::default(), &registration(&endpoint, members), &Secret::new("5A/=="), deadline(), &|| Ok(()));
        assert_eq!(outcome.name(), "done");
        hear.recv().unwrap()
    };
    let grant = "\r\n\r\ngrant_type=refresh_token&refresh_token=5A%2F%3D%3D";
    let basic = heard(r#""client_secret":"s""#);
    assert!(basic.contains("\r\nauthorization: Basic aWQ6cw==\r\n") && basic.ends_with(grant), "{basic}");
    let post = heard(r#""client_secret":"s","client_auth":"client_secret_post""#);
    assert!(
        post.ends_with(&format!("{grant}&client_id=id&client_secret=s")) && !post.contains("authorization"),
        "{post}"
    );
    let public = heard(r#""scope":"a b","refresh_parameters":{"resource":"https://r"}"#);
    assert!(public.ends_with(&format!("{grant}&client_id=id&scope=a%20b&resource=https%3A%2F%2Fr")), "{public}");
    let headers = heard(r#""client_secret":"s","parameters_in":"headers""#);
    assert!(headers.contains("\r\ngrant_type: refresh_token\r\n") && headers.contains("\r\nrefresh_token: 5A/==\r\n"));
    assert!(headers.contains("\r\ncontent-length: 0\r\n") && headers.ends_with("\r\n\r\n"), "{headers}");
}

#[test]
fn what_was_not_sent_is_told_apart() {
    let registration = registration("http://127.0.0.1:1/token", r#""scope":"a""#);
    let outcome = refresh(&Http::default(), &registration, &Secret::new("r"), deadline(), &|| Ok(()));
    assert_eq!((outcome.name(), failure(&outcome).reason, binds(failure(&outcome))), ("not_sent", "network", "host"));
}
