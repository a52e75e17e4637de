use super::super::refresh::tests::{answering, deadline, registration};
use super::*;

fn answered(answer: &str) -> Result<Introspection, Failure> {
    let (endpoint, _) = answering(answer);
    let members = format!(r#""client_secret":"canary-secret","introspection_endpoint":"{endpoint}""#);
    introspect(&Http::default(), &registration(&endpoint, &members), &Secret::new("canary-token"), deadline())
}

#[test]
fn the_request_has_token_hint_and_client() {
    let (endpoint, hear) = answering("200 OK\r\n\r\n{\"active\":false}");
    let members = format!(r#""introspection_endpoint":"{endpoint}","client_secret":"s""#);
    let registration = registration("https://as.example/t", &members);
    introspect(&Http::default(), &registration, &Secret::new("t/k"), deadline()).unwrap();
    let request = hear.recv().unwrap();
    assert!(request.contains("\r\nauthorization: Basic aWQ6cw==\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\ntoken=t%2Fk&token_type_hint=access_token"), "{request}");
}

#[test]
fn the_answer_comes_as_it_is() {
    let json = r#"{"active":true,"exp":1700000600,"iat":1700000000,"n":1e400,"username":"ä"}"#;
    let told = answered(&format!("200 OK\r\n\r\n {json}\n")).unwrap();
    assert_eq!((told.json.expose(), told.active), (json, true));
    assert_eq!(told.life_s(1_700_000_000.0, Age::New), Some(600));
    assert_eq!(told.life_s(1_700_000_100.0, Age::Unknown), Some(500));
    for (json, life) in [
        (r#"{"active":false,"exp":1700000600}"#, None),
        (r#"{"active":true}"#, None),
        (r#"{"active":true,"exp":null,"iat":1700000000}"#, None),
        (r#"{"active":true,"exp":"1700000600"}"#, None),
        (r#"{"active":true,"exp":1700000600.5}"#, Some(600)),
        // This machine's clock is a day ahead.
        (r#"{"active":true,"exp":1699914200,"iat":1699913600}"#, Some(600)),
        (r#"{"active":true,"exp":1e300}"#, None),
    ] {
        let told = answered(&format!("200 OK\r\n\r\n{json}")).unwrap();
        assert_eq!(told.life_s(1_700_000_000.0, Age::New), life, "{json}");
    }
}

#[test]
fn other_answers_are_failures_that_say_why() {
    let deep = format!("200 OK\r\n\r\n{{\"active\":{}", "[".repeat(100_000));
    for (answer, reason) in [
        ("200 OK\r\n\r\n", "bad_answer"),
        ("200 OK\r\n\r\n[true]", "bad_answer"),
        ("200 OK\r\n\r\n{}", "bad_answer"),
        ("200 OK\r\n\r\n{\"active\":\"true\"}", "bad_answer"),
        ("200 OK\r\n\r\n{\"active\":true,\"active\":true", "bad_answer"),
        ("200 OK\r\n\r\n{\"active\":1,\"canary-token\":\"canary-secret\"}", "bad_answer"),
        ("200 OK\r\n\r\n\u{7b}\"active\":true,\"x\":\"\u{1}\"}", "bad_answer"),
        (&deep, "bad_answer"),
        ("204 No Content\r\n\r\n", "bad_answer"),
        ("200 OK\r\n\r\n{\"error\":\"invalid_client\"}", "client_refused"),
        ("401 No\r\n\r\n{\"error\":\"invalid_client\",\"error_description\":\"canary-secret\"}", "client_refused"),
        ("403 No\r\n\r\n{\"error\":\"access_denied\",\"error_description\":\"canary-token\"}", "client_refused"),
        ("401 No\r\n\r\n", "bad_answer"),
        ("404 Gone\r\n\r\n<html>", "bad_answer"),
        ("302 Found\r\nLocation: https://x.example/\r\n\r\n", "bad_answer"),
        ("429 Slow\r\nRetry-After: 3\r\n\r\n", "server_unavailable"),
        ("503 Down\r\nRetry-After: 3\r\n\r\n{\"active\":true}", "server_unavailable"),
        ("400 Bad\r\n\r\n{\"error\":\"temporarily_unavailable\"}", "server_unavailable"),
    ] {
        let failure = answered(answer).expect_err(answer);
        assert_eq!(failure.reason, reason, "{answer:.200}: {failure:?}");
        assert_eq!(failure.retry_after_ms, answer.contains("Retry").then_some(3_000), "{answer:.200}");
        assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
    }
}

#[test]
fn a_server_without_introspection_is_told_apart() {
    let registration = registration("https://as.example/t", r#""scope":"a""#);
    let failure = introspect(&Http::default(), &registration, &Secret::new("t"), deadline()).unwrap_err();
    assert_eq!(failure.reason, NO_INTROSPECTION_ENDPOINT);
    assert!(failure.message.contains("introspection_endpoint"));
}
