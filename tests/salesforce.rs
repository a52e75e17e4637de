//! Salesforce's refresh token flow: what goes over the wire, what comes back, and what each error text means.

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use common::*;
use evergrant::{Error, Status};
use evergrant_test_server::{AuthMethod, Client as Registered, Endpoint, Fault, FaultKind, Options, Rotation};
use serde_json::{Value, json};

/// What the flow sends for this configuration: the request's text, its header fields in alphabetical order.
fn wire(path: &str, more: Value) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let host = base.strip_prefix("http://").unwrap().to_owned();
    let taken = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
        loop {
            let read = stream.read(&mut part).unwrap();
            assert!(read > 0, "the request is incomplete: {}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&part[..read]);
            let text = String::from_utf8_lossy(&bytes);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                break;
            }
        }
        let answer = r#"{"access_token":"at"}"#;
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()).unwrap();
        String::from_utf8(bytes).unwrap()
    });
    let request = json!({"site_url": base + path, "client_id": "id", "user_agent": "test", "refresh_token": "5Aep+/="});
    let answer = evergrant::refresh(&lay_over(request, more).to_string()).unwrap();
    assert_eq!(parsed(answer.expose()), json!({"access_token": "at"}));
    let request = taken.join().unwrap().replace(&host, "HOST");
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<&str> = head.split("\r\n").collect();
    lines[1..].sort_unstable();
    format!("{}\r\n\r\n{body}", lines.join("\r\n"))
}

#[test]
fn the_request_is_exactly_this_in_the_body() {
    let request = wire("/customers/", json!({"client_secret": "secret"}));
    assert_eq!(
        request,
        "POST /customers/services/oauth2/token HTTP/1.1\r\n\
         accept: application/json\r\n\
         authorization: Basic aWQ6c2VjcmV0\r\n\
         content-length: 52\r\n\
         content-type: application/x-www-form-urlencoded\r\n\
         host: HOST\r\n\
         user-agent: test\r\n\
         \r\n\
         grant_type=refresh_token&refresh_token=5Aep%2B%2F%3D"
    );
}

#[test]
fn the_request_is_exactly_this_in_headers() {
    let request = wire("", json!({"client_secret": "secret", "parameters_in": "headers"}));
    assert_eq!(
        request,
        "POST /services/oauth2/token HTTP/1.1\r\n\
         accept: application/json\r\n\
         authorization: Basic aWQ6c2VjcmV0\r\n\
         content-length: 0\r\n\
         grant_type: refresh_token\r\n\
         host: HOST\r\n\
         refresh_token: 5Aep+/=\r\n\
         user-agent: test\r\n\
         \r\n"
    );
}

#[test]
fn further_parameters_follow_in_the_body() {
    let request = wire("", json!({"scope": "api id", "refresh_parameters": {"format": "json", "x y": "ü&="}}));
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(
        body,
        "grant_type=refresh_token&refresh_token=5Aep%2B%2F%3D&client_id=id&scope=api%20id&format=json&x%20y=%C3%BC%26%3D"
    );
    assert!(!request.to_lowercase().contains("authorization:"), "a public client: {request}");
}

/// The flow, once, with the configuration of the scene.
fn refresh(scene: &Scene, refresh_token: &str, more: Value) -> Result<Value, Error> {
    let config = lay_over(scene.config(json!({"store": null})), json!({"refresh_token": refresh_token}));
    evergrant::refresh(&lay_over(config, more).to_string()).map(|answer| parsed(answer.expose()))
}

#[test]
fn a_site_is_reached_with_its_prefix_and_any_number_of_slashes() {
    for prefix in ["", "/customers", "/a/b"] {
        let scene = Scene::new(Options { prefixes: Some(vec![prefix.into()]), ..salesforce() });
        for slashes in ["", "/", "//", "/// "] {
            let site_url = format!("{}{prefix}{slashes}", scene.server.url());
            let answer = refresh(&scene, &scene.sign_in().refresh_token, json!({"site_url": site_url})).unwrap();
            assert_eq!(answer["sfdc_community_url"], format!("{}{prefix}", scene.server.url()), "{site_url}");
            let sent = scene.server.token_requests().pop().unwrap();
            assert_eq!(sent.target, format!("POST {prefix}/services/oauth2/token"));
            assert_eq!((sent.auth, sent.status), (Some(AuthMethod::BasicRaw), Some(200)));
        }
        let wrong = json!({"site_url": format!("{}/elsewhere", scene.server.url())});
        let error = refresh(&scene, &scene.sign_in().refresh_token, wrong).unwrap_err();
        assert_eq!((class(&error), error.http_status), ((Status::Unavailable, Some("bad_answer")), Some(404)));
    }
}

#[test]
fn clients_authenticate_in_each_way() {
    let encoding = |encoding: &str| json!({"basic_encoding": encoding});
    for (options, default) in [(salesforce(), AuthMethod::BasicRaw), (generic(), AuthMethod::BasicForm)] {
        let scene = Scene::new(options);
        for (more, method) in [
            (json!({}), default),
            (encoding("raw"), AuthMethod::BasicRaw),
            (encoding("form"), AuthMethod::BasicForm),
            (json!({"client_auth": "client_secret_post"}), AuthMethod::Post),
            (json!({"client_secret": null, "client_auth": "none"}), AuthMethod::None),
            (json!({"client_secret": null}), AuthMethod::None),
        ] {
            // One that is registered for just this, and a secret that differs in each encoding.
            scene.server.add_client(Registered::confidential("client", SECRET).accepting(&[method]));
            let site = refresh(&scene, &scene.sign_in().refresh_token, more.clone());
            assert!(site.is_ok(), "{more}: {site:?}");
            assert_eq!(scene.server.token_requests().pop().unwrap().auth, Some(method), "{more}");
        }
    }
}

#[test]
fn an_explicit_token_endpoint_needs_no_site() {
    let scene = Scene::new(salesforce());
    let token_endpoint = format!("{}/customers/services/oauth2/token", scene.server.url());
    for more in [
        json!({"token_endpoint": token_endpoint, "site_url": null, "basic_encoding": "raw"}),
        // It wins over the site's.
        json!({"token_endpoint": token_endpoint, "site_url": "https://nowhere.invalid"}),
    ] {
        refresh(&scene, &scene.sign_in().refresh_token, more).unwrap();
        assert_eq!(scene.server.token_requests().pop().unwrap().target, "POST /customers/services/oauth2/token");
    }
}

#[test]
fn a_wrong_secret_is_refused_whatever_the_method() {
    let scene = Scene::new(salesforce());
    let refresh_token = scene.sign_in().refresh_token;
    for (more, advice) in [
        (json!({"client_secret": "wrong"}), "basic_encoding is \"raw\""),
        (json!({"client_secret": "wrong", "basic_encoding": "form"}), "basic_encoding is \"form\""),
        (json!({"client_secret": "wrong", "client_auth": "client_secret_post"}), "basic_encoding"),
        (json!({"client_secret": null}), "client_secret"),
        (json!({"client_id": "unknown"}), "client_id"),
        (json!({"parameters_in": "headers"}), "parameters_in"),
    ] {
        let error = refresh(&scene, &refresh_token, more.clone()).unwrap_err();
        assert_eq!(class(&error), (Status::Refused, Some("client_refused")), "{more}: {error}");
        assert!(error.message.contains(advice), "{more}: {error}");
        assert_eq!((error.outcome, error.http_status), (Some("refused"), Some(400)));
    }
    scene.server.update(|options| options.accept_header_parameters = true);
    refresh(&scene, &refresh_token, json!({"parameters_in": "headers"})).unwrap();
}

#[test]
fn the_answer_comes_back_whole_with_a_rotated_refresh_token() {
    let scene = Scene::new(Options { rotation: Rotation::Strict, ..salesforce() });
    let first = scene.sign_in();
    let answer = refresh(&scene, &first.refresh_token, json!({})).unwrap();
    let sent = scene.server.token_requests().pop().unwrap();
    assert_eq!(answer["refresh_token"].as_str(), sent.issued_refresh_token.as_deref());
    assert_eq!(answer["access_token"].as_str(), sent.issued_access_token.as_deref());
    for member in ["signature", "scope", "instance_url", "id", "token_type", "issued_at", "sfdc_community_id"] {
        assert!(answer[member].is_string(), "{member}: {answer}");
    }
    assert_eq!(answer["issued_at"].as_str().unwrap().len(), 13, "milliseconds, as text");
}

// ---- sessions

#[test]
fn a_session_without_an_end_is_renewed_by_a_rejection_only() {
    let scene = Scene::new(Options { access_token_life_ms: 3_600_000, ..salesforce() });
    let client = scene.signed_in(json!({"recheck_s": 0}));
    let first = token(client.token(SESSION, None));
    assert_eq!((&first["expiry"], &first["expires_at_s"]), (&json!("unknown"), &Value::Null));
    assert!(first.get("expires_in").is_none());
    // Nobody says when it ends; that it has ended is seen at the resource server alone.
    scene.server.expire_access_tokens(None);
    assert_eq!(token(client.token(SESSION, None))["access_token"], first["access_token"]);
    assert_eq!(scene.requests(), 1);
    assert!(evergrant::is_rejection(401, Some(r#"[{"errorCode":"INVALID_SESSION_ID"}]"#)));
    let second = token(client.renew(SESSION, first["access_token"].as_str(), None));
    assert!(scene.server.is_live(second["access_token"].as_str().unwrap()));
    // The same rejection again, from a slower caller: it has been renewed already.
    let again = token(client.renew(SESSION, first["access_token"].as_str(), None));
    assert_eq!(again["access_token"], second["access_token"]);
    assert_eq!(scene.requests(), 2);
}

#[test]
fn an_assumed_life_begins_when_the_token_was_issued() {
    let scene = Scene::new(salesforce());
    let client = scene.open(json!({"session_lifetime_s": 7200}));
    for (age_s, left_s) in [(0, 7200), (100, 7100)] {
        let (session, first) = (format!("{age_s} s old"), scene.sign_in());
        let issued_at = (now_ms() - age_s * 1000).to_string();
        let saved = lay_over(parsed(&first.json), json!({"issued_at": issued_at}));
        client.save(&session, &saved.to_string()).unwrap();
        let token = token(client.token(&session, None));
        assert_eq!(token["expiry"], "assumed");
        let left = token["expires_in"].as_i64().unwrap();
        assert!((left_s - 20..=left_s).contains(&left), "{left} of {left_s}");
        assert_eq!(token["issued_at"], issued_at, "as it came");
    }
    // Too old: renewed at once, and then new.
    let old = lay_over(parsed(&scene.sign_in().json), json!({"issued_at": "1500000000000"}));
    client.save("old", &old.to_string()).unwrap();
    assert!(token(client.token("old", None))["expires_in"].as_i64().unwrap() > 7000);
    assert_eq!(scene.requests(), 1);
    // A time that makes no sense, as seconds or in the future, counts as now.
    for nonsense in ["1708058728", "9999999999999", "yesterday"] {
        let saved = lay_over(parsed(&scene.sign_in().json), json!({"issued_at": nonsense}));
        client.save(nonsense, &saved.to_string()).unwrap();
        assert!(token(client.token(nonsense, None))["expires_in"].as_i64().unwrap() > 7000, "{nonsense}");
    }
    assert_eq!(scene.requests(), 1);
}

#[test]
fn a_signature_that_does_not_verify_is_told_and_is_no_error() {
    let scene = Scene::new(salesforce());
    let client = scene.signed_in(json!({}));
    client.renew(SESSION, None, None).unwrap();
    assert_eq!(client.tell(SESSION)["signature_mismatch"], false);
    scene.server.update(|options| options.wrong_signature = true);
    client.renew(SESSION, None, None).unwrap();
    assert_eq!(client.tell(SESSION)["signature_mismatch"], true);
    assert_eq!(client.events_of("signature_mismatch").len(), 1);
    scene.server.update(|options| options.wrong_signature = false);
    client.renew(SESSION, None, None).unwrap();
    assert_eq!(client.tell(SESSION)["signature_mismatch"], false);
    assert_eq!(client.events_of("signature_mismatch").len(), 1);
    // Without a secret nobody can verify.
    let public = scene.open(json!({"client_id": "public", "client_secret": null}));
    scene.server.update(|options| drop(options.extra.insert("signature".into(), "AAAA".into())));
    let refresh_token = scene.server.sign_in("public", USER, "api").refresh_token;
    public.save(SESSION, &json!({"refresh_token": refresh_token}).to_string()).unwrap();
    assert_eq!(token(public.token(SESSION, None))["signature"], "AAAA");
    assert_eq!(public.tell(SESSION)["signature_mismatch"], false);
}

#[test]
fn a_changed_instance_is_adopted() {
    let scene = Scene::new(salesforce());
    let client = scene.signed_in(json!({}));
    assert_eq!(token(client.token(SESSION, None))["instance_url"], scene.server.url());
    let moved = "https://moved.my.salesforce.com";
    scene.server.update(|options| options.instance_url = Some(moved.into()));
    assert_eq!(token(client.renew(SESSION, None, None))["instance_url"], moved);
    assert_eq!(token(scene.open(json!({})).token(SESSION, None))["instance_url"], moved, "from the store");
    let sent = scene.server.token_requests();
    assert!(sent.iter().all(|request| request.status == Some(200)), "the site is asked, never the instance");
}

#[test]
fn members_that_nobody_knows_pass_through_unchanged() {
    let members = concat!(
        r#""big":123456789012345678901234567890,"exact":1.10,"tiny":1E-400,"huge":-1e999,"#,
        r#""nested":{"a":[1,{"b":null}],"refresh_token":"kept"},"list":[],"text":"ü \u0000 \" 𝄞","csrf_token":"c","#,
        r#""cookie-sid_Client":"x","true":true"#
    );
    let answer = format!(r#"{{"access_token":"at","refresh_token":"rt",{members},"token_type":"bearer"}}"#);
    let body = Some(answer);
    let scene = Scene::new(generic());
    let client = scene.signed_in(json!({}));
    scene.server.fault(FaultKind::Status { code: 200, body, retry_after: None });
    let token = client.token(SESSION, None).unwrap();
    assert!(token.expose().contains(members), "{}", token.expose());
    assert!(!token.expose().contains(r#""rt""#));
    let stored = scene.open(json!({})).token(SESSION, None).unwrap();
    assert!(stored.expose().contains(members), "{}", stored.expose());
}

// ---- what errors mean

struct Text {
    status: u16,
    error: &'static str,
    description: &'static str,
}

const fn text(error: &'static str, description: &'static str) -> Text {
    Text { status: 400, error, description }
}

impl Text {
    fn fault(&self) -> FaultKind {
        let (error, description) = (self.error.into(), self.description.into());
        FaultKind::Error { error, description, status: self.status }
    }
}

#[test]
fn these_texts_end_a_session() {
    let scene = Scene::new(salesforce());
    let client = scene.open(json!({}));
    let dead = "used_elsewhere_or_revoked";
    for (text, reason) in [
        (text("invalid_grant", "expired access/refresh token"), dead),
        (text("invalid_grant", "Token Validity Expired"), "expired_or_revoked"),
        (text("invalid_grant", "authentication failure"), dead),
        (text("invalid_grant", "activation secret invalid"), dead),
        (text("invalid_grant", "user hasn't approved this consumer"), dead),
        (text("invalid_grant", "a text that nobody has seen"), dead),
        (text("invalid_grant", ""), dead),
        (text("invalid_grant", "inactive user"), "inactive_user"),
        (text("inactive_user", "user is inactive"), "inactive_user"),
        (text("inactive_org", ""), "inactive_user"),
        (Text { status: 401, ..text("invalid_grant", "expired access/refresh token") }, dead),
    ] {
        let name = format!("{} {} {}", text.status, text.error, text.description);
        let refresh_token = scene.saved(&client, &name);
        scene.server.fault(text.fault());
        let error = client.access_token(&name, None).unwrap_err();
        assert_eq!(class(&error), (Status::SignInRequired, Some(reason)), "{name}: {error}");
        assert_eq!(error.error.as_deref(), Some(text.error));
        assert_eq!((error.outcome, error.http_status), (Some("refused"), Some(text.status)), "{name}");
        assert!(error.message.contains("sign in again"), "{name}: {error}");
        let told = client.tell(&name);
        assert_eq!((&told["state"], &told["reason"]), (&json!("ended"), &json!(reason)), "{name}");
        // It stays so, without a request, for everybody.
        let again = scene.open(json!({})).access_token(&name, None).unwrap_err();
        assert_eq!(class(&again), (Status::SignInRequired, Some(reason)), "{name}: {again}");
        assert_eq!(scene.server.presentations(&refresh_token), 1, "{name}");
        // The refresh token is kept, so that a person can try it once more.
        let anyway = token(client.renew(&name, None, Some(r#"{"anyway": true}"#)));
        assert_eq!((&anyway["generation"], client.state(&name)), (&json!(2), "active".into()), "{name}");
    }
    assert_eq!(client.events_of("ended").len(), 11);
}

#[test]
fn these_texts_refuse_the_client_and_keep_the_session() {
    let scene = Scene::new(salesforce());
    for text in [
        text("invalid_client", "invalid client credentials"),
        text("invalid_client_id", "client identifier invalid"),
        text("invalid_client_credentials", ""),
        text("invalid_app_access", "user is not admin approved to access this app"),
        text("unsupported_grant_type", "grant type not supported"),
        text("invalid_request", "missing required parameter: grant_type"),
        text("invalid_scope", ""),
        text("unauthorized_client", ""),
        text("wrong_version", ""),
        text("redirect_uri_mismatch", ""),
        text("invalid_grant", "Audience validation failed"),
        text("invalid_grant", "audience is invalid"),
        text("invalid_grant", "invalid assertion"),
        text("invalid_grant", "ip restricted"),
        Text { status: 401, ..text("invalid_client", "") },
    ] {
        let name = format!("{} {} {}", text.status, text.error, text.description);
        let client = scene.open(json!({}));
        scene.saved(&client, &name);
        scene.server.fault(text.fault());
        let error = client.access_token(&name, None).unwrap_err();
        assert_eq!(class(&error), (Status::Refused, Some("client_refused")), "{name}: {error}");
        assert_eq!((error.outcome, client.state(&name)), (Some("refused"), "active".into()), "{name}");
        assert!(error.message.contains("the session is kept"), "{error}");
        // Corrected, it goes on.
        let anyway = token(client.renew(&name, None, Some(r#"{"anyway": true}"#)));
        assert_eq!(anyway["generation"], 2, "{name}");
    }
}

#[test]
fn too_many_logins_wait_for_a_minute() {
    let scene = Scene::new(salesforce());
    let client = scene.open(json!({}));
    for text in
        [text("rate_limit_exceeded", ""), text("login rate exceeded", ""), text("invalid_grant", "Login Rate Exceeded")]
    {
        let name = format!("{} {}", text.error, text.description);
        scene.saved(&client, &name);
        scene.server.fault(text.fault());
        let error = client.access_token(&name, None).unwrap_err();
        assert_eq!(class(&error), (Status::Unavailable, Some("server_unavailable")), "{name}: {error}");
        assert!(error.retry_after_ms.unwrap() > 50_000, "{name}: {error:?}");
        assert_eq!(client.state(&name), "active");
        let again = client.access_token(&name, None).unwrap_err();
        assert!(again.retry_after_ms.unwrap() > 50_000, "{name}");
    }
    assert_eq!(scene.requests(), 3);
}

#[test]
fn already_being_processed_never_ends_a_session_and_is_tried_again_by_itself() {
    for legacy_busy_text in [false, true] {
        let scene = Scene::new(Options { legacy_busy_text, rotation: Rotation::Strict, ..salesforce() });
        let client = scene.signed_in(json!({}));
        scene.server.fault(Fault::from(FaultKind::Busy).times(2));
        // Nobody has to ask again: who does not wait finds it done later.
        let error = client.access_token(SESSION, Some(r#"{"max_wait_ms": 0}"#)).unwrap_err();
        assert!([Status::TimedOut, Status::Unavailable].contains(&error.status), "{error}");
        eventually("it goes on by itself", || client.tell(SESSION)["generation"] == 2);
        assert_eq!(client.outcomes(SESSION), ["busy", "busy", "done"]);
        assert_eq!(client.events_of("ended").len(), 0);
        // Who waits, is served.
        scene.server.fault(FaultKind::Busy);
        assert_eq!(token(client.renew(SESSION, None, None))["generation"], 3);
        assert_eq!(scene.server.families()[0].reuses, 0);
    }
}

#[test]
fn the_waits_for_a_busy_server_are_jittered() {
    let scene = Scene::new(salesforce());
    let client = scene.open(json!({}));
    let mut waits = std::collections::BTreeSet::new();
    for n in 0..12 {
        let name = format!("user {n}");
        scene.saved(&client, &name);
        scene.server.fault(FaultKind::Busy);
        let _ = client.access_token(&name, Some(r#"{"max_wait_ms": 0}"#));
        eventually("renewed", || client.tell(&name)["generation"] == 2);
        let sent: Vec<u64> = scene.server.token_requests().iter().map(|request| request.at_ms).collect();
        let wait = sent[sent.len() - 1] - sent[sent.len() - 2];
        assert!(wait >= 124, "{wait} ms is less than half of 250");
        waits.insert(wait);
    }
    assert!(waits.len() > 3, "{waits:?}");
}

#[test]
fn outages_never_end_a_session() {
    let page = |code| FaultKind::Status { code, body: Some("<html>maintenance</html>".into()), retry_after: None };
    let says = |status, error: &str, description: &str| FaultKind::Error {
        error: error.into(),
        description: description.into(),
        status,
    };
    let scene = Scene::new(salesforce());
    let client = scene.open(json!({"connect_timeout_ms": 1500, "exchange_timeout_ms": 300}));
    for fault in [
        page(500),
        page(502),
        page(503),
        page(504),
        page(404),
        page(400),
        FaultKind::Html { status: 200 },
        FaultKind::Hang,
        says(503, "invalid_grant", "expired access/refresh token"),
        says(500, "unknown_error", "retry your request"),
        says(400, "server_error", "Data Not Available"),
        says(400, "temporarily_unavailable", ""),
    ] {
        let name = format!("{fault:?}");
        scene.saved(&client, &name);
        scene.server.fault(Fault::from(fault).times(2));
        let _ = client.access_token(&name, Some(r#"{"max_wait_ms": 50}"#)).unwrap_err();
        eventually("renewed by itself", || client.tell(&name)["generation"] == 2);
        assert_eq!(client.outcomes(&name), ["unknown", "unknown", "done"], "{name}");
    }
    assert_eq!(client.events_of("ended").len(), 0);
}

#[test]
fn an_inactive_user_can_be_repaired() {
    let scene = Scene::new(salesforce());
    let client = scene.signed_in(json!({}));
    client.access_token(SESSION, None).unwrap();
    scene.server.set_user_active(USER, false);
    let error = client.renew(SESSION, None, None).unwrap_err();
    assert_eq!(class(&error), (Status::SignInRequired, Some("inactive_user")), "{error}");
    let ended = client.access_token(SESSION, None).unwrap_err();
    assert!(ended.message.contains("anyway"), "{ended}");
    assert_eq!(scene.requests(), 2);
    // Too early: tried once, ended again.
    let anyway = Some(r#"{"anyway": true}"#);
    assert_eq!(client.renew(SESSION, None, anyway).unwrap_err().reason.as_deref(), Some("inactive_user"));
    assert_eq!((scene.requests(), client.state(SESSION)), (3, "ended".into()));
    scene.server.set_user_active(USER, true);
    assert_eq!(client.access_token(SESSION, None).unwrap_err().status, Status::SignInRequired);
    assert_eq!(scene.requests(), 3, "nobody tries by himself");
    assert_eq!(token(client.renew(SESSION, None, anyway))["generation"], 3);
    assert_eq!(client.state(SESSION), "active");
}

// ---- signing out

fn revocations(scene: &Scene) -> Vec<(String, Option<u16>)> {
    let log = scene.server.log().into_iter().filter(|request| request.endpoint == Endpoint::Revoke);
    log.map(|request| (request.token.unwrap_or_default(), request.status)).collect()
}

#[test]
fn signing_out_revokes() {
    let scene = Scene::new(Options { rotation: Rotation::Strict, ..salesforce() });
    let client = scene.signed_in(json!({}));
    let access_token = client.access_token(SESSION, None).unwrap();
    client.sign_out(SESSION).unwrap();
    let current = scene.server.families()[0].refresh_tokens.last().unwrap().token.clone();
    assert_eq!(revocations(&scene)[0], (current, Some(200)));
    assert!(scene.server.families()[0].revoked.is_some());
    assert!(!scene.server.is_live(access_token.expose()));
    let told = client.tell(SESSION);
    assert_eq!((&told["state"], &told["to_revoke"]), (&json!("signed_out"), &json!(0)));
    assert_eq!(client.peek(SESSION, |_| ()).unwrap_err(), Status::Stale);
    for anyway in [None, Some(r#"{"anyway": true}"#)] {
        let error = client.renew(SESSION, None, anyway).unwrap_err();
        assert_eq!(class(&error), (Status::SignInRequired, Some("signed_out")));
    }
    assert_eq!(scene.requests(), 1);
}

#[test]
fn what_cannot_be_revoked_now_is_revoked_later() {
    let scene = Scene::new(Options { rotation: Rotation::Strict, ..salesforce() });
    let client = scene.signed_in(json!({}));
    client.access_token(SESSION, None).unwrap();
    scene.server.fault(Fault::from(FaultKind::Html { status: 503 }).always().on(Endpoint::Revoke));
    client.sign_out(SESSION).unwrap();
    let told = client.tell(SESSION);
    assert_eq!((&told["state"], &told["to_revoke"]), (&json!("signed_out"), &json!(2)));
    assert!(scene.server.families()[0].revoked.is_none());
    assert_eq!(client.events_of("revocation_failed").len(), 1);
    drop(client);
    // Anybody may finish it, in passing.
    scene.server.clear_faults();
    let mut other = scene.party(json!({}));
    assert_eq!(other.of("access_token", SESSION).unwrap_err()["reason"], "signed_out");
    eventually("the rest is revoked", || other.of("describe", SESSION).unwrap()["to_revoke"] == 0);
    assert!(scene.server.families()[0].revoked.is_some());
}
