use crate::raw::{Raw, basic, bearer, encoded, refresh_body};
use evergrant_test_server::{Client, Options, Rotation, Server, signature};
use serde_json::json;
use std::time::Duration;

const TOKEN: &str = "/services/oauth2/token";

fn started(options: Options) -> (Server, Raw, String) {
    let server = Server::start(options);
    let first = server.sign_in("client", "user@example.com", "api refresh_token").refresh_token;
    let raw = Raw::connect(&server);
    (server, raw, first)
}

#[test]
fn the_answer_has_salesforces_members() {
    let (server, mut raw, first) = started(Options::salesforce());
    for prefix in ["", "/customers", "/a/b"] {
        let answer = raw.refresh(&format!("{prefix}{TOKEN}"), &first);
        assert_eq!(answer.header("content-type"), Some("application/json;charset=UTF-8"));
        let answer = answer.json();
        let text = |name: &str| answer[name].as_str().unwrap_or_else(|| panic!("{name}: {answer}"));
        assert!(text("access_token").starts_with("00D") && text("access_token").len() == 112);
        assert!(text("issued_at").len() == 13 && text("id").starts_with(&format!("{}/id/00D", server.url())));
        assert_eq!(text("signature"), signature("secret", text("id"), text("issued_at")));
        assert_eq!((text("instance_url"), text("token_type")), (&*server.url(), "Bearer"));
        assert_eq!(text("sfdc_community_url"), format!("{}{prefix}", server.url()));
        assert!(text("sfdc_community_id").starts_with("0DB"));
        assert_eq!((text("scope"), text("token_format")), ("api refresh_token", "opaque"));
        assert!(answer.get("expires_in").is_none() && answer.get("refresh_token").is_none());
    }
    server.update(|options| {
        options.rotation = Rotation::Strict;
        options.wrong_signature = true;
        options.instance_url = Some("http://moved.example".into());
        options.extra.insert("api_instance_url".into(), "https://api.example".into());
    });
    let answer = raw.refresh(TOKEN, &first).json();
    assert!(answer["refresh_token"].as_str().unwrap().starts_with("5Aep861"));
    let expected = signature("secret", answer["id"].as_str().unwrap(), answer["issued_at"].as_str().unwrap());
    assert_ne!(answer["signature"], expected);
    assert_eq!(
        (&answer["instance_url"], &answer["api_instance_url"]),
        (&json!("http://moved.example"), &json!("https://api.example"))
    );
}

#[test]
fn parameters_belong_in_the_body() {
    let (server, mut raw, first) = started(Options::salesforce());
    let unsupported = json!({"error": "unsupported_grant_type", "error_description": "grant type not supported"});
    let headers = format!("{}grant_type: refresh_token\r\nrefresh_token: {first}\r\n", basic("client", "secret"));
    let mut answers = vec![];
    raw.send("POST", TOKEN, &headers, "").unwrap();
    answers.push(raw.receive().unwrap());
    answers.push(raw.post_and_receive(&format!("{TOKEN}?{}", refresh_body(&first)), &basic("client", "secret"), ""));
    let as_json = json!({"grant_type": "refresh_token", "refresh_token": first}).to_string();
    let json_headers = format!("{}Content-Type: application/json\r\n", basic("client", "secret"));
    raw.send("POST", TOKEN, &json_headers, &as_json).unwrap();
    answers.push(raw.receive().unwrap());
    for answer in answers {
        assert_eq!((answer.status, answer.json()), (400, unsupported.clone()));
    }
    assert_eq!(raw.get(TOKEN, "").json()["error_description"], "must use HTTP POST");
    server.update(|options| options.accept_header_parameters = true);
    raw.send("POST", TOKEN, &headers, "").unwrap();
    assert_eq!(raw.receive().unwrap().status, 200);
    assert_eq!(server.presentations(&first), 1);
}

#[test]
fn one_request_per_refresh_token_at_a_time() {
    for (legacy_busy_text, text) in
        [(false, "token request is already being processed"), (true, "expired authorization code")]
    {
        let (server, mut raw, first) = started(Options { latency_ms: 150, legacy_busy_text, ..Options::salesforce() });
        let other = server.sign_in("client", "other@example.com", "api").refresh_token;
        raw.post(TOKEN, &basic("client", "secret"), &refresh_body(&first)).unwrap();
        while server.stats().in_flight == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let answer = Raw::connect(&server).refresh(TOKEN, &first);
        assert_eq!(answer.status, 400);
        assert_eq!(answer.json(), json!({"error": "invalid_grant", "error_description": text}));
        assert_eq!(Raw::connect(&server).refresh(TOKEN, &other).status, 200);
        assert_eq!(raw.receive().unwrap().status, 200);
        assert_eq!(raw.refresh(TOKEN, &first).status, 200);
        assert_eq!((server.stats().outcomes["busy"], server.stats().in_flight_max), (1, 2));
    }
}

#[test]
fn refusals_have_salesforces_texts() {
    let (server, mut raw, first) = started(Options { rotation: Rotation::Strict, ..Options::salesforce() });
    let mut refused = |headers: &str, body: &str| {
        let answer = raw.post_and_receive(TOKEN, headers, body);
        assert_eq!(answer.status, 400);
        let answer = answer.json();
        format!("{}: {}", answer["error"].as_str().unwrap(), answer["error_description"].as_str().unwrap())
    };
    let body = refresh_body(&first);
    let right = basic("client", "secret");
    assert_eq!(refused(&basic("nobody", "secret"), &body), "invalid_client_id: client identifier invalid");
    assert_eq!(refused(&basic("client", "wrong"), &body), "invalid_client: invalid client credentials");
    let both = format!("{body}&client_id=client&client_secret=wrong");
    assert_eq!(refused(&right, &both), "invalid_client: invalid client credentials", "the body wins");
    assert_eq!(refused(&right, &refresh_body("unknown")), "invalid_grant: expired access/refresh token");
    server.set_user_active("user@example.com", false);
    assert_eq!(refused(&right, &body), "invalid_grant: inactive user");
    server.set_user_active("user@example.com", true);
    assert_eq!(Raw::connect(&server).refresh(TOKEN, &first).status, 200);
    assert_eq!(refused(&right, &body), "invalid_grant: expired access/refresh token");
}

#[test]
fn resources_userinfo_introspection_and_revocation() {
    let (server, mut raw, first) = started(Options::salesforce());
    let access = raw.refresh(TOKEN, &first).json()["access_token"].as_str().unwrap().to_owned();
    let data = "/services/data/v64.0/sobjects";
    assert_eq!(raw.get(data, &bearer(&access)).json()["user"], "user@example.com");
    assert_eq!(raw.get("/services/oauth2/userinfo", &bearer(&access)).status, 200);
    let about = format!("token={}", encoded(&access));
    let introspection =
        raw.post_and_receive("/x/services/oauth2/introspect", &basic("client", "secret"), &about).json();
    assert_eq!((&introspection["active"], &introspection["token_type"]), (&json!(true), &json!("access_token")));
    assert_eq!(introspection["exp"].as_u64().unwrap() - introspection["iat"].as_u64().unwrap(), 7200);

    assert_eq!(server.expire_access_tokens(Some("user@example.com")), 2);
    let answer = raw.get(data, &bearer(&access));
    let dead = json!([{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}]);
    assert_eq!((answer.status, answer.json()), (401, dead));
    let answer = raw.get("/services/oauth2/userinfo", &bearer(&access));
    assert_eq!((answer.status, &*answer.body), (403, &b"Bad_OAuth_Token"[..]));

    let revoke = "/services/oauth2/revoke";
    let answer = raw.post_and_receive(revoke, "", &format!("token={}", encoded(&first)));
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    let answer = raw.post_and_receive(revoke, "", &format!("token={}", encoded(&first)));
    assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("invalid_token")));
    let second = server.sign_in("client", "user", "api");
    assert_eq!(raw.get(&format!("{revoke}?token={}", encoded(&second.access_token)), "").status, 200);
    assert!(server.is_live(&second.refresh_token) && !server.is_live(&second.access_token));
}

#[test]
fn an_instance_that_moved_refuses_at_its_old_place() {
    let (server, mut raw, _) = started(Options { strict_instance: true, ..Options::salesforce() });
    let access = server.families()[0].access_tokens[0].token.clone();
    let data = "/services/data/v64.0/";
    assert_eq!(raw.get(data, &bearer(&access)).status, 401);
    server.update(|options| options.instance_url = Some("http://test/".into()));
    assert_eq!(raw.get(data, &bearer(&access)).status, 200);
}

#[test]
fn the_headless_flow() {
    let (server, mut raw, _) = started(Options {
        clients: vec![Client { require_pkce: true, ..Client::public("client") }],
        ..Options::salesforce()
    });
    let echo = format!("{}/customers/services/oauth2/echo", server.url());
    let redirect_uri = echo.replace(':', "%3A").replace('/', "%2F");
    let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    let body = format!(
        "response_type=code_credentials&client_id=client&redirect_uri={redirect_uri}&code_challenge={challenge}\
         &scope=api%20refresh_token&state=xyz"
    );
    let authorize = "/customers/services/oauth2/authorize";
    let named_user = |password: &str| basic("user@example.com", password) + "Auth-Request-Type: Named-User\r\n";
    let answer = raw.post_and_receive(authorize, &named_user("wrong"), &body);
    assert_eq!((answer.status, &answer.json()["error_description"]), (400, &json!("authentication failure")));
    let answer = raw.post_and_receive(authorize, &named_user("password"), &body);
    assert_eq!(answer.status, 302);
    let location = answer.header("location").unwrap().to_owned();
    let echoed = raw.get(location.strip_prefix(&server.url()).unwrap(), "").json();
    assert_eq!(echoed["sfdc_community_url"], format!("{}/customers", server.url()));
    assert_eq!(echoed["state"], "xyz");
    let code = echoed["code"].as_str().unwrap();
    let exchange = format!(
        "grant_type=authorization_code&client_id=client&redirect_uri={redirect_uri}&code={}\
         &code_verifier=dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        encoded(code)
    );
    let answer = raw.post_and_receive("/customers/services/oauth2/token", "", &exchange);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.json().get("signature").is_none(), "a public client has no secret to sign with");
    assert!(server.is_live(answer.json()["refresh_token"].as_str().unwrap()));

    let in_body = format!("{body}&username=user%40example.com&password=password");
    let answer = raw.post_and_receive(authorize, "Auth-Request-Type: Named-User\r\n", &in_body);
    assert_eq!(answer.status, 302);
}

#[test]
fn every_token_carries_the_canary() {
    let (server, mut raw, first) =
        started(Options { token_prefix: "CANARY".into(), rotation: Rotation::Strict, ..Options::salesforce() });
    let answer = raw.refresh(TOKEN, &first).json();
    for token in [first.as_str(), answer["access_token"].as_str().unwrap(), answer["refresh_token"].as_str().unwrap()] {
        assert!(token.contains("CANARY"), "{token}");
    }
    drop(server);
}
