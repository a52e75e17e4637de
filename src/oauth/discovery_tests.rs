use evergrant_test_server::{Endpoint as At, Fault, FaultKind, Options, Server};
use serde_json::{Value, json};

use super::super::refresh::tests::deadline;
use super::*;
use crate::config::Config;

const ALL: [Endpoint; 4] = [Endpoint::Token, Endpoint::Authorization, Endpoint::Introspection, Endpoint::Revocation];

fn registration(issuer: &str, members: &str) -> Registration {
    let json = format!(r#"{{"issuer":"{issuer}","client_id":"id","store":"memory:"{members}}}"#);
    Config::from_json(&json).unwrap().registration
}

fn server() -> Server {
    Server::start(Options::generic())
}

fn asked(server: &Server) -> Vec<String> {
    server.log().into_iter().filter(|entry| entry.endpoint == At::Discovery).map(|entry| entry.target).collect()
}

fn fails(server: &Server, kind: FaultKind) {
    server.fault(Fault::from(kind).on(At::Discovery));
}

fn says(status: u16, body: impl ToString) -> FaultKind {
    FaultKind::Status { code: status, body: Some(body.to_string()), retry_after: None }
}

/// What the server says of itself, with these members instead.
fn metadata(server: &Server, more: Value) -> Value {
    let at = |name: &str| format!("{}/{name}", server.url());
    let mut json = json!({"issuer": server.url(), "token_endpoint": at("token"), "revocation_endpoint": at("revoke")});
    for (name, value) in more.as_object().unwrap() {
        json[name] = value.clone();
    }
    json
}

fn resolved(http: &Http, registration: &Registration) -> Result<Registration, Failure> {
    resolve(http, registration, &ALL, deadline()).map(Cow::into_owned)
}

/// Lets what is kept of all servers end now.
fn age(http: &Http) {
    for entry in lock(&http.servers.0).values() {
        lock(entry).as_mut().unwrap().until = Instant::now();
    }
}

#[test]
fn the_places_of_the_standards() {
    for (issuer, oauth, openid) in [
        // RFC 8414 §3, OpenID Connect Discovery §4.
        (
            "https://example.com",
            "https://example.com/.well-known/oauth-authorization-server",
            "https://example.com/.well-known/openid-configuration",
        ),
        (
            "https://example.com/issuer1",
            "https://example.com/.well-known/oauth-authorization-server/issuer1",
            "https://example.com/issuer1/.well-known/openid-configuration",
        ),
        (
            "https://example.com:8443/a/b/",
            "https://example.com:8443/.well-known/oauth-authorization-server/a/b",
            "https://example.com:8443/a/b/.well-known/openid-configuration",
        ),
        (
            "http://[::1]:9/",
            "http://[::1]:9/.well-known/oauth-authorization-server",
            "http://[::1]:9/.well-known/openid-configuration",
        ),
    ] {
        assert_eq!(places(issuer).map(|(_, url)| url), [oauth, openid]);
    }
}

#[test]
fn endpoints_are_discovered_once_and_what_is_configured_wins() {
    let server = server();
    let http = Http::default();
    for prefix in ["", "/tenant", "/a/b"] {
        let issuer = server.url() + prefix;
        let found = resolved(&http, &registration(&issuer, "")).unwrap();
        let at = |name: &str| format!("{issuer}/{name}");
        assert_eq!(found.token_endpoint, at("token"));
        assert_eq!(found.authorization_endpoint, Some(at("authorize")));
        assert_eq!(found.introspection_endpoint, Some(at("introspect")));
        assert_eq!(found.revocation_endpoint, Some(at("revoke")));
        assert!(found.iss_in_answers);
        assert_eq!(asked(&server), [format!("GET /.well-known/oauth-authorization-server{prefix}")], "{prefix}");
        server.reset();
    }
    let issuer = server.url();
    let own =
        registration(&issuer, r#","token_endpoint":"https://t.example/t","revocation_endpoint":"https://t.example/r""#);
    let found = resolved(&http, &own).unwrap();
    assert_eq!(found.token_endpoint, "https://t.example/t");
    assert_eq!(found.revocation_endpoint.as_deref(), Some("https://t.example/r"));
    assert_eq!(found.introspection_endpoint, Some(issuer.clone() + "/introspect"));
    assert_eq!(found.fingerprint, own.fingerprint);
    // What is needed is known: nobody is asked, and no failure can harm.
    let elsewhere = registration("https://nowhere.invalid", r#","token_endpoint":"https://t.example/t""#);
    assert!(matches!(resolve(&http, &elsewhere, &[Endpoint::Token], deadline()), Ok(Cow::Borrowed(_))));
    assert_eq!(asked(&server), [] as [String; 0]);
}

#[test]
fn the_second_place_counts_where_the_first_is_of_no_use() {
    let server = server();
    for kind in [
        says(404, "no"),
        says(500, "no"),
        says(200, "<html>"),
        says(200, "{}"),
        says(200, metadata(&server, json!({"issuer": "https://other.example"}))),
        FaultKind::Redirect { location: "https://other.example/".into(), code: 302 },
        FaultKind::Oversized { bytes: (1 << 20) + 1 },
    ] {
        let what = format!("{kind:?}");
        fails(&server, kind);
        let found =
            resolved(&Http::default(), &registration(&server.url(), "")).unwrap_or_else(|f| panic!("{what}: {f:?}"));
        assert_eq!(found.token_endpoint, server.url() + "/token", "{what}");
        let places = ["GET /.well-known/oauth-authorization-server", "GET /.well-known/openid-configuration"];
        assert_eq!(asked(&server), places, "{what}");
        server.reset();
    }
}

#[test]
fn bad_metadata_of_every_kind() {
    let server = server();
    let with = |more: Value| says(200, metadata(&server, more));
    let port = server.url().rsplit_once(':').unwrap().1.to_owned();
    for (kind, reason, word) in [
        (with(json!({"issuer": server.url() + "/"})), "bad_answer", "of the issuer \"http://127.0.0.1"),
        (with(json!({"issuer": format!("http://LOCALHOST:{port}")})), "bad_answer", "of the issuer \"http://LOCALHOST"),
        (with(json!({"issuer": "evil\n\u{202e}"})), "bad_answer", "of the issuer \"evil\""),
        (with(json!({"issuer": null})), "bad_answer", "no issuer"),
        (with(json!({"issuer": [server.url()]})), "bad_answer", "no issuer"),
        (with(json!({"token_endpoint": null})), "bad_answer", "no token_endpoint"),
        (with(json!({"token_endpoint": 7})), "bad_answer", "token_endpoint is not a string"),
        (with(json!({"token_endpoint": ""})), "bad_answer", "token_endpoint is of no use"),
        (with(json!({"token_endpoint": "/token"})), "bad_answer", "complete URL"),
        (with(json!({"token_endpoint": "http://as.example/t"})), "bad_answer", "clear"),
        (with(json!({"authorization_endpoint": "http://as.example/a"})), "bad_answer", "authorization_endpoint"),
        (with(json!({"introspection_endpoint": "ftp://as.example/a"})), "bad_answer", "introspection_endpoint"),
        (with(json!({"revocation_endpoint": "https://u:p@as.example/a"})), "bad_answer", "user information"),
        (says(200, ""), "bad_answer", "not valid JSON"),
        (says(200, "[]"), "bad_answer", "not a JSON object"),
        (says(200, "<html>"), "bad_answer", "not valid JSON"),
        (says(204, ""), "bad_answer", "HTTP 204"),
        (says(401, ""), "bad_answer", "HTTP 401"),
        (says(404, "{}"), "bad_answer", "HTTP 404"),
        (says(500, "{}"), "server_unavailable", "HTTP 500"),
        (FaultKind::Redirect { location: "https://x.example/".into(), code: 301 }, "bad_answer", "not followed"),
        (FaultKind::Oversized { bytes: (1 << 20) + 1 }, "bad_answer", "1 MiB"),
        (FaultKind::DropReply, "network", "no answer in time"),
        (FaultKind::ResetAfterRead, "network", "no answer in time"),
        (FaultKind::Truncate { bytes: 20 }, "network", "no answer in time"),
    ] {
        let what = format!("{kind:?}");
        let http = Http::default();
        server.fault(Fault::from(kind).always().on(At::Discovery));
        let failure = resolved(&http, &registration(&server.url(), "")).expect_err(&what);
        assert_eq!(failure.reason, reason, "{what}: {failure:?}");
        assert!(
            failure.message.contains(word) && failure.message.contains(&server.url()),
            "{what}: {}",
            failure.message
        );
        assert!(!failure.message.chars().any(|c| c.is_control() || c == '\u{202e}'), "{failure:?}");
        let binds = match reason {
            "network" => matches!(failure.binds, Binds::Host(_)),
            "server_unavailable" => failure.binds == Binds::All,
            _ => matches!(failure.binds, Binds::Configuration(_)),
        };
        assert!(binds, "{failure:?}");
        // Nothing of it is kept.
        server.clear_faults();
        resolved(&http, &registration(&server.url(), "")).unwrap_or_else(|failure| panic!("{what}: then {failure:?}"));
        server.reset();
    }
}

#[test]
fn what_is_kept_for_one_client_may_be_of_no_use_to_another() {
    let server = server();
    let http = Http::default();
    let own = registration(&server.url(), r#","token_endpoint":"https://t.example/t""#);
    fails(&server, says(200, metadata(&server, json!({"token_endpoint": null}))));
    assert_eq!(resolved(&http, &own).unwrap().revocation_endpoint, Some(server.url() + "/revoke"));
    let failure = resolved(&http, &registration(&server.url(), "")).unwrap_err();
    assert!(failure.message.contains("no token_endpoint"), "{}", failure.message);
}

#[test]
fn nobody_is_waited_for_too_long() {
    let server = server();
    for kind in [FaultKind::Hang, FaultKind::Slow { bytes_per_s: None, total_ms: Some(60_000) }] {
        fails(&server, kind);
        let began = Instant::now();
        let first_byte = began + Duration::from_secs(2);
        let deadline = Deadline { first_byte, answer: first_byte + Duration::from_secs(60) };
        let registration = registration(&server.url(), "");
        let failure = resolve(&Http::default(), &registration, &[Endpoint::Token], deadline).unwrap_err();
        assert_eq!(failure.reason, "network", "{failure:?}");
        assert!(failure.message.contains("no token was sent"), "{}", failure.message);
        // Half of the time in which the exchange must begin is left for it.
        assert!(Instant::now() < first_byte, "{:?}", began.elapsed());
        server.reset();
    }
    let nobody = registration("http://127.0.0.1:1", "");
    let failure = resolved(&Http::default(), &nobody).unwrap_err();
    assert_eq!((failure.reason, &failure.binds), ("network", &Binds::Host(crate::host::name())), "{failure:?}");
    assert!(failure.message.contains("127.0.0.1:1 cannot be reached"), "{}", failure.message);
}

#[test]
fn a_secure_issuer_has_secure_endpoints() {
    let registration = registration("https://as.example", "");
    let read = |token_endpoint: &str| {
        let json = json!({"issuer": "https://as.example", "token_endpoint": token_endpoint});
        let body = crate::secret::SecretBytes::new(json.to_string().into_bytes());
        let response = Response { status: 200, retry_after_ms: None, max_age_s: None, redirects_to: None, body };
        super::read(&registration, "https://as.example", &response).map(|metadata| metadata.endpoints.token)
    };
    assert_eq!(read("HTTPS://as.example/t").as_deref(), Ok("HTTPS://as.example/t"));
    assert_eq!(read("http://127.0.0.1:8080/t").unwrap_err(), "its token_endpoint is not https");
}

#[test]
fn older_metadata_counts_while_the_server_does_not_answer() {
    let server = server();
    let http = Http::default();
    let registration = registration(&server.url(), "");
    resolved(&http, &registration).unwrap();
    age(&http);
    server.fault(Fault::from(says(503, "down")).always().on(At::Discovery));
    for _ in 0..3 {
        assert_eq!(resolved(&http, &registration).unwrap().token_endpoint, server.url() + "/token");
    }
    assert_eq!(asked(&server).len(), 3, "it is asked again only after a while");
    server.clear_faults();
    age(&http);
    let moved = json!({"token_endpoint": "http://127.0.0.1:2/elsewhere"});
    fails(&server, says(200, metadata(&server, moved)));
    assert_eq!(resolved(&http, &registration).unwrap().token_endpoint, "http://127.0.0.1:2/elsewhere");
    assert_eq!(resolved(&http, &registration).unwrap().token_endpoint, "http://127.0.0.1:2/elsewhere");
    assert_eq!(asked(&server).len(), 4);
}

#[test]
fn one_asks_for_all() {
    let server = server();
    let http = Http::default();
    let registration = registration(&server.url(), "");
    server.fault(Fault::from(FaultKind::Delay).before(300).always().on(At::Discovery));
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..16).map(|_| scope.spawn(|| resolved(&http, &registration))).collect();
        all.into_iter().for_each(|one| drop(one.join().unwrap().unwrap()));
    });
    assert_eq!(asked(&server).len(), 1);
}

#[test]
fn a_server_that_takes_secrets_in_the_body_only_gets_them_there() {
    let server = server();
    for (methods, given, post) in [
        (json!(["client_secret_post", "none"]), "", true),
        (json!(["client_secret_post"]), r#","client_auth":"client_secret_basic""#, false),
        (json!(["client_secret_basic", "client_secret_post"]), "", false),
        (json!(["private_key_jwt"]), "", false),
        (json!([]), "", false),
        (json!(null), "", false),
        (json!("client_secret_post"), "", false),
    ] {
        fails(&server, says(200, metadata(&server, json!({"token_endpoint_auth_methods_supported": methods}))));
        let registration = registration(&server.url(), &format!(r#","client_secret":"s"{given}"#));
        let found = resolved(&Http::default(), &registration).unwrap();
        assert_eq!(matches!(found.client_auth, ClientAuth::Post { .. }), post, "{methods}");
        assert!(!found.iss_in_answers);
    }
}

#[test]
fn how_long_metadata_counts() {
    let life = |cache_control: &str| {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let body = format!(r#"{{"issuer":"{issuer}","token_endpoint":"{issuer}/t"}}"#);
        let answer = format!("HTTP/1.1 200 OK\r\n{cache_control}Content-Length: {}\r\n\r\n{body}", body.len());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let (http, registration) = (Http::default(), registration(&issuer, ""));
        resolved(&http, &registration).unwrap();
        let servers = lock(&http.servers.0);
        let left = lock(&servers[&issuer]).as_ref().unwrap().until - Instant::now();
        left.as_secs().div_ceil(60)
    };
    for (header, minutes) in [
        ("", 60),
        ("Cache-Control: no-store\r\n", 60),
        ("Cache-Control: public, MAX-AGE=7200\r\n", 120),
        ("Cache-Control: max-age=\"600\", public\r\n", 10),
        ("Cache-Control: max-age=0\r\n", 5),
        ("Cache-Control: s-maxage=600\r\n", 60),
        ("Cache-Control: max-age=soon\r\n", 60),
        ("Cache-Control: max-age=99999999\r\n", 1440),
    ] {
        assert_eq!(life(header), minutes, "{header}");
    }
}
