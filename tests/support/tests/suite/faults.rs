use crate::raw::{Raw, basic, refresh_body};
use evergrant_test_server::{Delivery, Endpoint, Fault, FaultKind, Options, Rotation, Server, SignedIn, WrongType};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn strict() -> (Server, SignedIn) {
    let server = Server::start(Options { rotation: Rotation::Strict, ..Options::generic() });
    let first = server.sign_in("client", "user@example.com", "api");
    (server, first)
}

/// Arms a fault, sends a refresh, gives back the connection before anything was received.
fn sent(server: &Server, first: &SignedIn, fault: impl Into<Fault>) -> Raw {
    server.fault(fault);
    let mut raw = Raw::connect(server);
    raw.post("/token", &basic("client", "secret"), &refresh_body(&first.refresh_token)).unwrap();
    raw
}

fn rotated(server: &Server) -> bool {
    server.families()[0].generation == 2
}

/// The last entry, once what became of its reply is known.
fn settled(server: &Server) -> evergrant_test_server::Entry {
    let start = Instant::now();
    loop {
        match server.token_requests().pop() {
            Some(entry) if entry.reply != Delivery::Pending => return entry,
            entry if start.elapsed() > Duration::from_secs(5) => panic!("{entry:?}"),
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

#[test]
fn a_dropped_reply_has_rotated() {
    let (server, first) = strict();
    let (bytes, reset) = sent(&server, &first, FaultKind::DropReply).receive_all();
    assert!(bytes.is_empty() && !reset && rotated(&server));
    let entry = settled(&server);
    assert_eq!((entry.outcome, entry.rotated, entry.reply), ("ok", true, Delivery::Dropped));
    assert_eq!((entry.fault, entry.family, entry.generation), (Some("drop_reply"), Some(0), Some(1)));
    assert_eq!(server.presentations(&first.refresh_token), 1);
    assert_eq!(server.stats().lost_answers, 1);
}

#[test]
fn resets_come_before_or_after_processing() {
    for (fault, seen, processed) in [
        (FaultKind::ResetBeforeRead, 0, false),
        (FaultKind::ResetAfterRead, 1, false),
        (FaultKind::ResetAfterProcess, 1, true),
    ] {
        let (server, first) = strict();
        let (bytes, reset) = sent(&server, &first, fault).receive_all();
        assert!(bytes.is_empty() && reset);
        assert_eq!(server.presentations(&first.refresh_token), seen);
        assert_eq!(rotated(&server), processed);
        assert_eq!(settled(&server).reply, Delivery::Reset);
    }
}

#[test]
fn connections_are_reset_on_accept() {
    let (server, first) = strict();
    server.fault(FaultKind::ResetOnAccept);
    let mut raw = Raw::connect(&server);
    // Whether writing or reading notices it is a matter of time.
    let written = raw.post("/token", "", &refresh_body(&first.refresh_token));
    assert!(written.is_err() || raw.receive_all().1);
    assert_eq!(server.stats().requests, 0);
    assert_eq!(Raw::connect(&server).refresh("/token", &first.refresh_token).status, 200);
}

#[test]
fn a_hanging_request_is_never_processed() {
    let (server, first) = strict();
    let mut raw = sent(&server, &first, FaultKind::Hang);
    raw.0.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert_eq!(raw.receive().unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(raw);
    let entry = settled(&server);
    assert_eq!((entry.outcome, entry.reply, entry.processed_ms), ("not_processed", Delivery::Dropped, None));
    assert!(!rotated(&server));
}

#[test]
fn a_ghost_is_processed_after_its_sender_has_gone() {
    let (server, first) = strict();
    let raw = sent(&server, &first, FaultKind::ProcessLate { delay_ms: 30 });
    std::thread::sleep(Duration::from_millis(60));
    assert!(!rotated(&server));
    drop(raw);
    let entry = settled(&server);
    assert!(rotated(&server));
    assert_eq!((entry.outcome, entry.reply), ("ok", Delivery::Dropped));
    assert!(entry.processed_ms.unwrap() >= entry.at_ms + 85);
}

#[test]
fn truncated_replies_end_in_the_body_or_in_the_head() {
    let (server, first) = strict();
    let (bytes, reset) = sent(&server, &first, FaultKind::Truncate { bytes: 7 }).receive_all();
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.ends_with("\r\n\r\n{\"acces") && !reset && rotated(&server), "{text}");
    assert_eq!(settled(&server).reply, Delivery::Partial);

    let (server, first) = strict();
    let (bytes, _) = sent(&server, &first, FaultKind::TruncateHead { bytes: 12 }).receive_all();
    assert_eq!(bytes, b"HTTP/1.1 200");
}

#[test]
fn slow_replies_arrive_complete_and_late() {
    let (server, first) = strict();
    let start = Instant::now();
    let fault = FaultKind::Slow { bytes_per_s: None, total_ms: Some(200) };
    let answer = sent(&server, &first, fault).receive().unwrap();
    assert!(answer.json()["refresh_token"].is_string() && start.elapsed() >= Duration::from_millis(190));
    assert_eq!(settled(&server).reply, Delivery::Written);

    let (server, first) = strict();
    let raw = sent(&server, &first, FaultKind::Slow { bytes_per_s: Some(2000), total_ms: None });
    drop(raw);
    assert_eq!(settled(&server).reply, Delivery::Failed);
    assert_eq!(server.stats().lost_answers, 1);
}

#[test]
fn oversized_answers_have_just_that_size() {
    let (server, first) = strict();
    let answer = sent(&server, &first, FaultKind::Oversized { bytes: 2_000_000 }).receive().unwrap();
    assert_eq!(answer.body.len(), 2_000_000);
    assert!(answer.json()["access_token"].is_string());
}

#[test]
fn pages_and_statuses_come_instead_of_processing() {
    for (fault, status, content_type) in [
        (FaultKind::NonJson, 200, "text/html"),
        (FaultKind::Html { status: 502 }, 502, "text/html"),
        (FaultKind::Status { code: 503, body: None, retry_after: Some("7".into()) }, 503, "text/html"),
        (
            FaultKind::Status {
                code: 429,
                body: Some("{\"error\":\"slow_down\"}".into()),
                retry_after: Some("7".into()),
            },
            429,
            "application/json",
        ),
    ] {
        let (server, first) = strict();
        let answer = sent(&server, &first, fault.clone()).receive().unwrap();
        assert_eq!((answer.status, answer.header("content-type")), (status, Some(content_type)));
        let is_status = matches!(fault, FaultKind::Status { .. });
        assert_eq!(answer.header("retry-after"), is_status.then_some("7"));
        assert!(!rotated(&server));
        let entry = settled(&server);
        assert_eq!((entry.outcome, entry.status, entry.reply), ("not_processed", Some(status), Delivery::Written));
    }
}

#[test]
fn a_gateway_hides_that_the_backend_rotated() {
    let (server, first) = strict();
    let fault = FaultKind::StatusAfter { code: 503, body: None, retry_after: None };
    assert_eq!(sent(&server, &first, fault).receive().unwrap().status, 503);
    assert!(rotated(&server));
}

#[test]
fn redirects_errors_and_busy() {
    let (server, first) = strict();
    let fault = FaultKind::Redirect { location: "http://127.0.0.1:1/token".into(), code: 307 };
    let answer = sent(&server, &first, fault).receive().unwrap();
    assert_eq!((answer.status, answer.header("location")), (307, Some("http://127.0.0.1:1/token")));
    let fault = FaultKind::Error { error: "server_error".into(), description: "x".into(), status: 500 };
    let answer = sent(&server, &first, fault).receive().unwrap();
    assert_eq!((answer.status, answer.json()["error"].as_str()), (500, Some("server_error")));
    let answer = sent(&server, &first, FaultKind::Busy).receive().unwrap();
    assert_eq!(answer.json()["error_description"], "token request is already being processed");
    assert_eq!(answer.status, 400);
    assert!(!rotated(&server));
}

#[test]
fn wrong_types_are_wrong_in_one_thing() {
    type Check = fn(&[u8]) -> bool;
    let checks: [(WrongType, Check); 13] = [
        (WrongType::AccessTokenNumber, |body| value(body)["access_token"] == 42),
        (WrongType::AccessTokenMissing, |body| value(body).get("access_token").is_none()),
        (WrongType::AccessTokenEmpty, |body| value(body)["access_token"] == ""),
        (WrongType::AccessTokenNull, |body| value(body)["access_token"].is_null()),
        (WrongType::AccessTokenLineBreak, |body| value(body)["access_token"] == "a\r\nb"),
        (WrongType::RefreshTokenNumber, |body| value(body)["refresh_token"] == 42),
        (WrongType::RefreshTokenEmpty, |body| value(body)["refresh_token"] == ""),
        (WrongType::RefreshTokenNull, |body| value(body)["refresh_token"].is_null()),
        (WrongType::TokenTypeMac, |body| value(body)["token_type"] == "mac"),
        (WrongType::TokenTypeMissing, |body| value(body).get("token_type").is_none()),
        (WrongType::Array, |body| value(body)[0]["access_token"].is_string()),
        (WrongType::Empty, <[u8]>::is_empty),
        (WrongType::NotUtf8, |body| std::str::from_utf8(body).is_err()),
    ];
    for (variant, is_so) in checks {
        let (server, first) = strict();
        let answer = sent(&server, &first, FaultKind::WrongTypes { variant }).receive().unwrap();
        assert!(answer.status == 200 && is_so(&answer.body), "{variant:?}: {answer:?}");
        assert!(rotated(&server));
    }
}

fn value(body: &[u8]) -> serde_json::Value {
    serde_json::from_slice(body).unwrap()
}

#[test]
fn labels_closes_and_omissions() {
    let (server, first) = strict();
    let answer = sent(&server, &first, FaultKind::BadContentType { content_type: "text/plain".into() }).receive();
    assert_eq!(answer.unwrap().header("content-type"), Some("text/plain"));

    let (server, first) = strict();
    let (bytes, reset) = sent(&server, &first, FaultKind::ConnectionClose).receive_all();
    assert!(String::from_utf8(bytes).unwrap().contains("\r\nConnection: close\r\n") && !reset);

    let (server, first) = strict();
    let (bytes, _) = sent(&server, &first, FaultKind::SilentClose { delay_ms: 20 }).receive_all();
    assert!(!String::from_utf8(bytes).unwrap().contains("Connection:"));
    assert_eq!(settled(&server).reply, Delivery::Written);

    let (server, first) = strict();
    let answer = sent(&server, &first, FaultKind::OmitRefreshToken).receive().unwrap();
    assert!(answer.json().get("refresh_token").is_none() && rotated(&server));
}

#[test]
fn delays_fall_before_or_after_processing() {
    let (server, first) = strict();
    let start = Instant::now();
    let mut raw = sent(&server, &first, Fault::from(FaultKind::Delay).before(150).after(150));
    assert!(!rotated(&server));
    std::thread::sleep(Duration::from_millis(225).saturating_sub(start.elapsed()));
    assert!(rotated(&server));
    assert_eq!(raw.receive().unwrap().status, 200);
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[test]
fn refused_connections_come_back() {
    let (server, first) = strict();
    let mut kept = Raw::connect(&server);
    assert_eq!(kept.get("/resource", "").status, 401);
    let start = Instant::now();
    server.refuse_connections(Duration::from_millis(200));
    let address = server.url().replace("http://", "");
    assert_eq!(TcpStream::connect(&address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(kept.get("/resource", "").status, 401);
    while TcpStream::connect(&address).is_err() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(start.elapsed() >= Duration::from_millis(195));
    assert_eq!(Raw::connect(&server).refresh("/token", &first.refresh_token).status, 200);
}

#[test]
fn a_queue_of_faults_strikes_in_order_and_only_its_endpoint() {
    let (server, first) = strict();
    server.fault(Fault::from(FaultKind::Pass).times(1));
    server.fault(Fault::from(FaultKind::Html { status: 500 }).times(2));
    server.fault(Fault::from(FaultKind::Html { status: 504 }).on(Endpoint::Introspect));
    let mut raw = Raw::connect(&server);
    let second = raw.refresh("/token", &first.refresh_token).json()["refresh_token"].as_str().unwrap().to_owned();
    assert_eq!(raw.refresh("/token", &second).status, 500);
    let introspection = raw.post_and_receive("/introspect", &basic("client", "secret"), "token=x");
    assert_eq!(introspection.status, 504);
    assert_eq!(raw.refresh("/token", &second).status, 500);
    assert_eq!(raw.refresh("/token", &second).status, 200);
    assert_eq!(server.presentations(&second), 3);
}

#[test]
fn faults_that_last_end_when_they_are_cleared() {
    let (server, first) = strict();
    server.fault(Fault::from(FaultKind::Html { status: 503 }).always());
    let mut raw = Raw::connect(&server);
    for _ in 0..3 {
        assert_eq!(raw.refresh("/token", &first.refresh_token).status, 503);
    }
    server.clear_faults();
    assert_eq!(raw.refresh("/token", &first.refresh_token).status, 200);
}

#[test]
fn open_connections_can_be_closed_or_reset() {
    for by_reset in [false, true] {
        let (server, _) = strict();
        let mut raw = Raw::connect(&server);
        assert_eq!(raw.get("/resource", "").status, 401);
        assert_eq!(server.close_connections(by_reset), 1);
        assert_eq!(raw.receive_all(), (Vec::new(), by_reset));
    }
}

#[test]
fn a_server_stops_in_the_middle_of_anything() {
    let (server, first) = strict();
    let hanging = sent(&server, &first, FaultKind::Hang);
    let delayed = sent(&server, &first, Fault::from(FaultKind::Delay).before(60_000));
    while server.stats().token_requests < 2 {
        std::thread::sleep(Duration::from_millis(2));
    }
    let start = Instant::now();
    drop(server);
    assert!(start.elapsed() < Duration::from_secs(1));
    drop((hanging, delayed));
}
