use super::super::refresh::tests::{answering, deadline, registration};
use super::*;

fn answered(answer: &str) -> Result<(), Failure> {
    let (endpoint, _) = answering(answer);
    let members = format!(r#""client_secret":"canary-secret","revocation_endpoint":"{endpoint}""#);
    revoke(
        &Http::default(),
        &registration(&endpoint, &members),
        &Secret::new("canary-token"),
        "refresh_token",
        deadline(),
    )
}

#[test]
fn the_request_has_token_hint_and_client() {
    let (endpoint, hear) = answering("200 OK\r\n\r\n");
    let revoke = |members: &str, hint| {
        let registration =
            registration("https://as.example/t", &format!(r#""revocation_endpoint":"{endpoint}",{members}"#));
        revoke(&Http::default(), &registration, &Secret::new("t/k"), hint, deadline()).unwrap();
        hear.recv().unwrap()
    };
    let basic = revoke(r#""client_secret":"s""#, "refresh_token");
    assert!(basic.contains("\r\nauthorization: Basic aWQ6cw==\r\n"), "{basic}");
    assert!(basic.ends_with("\r\n\r\ntoken=t%2Fk&token_type_hint=refresh_token"), "{basic}");
    let public = revoke(r#""scope":"not sent""#, "");
    assert!(public.ends_with("\r\n\r\ntoken=t%2Fk&client_id=id") && !public.contains("authorization"), "{public}");
}

#[test]
fn dead_tokens_count_as_revoked() {
    for answer in [
        "200 OK\r\n\r\n",
        "200 OK\r\n\r\n<html>",
        "204 No Content\r\n\r\n",
        "400 Bad\r\n\r\n{\"error\":\"invalid_token\"}",
        "400 Bad\r\n\r\nerror=invalid_token&error_description=invalid%20token",
        "400 Bad\r\n\r\n{\"error\":\"unsupported_token_type\"}",
    ] {
        answered(answer).unwrap_or_else(|failure| panic!("{answer}: {}", failure.message));
    }
}

#[test]
fn other_answers_do_not() {
    for (answer, reason) in [
        ("401 No\r\n\r\n{\"error\":\"invalid_client\",\"error_description\":\"canary-secret\"}", "client_refused"),
        ("429 Slow\r\nRetry-After: 3\r\n\r\n", "server_unavailable"),
        ("503 Down\r\nRetry-After: 3\r\n\r\n{\"error\":\"invalid_token\"}", "server_unavailable"),
        ("400 Bad\r\n\r\n{\"error\":\"temporarily_unavailable\"}", "server_unavailable"),
        ("400 Bad\r\n\r\nerror=invalid_grant&error_description=login+rate+exceeded", "server_unavailable"),
        ("400 Bad\r\n\r\nerror=invalid_grant&error_description=inactive+user", "inactive_user"),
        ("404 Gone\r\n\r\n<html>", "bad_answer"),
        ("302 Found\r\nLocation: https://x.example/\r\n\r\n", "bad_answer"),
    ] {
        let failure = answered(answer).unwrap_err();
        assert_eq!(failure.reason, reason, "{answer}");
        assert_eq!(failure.retry_after_ms, answer.contains("Retry").then_some(3_000), "{answer}");
        assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
    }
}

#[test]
fn a_server_without_revocation_is_told_apart() {
    let registration = registration("https://as.example/t", r#""scope":"a""#);
    let failure = revoke(&Http::default(), &registration, &Secret::new("t"), "", deadline()).unwrap_err();
    assert_eq!(failure.reason, NO_REVOCATION_ENDPOINT);
    assert!(failure.message.contains("revocation_endpoint"));
}
