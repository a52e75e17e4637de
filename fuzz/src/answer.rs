//! Answers of a token endpoint (RFC 6749 sections 5.1 and 5.2), of a revocation endpoint (RFC 7009 section 2.2), of an
//! introspection endpoint (RFC 7662 section 2.2), and metadata (RFC 8414 section 3.2), read by the real HTTP client from a
//! real socket.
//!
//! `200\n{…}`: a status and a body, in which `ISSUER` stands for the server's. Anything else: all that comes over the
//! connection.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use evergrant::config::{Config, Registration};
use evergrant::oauth::discovery::{self, Endpoint};
use evergrant::oauth::introspect::Introspection;
use evergrant::oauth::{self, Deadline, Failure, Http, Outcome};
use evergrant::token::Age;
use evergrant::{Secret, token};

use super::{check_message, check_unchanged, has, is_token, members, string};

const REFRESH_TOKEN: &str = "canary-refresh-token-1a2b3c";
const CLIENT_SECRET: &str = "canary:client/secret+4d5e6f";
/// Both, and how they are sent.
const SENT: [&str; 3] = [REFRESH_TOKEN, CLIENT_SECRET, "canary%3Aclient%2Fsecret%2B4d5e6f"];
/// So much of a secret tells something of it.
const TELLING: usize = 10;
/// The longest `Retry-After` that is believed.
const DAY_MS: u64 = 86_400_000;

pub fn run(data: &[u8]) {
    let Some((status, body)) = status_and_body(data) else {
        check_any(&renew(data.to_vec(), true));
        revoke(data.to_vec(), true).err().iter().for_each(check_failure);
        introspect(data.to_vec(), true).err().iter().for_each(check_failure);
        discover(data.to_vec(), true).err().iter().for_each(check_failure);
        return;
    };
    // These have none (RFC 9110 section 6.4.1).
    let body = if matches!(status, 204 | 205 | 304) { &[] } else { body };
    let head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n\r\n", body.len());
    check_introspection(status, body, introspect([head.as_bytes(), body].concat(), false));
    check_metadata(status, body);
    check_revocation(status, body, revoke([head.as_bytes(), body].concat(), false));
    let outcome = renew([head.as_bytes(), body].concat(), false);
    check_any(&outcome);
    match status {
        200..=299 => check_success(body, &outcome),
        429 => assert!(matches!(outcome, Outcome::NotSent(_)), "{outcome:?}"),
        408 | 300..=399 | 500..=599 => assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}"),
        _ => assert!(!matches!(outcome, Outcome::Done(_)), "a token from HTTP {status}"),
    }
    if let Outcome::InvalidGrant(_) | Outcome::Refused(_) | Outcome::Busy(_) = outcome {
        check_refusal(body, &outcome);
    }
}

fn status_and_body(data: &[u8]) -> Option<(u16, &[u8])> {
    let (line, rest) = data.split_at_checked(4)?;
    let status = std::str::from_utf8(line).ok()?.strip_suffix('\n')?.parse().ok()?;
    (200..600).contains(&status).then_some((status, rest))
}

/// A token in a success answer is never lost: the refresh token before it is spent.
fn check_success(body: &[u8], outcome: &Outcome) {
    let given = std::str::from_utf8(body).ok().and_then(members).filter(|given| given.len() <= 2_000);
    let Some(given) = given else {
        assert!(!matches!(outcome, Outcome::Done(_)), "a token from no JSON object");
        return;
    };
    let refresh_token = string(&given, "refresh_token").filter(|token| is_token(token, false));
    let kind = string(&given, "token_type");
    let bearer = !has(&given, "token_type") || kind.is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"));
    let access_token = string(&given, "access_token").filter(|token| bearer && is_token(token, true));
    let Outcome::Done(answer) = outcome else {
        assert_eq!((refresh_token, access_token), (None, None), "a token is lost: {outcome:?}");
        return;
    };
    check_answer(answer, refresh_token, access_token);
    let kept = members(answer.members.expose()).expect("JSON");
    assert!(!kept.contains_key("refresh_token"));
    check_unchanged(&given, &kept, &["refresh_token"]);
}

fn check_answer(answer: &token::Answer, refresh_token: Option<String>, access_token: Option<String>) {
    let text = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
    assert_eq!((text(&answer.refresh_token), text(&answer.access_token)), (refresh_token, access_token));
    assert_eq!(answer.unusable.is_some(), answer.access_token.is_none());
    let whole = members(answer.whole().expect("whole").expose()).expect("JSON");
    assert_eq!(string(&whole, "refresh_token"), text(&answer.refresh_token));
}

/// Nothing but a server's word ends a session or stops a client.
fn check_refusal(body: &[u8], outcome: &Outcome) {
    let failure = outcome.failure().expect("a failure");
    if let (Outcome::Refused(_), None) = (outcome, &failure.error) {
        assert_eq!(failure.reason, "bad_answer", "{failure:?}");
        return;
    }
    let text = std::str::from_utf8(body).expect("an error in what is no text").trim();
    match text.starts_with('{') {
        true => assert!(members(text).is_some_and(|given| string(&given, "error").is_some()), "{failure:?}"),
        false => assert!(text.contains("error="), "{failure:?}"),
    }
    assert!(failure.error.as_ref().is_some_and(|error| !error.is_empty()), "{failure:?}");
}

/// A token counts as revoked only by the status, or where the server says that there is nothing to revoke.
fn check_revocation(status: u16, body: &[u8], revoked: Result<(), Failure>) {
    let text = String::from_utf8_lossy(body);
    let nothing_there = ["invalid_token", "invalid_grant", "unsupported_token_type"];
    match revoked {
        Ok(()) if (200..300).contains(&status) => {}
        Ok(()) => {
            assert!((400..500).contains(&status) && status != 429, "revoked by HTTP {status}");
            // In JSON, any letter of it may be written otherwise.
            assert!(text.contains('\\') || nothing_there.iter().any(|word| text.contains(word)), "revoked by {text:?}");
        }
        Err(failure) => {
            assert!(!(200..300).contains(&status), "not revoked by HTTP {status}: {failure:?}");
            check_failure(&failure);
        }
    }
}

/// Only a server's plain word says whether a token can be used.
fn check_introspection(status: u16, body: &[u8], told: Result<Introspection, Failure>) {
    let text = std::str::from_utf8(body).ok();
    let active = text.and_then(members).and_then(|given| serde_json::from_str::<bool>(given.get("active")?.get()).ok());
    match told {
        Ok(told) => {
            assert_eq!((status, Some(told.active)), (200, active));
            assert_eq!(Some(told.json.expose()), text.map(str::trim));
            assert!(told.life_s(1_700_000_000.0, Age::Unknown).is_none_or(|life| (0..=315_360_000).contains(&life)));
        }
        Err(failure) => check_failure(&failure),
    }
}

/// Endpoints are the server's own word, under its own name, and no secret goes there in the clear.
fn check_metadata(status: u16, body: &[u8]) {
    let Some(text) = std::str::from_utf8(body).ok() else { return };
    let issuer = issuer();
    let text = text.replace("ISSUER", &issuer);
    let head = format!("HTTP/1.1 {status} Status\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", text.len());
    match discover((head + &text).into_bytes(), true) {
        Ok(found) => {
            let given = members(&text).expect("endpoints from no JSON object");
            assert_eq!((status, string(&given, "issuer")), (200, Some(issuer)));
            assert_eq!(string(&given, "token_endpoint").map(|url| url.trim().to_owned()), Some(found.clone()));
            let safe = ["https://", "http://127.", "http://localhost", "http://[::1]"];
            assert!(safe.iter().any(|start| found.to_ascii_lowercase().starts_with(start)), "{found}");
        }
        Err(failure) => check_failure(&failure),
    }
}

/// The request was sent.
fn check_any(outcome: &Outcome) {
    let Some(failure) = outcome.failure() else { return };
    if let Outcome::NotSent(_) = outcome {
        assert_eq!(failure.http_status, Some(429), "it was sent: {failure:?}");
    }
    check_failure(failure);
}

/// What was sent is not shown.
fn check_failure(failure: &Failure) {
    check_message(&failure.message);
    assert!(failure.retry_after_ms.is_none_or(|wait_ms| wait_ms <= DAY_MS), "{failure:?}");
    let Failure { message, error, error_description, error_uri, .. } = failure;
    for shown in [error, error_description, error_uri].into_iter().flatten().chain([message]) {
        assert!(!shown.chars().any(char::is_control), "more than one line: {shown:?}");
        for secret in SENT {
            for part in secret.as_bytes().windows(TELLING) {
                let part = std::str::from_utf8(part).expect("ASCII");
                assert!(!shown.contains(part), "a part of what was sent is shown: {shown:?}");
            }
        }
    }
}

fn renew(answer: Vec<u8>, closes: bool) -> Outcome {
    exchange(answer, closes, |registration, deadline| {
        oauth::refresh(&Http::default(), registration, &Secret::new(REFRESH_TOKEN), deadline, &|| Ok(()))
    })
}

fn revoke(answer: Vec<u8>, closes: bool) -> Result<(), Failure> {
    exchange(answer, closes, |registration, deadline| {
        oauth::revoke(&Http::default(), registration, &Secret::new(REFRESH_TOKEN), "refresh_token", deadline)
    })
}

fn introspect(answer: Vec<u8>, closes: bool) -> Result<Introspection, Failure> {
    exchange(answer, closes, |registration, deadline| {
        oauth::introspect(&Http::default(), registration, &Secret::new(REFRESH_TOKEN), deadline)
    })
}

/// The token endpoint that is discovered.
fn discover(answer: Vec<u8>, closes: bool) -> Result<String, Failure> {
    exchange(answer, closes, |registration, deadline| {
        let mut registration = registration.clone();
        registration.issuer = Some(issuer());
        registration.token_endpoint = String::new();
        let resolved = discovery::resolve(&Http::default(), &registration, &[Endpoint::Token], deadline)?;
        Ok(resolved.token_endpoint.clone())
    })
}

/// The server's own name.
fn issuer() -> String {
    let registration = &server().registration;
    registration.token_endpoint.trim_end_matches("/token").to_owned()
}

/// One exchange, at the end of which the server has said `answer` (and nothing more, if it `closes`).
fn exchange<T>(answer: Vec<u8>, closes: bool, send: impl FnOnce(&Registration, Deadline) -> T) -> T {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let server = server();
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    *lock(server.answer) = (answer, closes);
    let first_byte = Instant::now() + Duration::from_secs(30);
    let deadline = Deadline { first_byte, answer: first_byte + Duration::from_secs(30) };
    send(&server.registration, deadline)
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

struct Server {
    registration: Registration,
    answer: &'static Mutex<(Vec<u8>, bool)>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let config = format!(
            r#"{{"token_endpoint": "http://{address}/token", "revocation_endpoint": "http://{address}/revoke",
                "introspection_endpoint": "http://{address}/introspect",
                "client_id": "client", "client_secret": "{CLIENT_SECRET}", "client_auth": "client_secret_post",
                "store": "memory:"}}"#
        );
        let registration = Config::from_json(&config).expect("a good configuration").registration;
        let answer: &'static Mutex<(Vec<u8>, bool)> = Box::leak(Box::default());
        std::thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                let _ = serve(&mut connection, answer);
            }
        });
        Self { registration, answer }
    }
}

fn serve(connection: &mut TcpStream, answer: &Mutex<(Vec<u8>, bool)>) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !is_whole(&request) {
        match connection.read(&mut buffer)? {
            0 => return Ok(()),
            length => request.extend_from_slice(&buffer[..length]),
        }
    }
    let (answer, closes) = lock(answer).clone();
    connection.write_all(&answer)?;
    if closes {
        connection.shutdown(Shutdown::Write)?;
    }
    // Until the client has closed: what it has not read would be lost by a reset.
    while connection.read(&mut buffer)? > 0 {}
    Ok(())
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
