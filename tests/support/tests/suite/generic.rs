use crate::raw::{Raw, basic, bearer, encoded, refresh_body};
use evergrant_test_server::{AuthMethod, Client, GraceKind, Options, Reuse, Rotation, Server};
use serde_json::{Value, json};
use std::time::Duration;

fn with(rotation: Rotation) -> (Server, Raw, String) {
    let server = Server::start(Options { rotation, ..Options::generic() });
    let first = server.sign_in("client", "user@example.com", "api id").refresh_token;
    let raw = Raw::connect(&server);
    (server, raw, first)
}

fn refreshed(raw: &mut Raw, token: &str) -> String {
    let answer = raw.refresh("/token", token);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["refresh_token"].as_str().unwrap().to_owned()
}

fn refused(raw: &mut Raw, token: &str) -> Value {
    let answer = raw.refresh("/token", token);
    assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some("invalid_grant")));
    answer.json()["error_description"].clone()
}

#[test]
fn without_rotation_the_answer_has_no_refresh_token() {
    let (server, mut raw, first) = with(Rotation::None);
    for _ in 0..3 {
        let answer = raw.refresh("/token", &first).json();
        assert!(answer.get("refresh_token").is_none());
        assert_eq!((answer["token_type"].as_str(), answer["expires_in"].as_u64()), (Some("Bearer"), Some(7200)));
        assert!(server.is_live(answer["access_token"].as_str().unwrap()));
    }
    assert_eq!(server.presentations(&first), 3);
}

#[test]
fn strict_reuse_ends_the_family_with_its_access_tokens() {
    let (server, mut raw, first) = with(Rotation::Strict);
    let second = refreshed(&mut raw, &first);
    let access = server.token_requests()[0].issued_access_token.clone().unwrap();
    assert_eq!(raw.get("/resource/1", &bearer(&access)).status, 200);
    refused(&mut raw, &first);
    refused(&mut raw, &second);
    assert_eq!(raw.get("/resource/1", &bearer(&access)).status, 401);
    let outcomes: Vec<&str> = server.token_requests().iter().map(|entry| entry.outcome).collect();
    assert_eq!(outcomes, ["ok", "reused_and_revoked", "family_revoked"]);
    let family = &server.families()[0];
    assert_eq!((family.reuses, family.revoked.as_ref().unwrap().why), (1, "reuse"));
    assert_eq!((server.stats().reuses, server.stats().rotations), (1, 1));
}

#[test]
fn strict_reuse_may_only_be_refused() {
    let (server, mut raw, first) = with(Rotation::StrictRefuses);
    let second = refreshed(&mut raw, &first);
    refused(&mut raw, &first);
    refreshed(&mut raw, &second);
    assert!(server.families()[0].revoked.is_none());
}

#[test]
fn grace_windows_of_each_kind() {
    let grace = |kind| Rotation::Grace { window_ms: 300, kind, reuse: Reuse::Refuse };
    let past_the_window = || std::thread::sleep(Duration::from_millis(310));

    let (server, mut raw, first) = with(grace(GraceKind::SamePair));
    let (one, two) = (raw.refresh("/token", &first).json(), raw.refresh("/token", &first).json());
    assert_eq!((&one["access_token"], &one["refresh_token"]), (&two["access_token"], &two["refresh_token"]));
    assert!(server.token_requests()[1].replayed && server.stats().grace_replays == 1);
    past_the_window();
    refused(&mut raw, &first);

    let (_server, mut raw, first) = with(grace(GraceKind::SiblingsAll));
    let (one, two) = (refreshed(&mut raw, &first), refreshed(&mut raw, &first));
    refreshed(&mut raw, &two);
    refreshed(&mut raw, &one);
    past_the_window();
    refused(&mut raw, &first);

    let (_server, mut raw, first) = with(grace(GraceKind::NewestWins));
    let (one, two) = (refreshed(&mut raw, &first), refreshed(&mut raw, &first));
    assert_eq!(refused(&mut raw, &one), "the refresh token was superseded");
    let three = refreshed(&mut raw, &two);
    past_the_window();
    refused(&mut raw, &first);
    refreshed(&mut raw, &three);
}

#[test]
fn clients_prove_themselves_in_the_ways_they_registered() {
    let odd = "s%41:e+c r/t";
    let server = Server::start(Options {
        clients: vec![
            Client::confidential("raw", odd).accepting(&[AuthMethod::BasicRaw]),
            Client::confidential("form", odd).accepting(&[AuthMethod::BasicForm]),
            Client::confidential("post", odd).accepting(&[AuthMethod::Post]),
            Client::public("none"),
        ],
        ..Options::generic()
    });
    let mut raw = Raw::connect(&server);
    let form_encoded = "s%2541%3Ae%2Bc%20r%2Ft";
    let mut status = |id: &str, headers: String, extra: &str| {
        let token = server.sign_in(id, "user", "api").refresh_token;
        let answer = raw.post_and_receive("/token", &headers, &(refresh_body(&token) + extra));
        if answer.status == 401 {
            assert_eq!(answer.json()["error"], "invalid_client");
            assert!(answer.header("www-authenticate").unwrap().starts_with("Basic "));
        }
        answer.status
    };
    assert_eq!(status("raw", basic("raw", odd), ""), 200);
    assert_eq!(status("raw", basic("raw", form_encoded), ""), 401);
    assert_eq!(status("form", basic("form", form_encoded), ""), 200);
    assert_eq!(status("form", basic("form", odd), ""), 401);
    let post = format!("&client_id=post&client_secret={form_encoded}");
    assert_eq!(status("post", String::new(), &post), 200);
    assert_eq!(status("post", basic("post", odd), &post), 400);
    assert_eq!(status("post", basic("post", odd), ""), 401);
    assert_eq!(status("none", String::new(), "&client_id=none"), 200);
    assert_eq!(status("none", String::new(), "&client_id=none&client_secret=any"), 401);
    assert_eq!(status("raw", String::new(), "&client_id=raw"), 401);
    let methods: Vec<_> = server.token_requests().into_iter().filter_map(|entry| entry.auth).collect();
    assert_eq!(methods, [AuthMethod::BasicRaw, AuthMethod::BasicForm, AuthMethod::Post, AuthMethod::None]);
}

#[test]
fn lives_are_kept_to_the_millisecond() {
    let options = Options { access_token_life_ms: 150, expires_in: Some(json!("3600")), ..Options::generic() };
    let server = Server::start(options);
    let first = server.sign_in("client", "user", "api");
    assert_eq!(serde_json::from_str::<Value>(&first.json).unwrap()["expires_in"], "3600");
    let mut raw = Raw::connect(&server);
    assert_eq!(raw.get("/resource", &bearer(&first.access_token)).status, 200);
    std::thread::sleep(Duration::from_millis(160));
    let answer = raw.get("/resource", &bearer(&first.access_token));
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer error=\"invalid_token\"")));
}

#[test]
fn introspection_and_revocation_as_the_rfcs_have_them() {
    let (server, mut raw, first) = with(Rotation::Strict);
    let access = server.families()[0].access_tokens[0].token.clone();
    let about = |token: &str| format!("token={}", encoded(token));
    let introspect = |raw: &mut Raw, id: &str, token: &str| {
        raw.post_and_receive("/introspect", &basic(id, "secret"), &about(token)).json()
    };
    let answer = introspect(&mut raw, "client", &access);
    assert_eq!((answer["active"].as_bool(), answer["client_id"].as_str()), (Some(true), Some("client")));
    assert_eq!(answer["exp"].as_u64().unwrap() - answer["iat"].as_u64().unwrap(), 7200);
    assert_eq!(introspect(&mut raw, "client", "unknown"), json!({"active": false}));
    server.add_client(Client::confidential("other", "secret"));
    assert_eq!(introspect(&mut raw, "other", &access), json!({"active": false}));

    let mut revoke =
        |id: &str, secret: &str, token: &str| raw.post_and_receive("/revoke", &basic(id, secret), &about(token)).status;
    assert_eq!(revoke("client", "wrong", &first), 401);
    assert_eq!((revoke("other", "secret", &first), server.is_live(&first)), (200, true));
    assert_eq!(revoke("client", "secret", "unknown"), 200);
    assert_eq!((revoke("client", "secret", &first), server.is_live(&first)), (200, false));
    assert!(!server.is_live(&access));
}

#[test]
fn discovery_names_what_the_server_has() {
    let server = Server::start(Options::generic());
    let mut raw = Raw::connect(&server);
    for path in ["/one/.well-known/openid-configuration", "/.well-known/oauth-authorization-server/one"] {
        let answer = raw.get(path, "").json();
        assert_eq!(answer["issuer"], format!("{}/one", server.url()));
        assert_eq!(answer["token_endpoint"], format!("{}/one/token", server.url()));
    }
}

#[test]
fn the_code_flow_with_pkce() {
    let server = Server::start(Options::generic());
    let mut raw = Raw::connect(&server);
    let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let authorize = format!(
        "/authorize?response_type=code&client_id=public&redirect_uri=http%3A%2F%2F127.0.0.1%2Fcb&scope=api\
         &state=s%26t&code_challenge={challenge}&code_challenge_method=S256"
    );
    let mut code = || {
        let answer = raw.get(&authorize, "");
        let location = answer.header("location").unwrap().to_owned();
        assert!(answer.status == 302 && location.ends_with("&state=s%26t") && location.contains("&iss="), "{location}");
        location.split("code=").nth(1).unwrap().split('&').next().unwrap().to_owned()
    };
    let (right, wrong) = (code(), code());
    let mut exchange = |code: &str, verifier: &str| {
        let body = format!(
            "grant_type=authorization_code&client_id=public&redirect_uri=http%3A%2F%2F127.0.0.1%2Fcb&code={code}\
             &code_verifier={verifier}"
        );
        raw.post_and_receive("/token", "", &body)
    };
    assert_eq!(exchange(&wrong, "wrong").status, 400);
    let answer = exchange(&right, verifier);
    assert_eq!(answer.status, 200);
    let refresh_token = answer.json()["refresh_token"].as_str().unwrap().to_owned();
    assert!(server.is_live(&refresh_token));
    assert_eq!(exchange(&right, verifier).status, 400);
    assert!(!server.is_live(&refresh_token), "a code that is used twice ends what it began");
}

#[test]
fn bodies_come_in_chunks_and_after_expectations() {
    let (server, mut raw, first) = with(Rotation::None);
    let body = refresh_body(&first);
    let (one, two) = body.split_at(10);
    let chunks = format!("{:x}\r\n{one}\r\n{:X};ext=1\r\n{two}\r\n0\r\nTrailer: x\r\n\r\n", one.len(), two.len());
    let headers = format!(
        "{}Host: test\r\nContent-Type: application/x-www-form-urlencoded; charset=UTF-8\r\nExpect: 100-continue\r\n",
        basic("client", "secret")
    );
    use std::io::{Read, Write};
    raw.0.write_all(format!("POST /token HTTP/1.1\r\n{headers}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).unwrap();
    let mut interim = [0; 25];
    raw.0.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    raw.0.write_all(chunks.as_bytes()).unwrap();
    assert_eq!(raw.receive().unwrap().status, 200);
    assert_eq!(raw.refresh("/token", &first).status, 200, "the connection is still in step");
    assert_eq!(server.stats().connections, 1);
    assert!(String::from_utf8(server.log()[0].raw.clone()).unwrap().ends_with(&body));
}

#[test]
fn what_is_not_http_is_refused() {
    use std::io::Write;
    let server = Server::start(Options::generic());
    let mut raw = Raw::connect(&server);
    raw.0.write_all(b"\x16\x03\x01 this is not HTTP\r\n\r\n").unwrap();
    assert_eq!(raw.receive().unwrap().status, 400);
    assert_eq!(Raw::connect(&server).get("/nowhere", "").status, 404);
}

#[test]
fn idle_connections_are_closed_after_their_time() {
    let server = Server::start(Options { idle_timeout_ms: Some(50), ..Options::generic() });
    let mut raw = Raw::connect(&server);
    assert_eq!(raw.get("/resource", "").status, 401);
    assert_eq!(raw.receive_all(), (Vec::new(), false));
}
