//! Sign-in: the authorization code flow with PKCE, and Salesforce's flow by name and password.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use common::*;
use evergrant::{Client, Error, Result, Secret, Status};
use evergrant_test_server::{
    AuthMethod, Client as Registered, Endpoint, Fault, FaultKind, Options, Rotation, WrongType,
};
use serde_json::{Value, json};

const REDIRECT_URI: &str = "https://app.example/back";
const PASSWORD: &str = "password";

/// A server that rotates and checks PKCE, and a client that knows where users sign in there.
fn scene() -> Scene {
    Scene::new(Options { clients: vec![pkce(), Registered::public("public")], ..strict() })
}

fn pkce() -> Registered {
    Registered { require_pkce: true, ..Registered::confidential("client", SECRET) }
}

fn open(scene: &Scene, more: Value) -> Client {
    let endpoint = scene.server.token_endpoint().replace("/token", "/authorize");
    scene.open(lay_over(json!({"authorization_endpoint": endpoint}), more))
}

fn start(client: &Client, more: Value) -> Value {
    let request = lay_over(json!({"redirect_uri": REDIRECT_URI, "scope": "api refresh_token"}), more);
    parsed(client.sign_in_start(&request.to_string()).unwrap().expose())
}

fn finish(client: &Client, sign_in: &Value, url: &str) -> Result<Secret> {
    client.sign_in_finish(SESSION, &sign_in.to_string(), Some(url))
}

/// What a browser does, whose user agrees at once: the URL that it is sent back to.
fn visit(sign_in: &Value) -> String {
    let url = sign_in["authorization_url"].as_str().unwrap();
    let (host, target) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "GET /{target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let location = answer.lines().find_map(|line| line.split_once(": ").filter(|(name, _)| *name == "Location"));
    location.unwrap_or_else(|| panic!("{answer}")).1.to_owned()
}

/// A sign-in from its beginning to its end.
fn sign_in(client: &Client) -> Result<Secret> {
    let begun = start(client, json!({}));
    finish(client, &begun, &visit(&begun))
}

/// The parameters of a URL or a form, decoded.
fn parameters(text: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decoded(text);
    let query = text.split_once('?').map_or(text, |(_, query)| query);
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&after[..2]).unwrap(), 16).unwrap());
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn value<'a>(parameters: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = parameters.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str());
    let value = found.next();
    assert_eq!(found.next(), None, "{name} is there twice");
    value
}

fn refused(result: Result<Secret>) -> Error {
    result.expect_err("a refusal")
}

#[test]
fn a_user_signs_in_and_the_session_is_kept_renewed() {
    for (options, secret) in [(strict(), json!(SECRET)), (salesforce(), json!(SECRET)), (strict(), json!(null))] {
        let clients = vec![pkce(), Registered { require_pkce: true, ..Registered::public("public") }];
        let scene = Scene::new(Options { clients, rotation: Rotation::Strict, ..options });
        let id = if secret.is_null() { "public" } else { "client" };
        let client = scene.open(json!({
            "client_id": id,
            "client_secret": secret,
            "authorization_endpoint": scene.server.token_endpoint().replace("/token", "/authorize"),
        }));
        let given = token(sign_in(&client));
        assert_eq!((&given["session"], &given["generation"]), (&json!(SESSION), &json!(1)));
        assert!(given.get("refresh_token").is_none() && given["access_token"].is_string(), "{given}");
        assert_eq!(text(client.access_token(SESSION, None)), given["access_token"]);
        for generation in 2..5 {
            assert_eq!(token(client.renew(SESSION, None, None))["generation"], generation);
        }
        assert_eq!(client.state(SESSION), "active");
        drop(client);
        let again = scene.open(json!({"client_id": id, "client_secret": secret}));
        assert_eq!(token(again.token(SESSION, None))["generation"], 4, "it is in the store");
        assert_eq!(scene.server.stats().reuses, 0);
    }
}

#[test]
fn a_user_signs_in_at_a_server_that_is_named_by_its_issuer() {
    let scene = scene();
    let issuer = scene.server.url();
    let own = json!({"issuer": issuer, "token_endpoint": null, "revocation_endpoint": null});
    let client = scene.open(own.clone());
    let begun = start(&client, json!({}));
    assert_eq!(begun["issuer"], issuer);
    let url = visit(&begun);
    // It says in its metadata that its answers have an iss (RFC 9207 §2.4).
    let (without, _) = url.split_once("&iss=").unwrap();
    let state = begun["state"].as_str().unwrap();
    for bad in [format!("{without}&state={state}"), url.replace("&iss=http", "&iss=https")] {
        let error = refused(finish(&client, &begun, &bad));
        assert_eq!(class(&error), (Status::InvalidArgument, Some("issuer_mismatch")), "{error}");
    }
    assert_eq!(scene.requests(), 0);
    assert_eq!(token(finish(&client, &begun, &url))["generation"], 1);
    // A process that finishes it need not be the one that has started it.
    let begun = start(&client, json!({}));
    let url = visit(&begun);
    assert_eq!(token(finish(&scene.open(own), &begun, &url))["generation"], 1);
    assert_eq!(token(client.renew(SESSION, None, None))["generation"], 2);
}

#[test]
fn a_server_that_does_not_tell_its_endpoints_signs_nobody_in_and_takes_nothing() {
    let scene = scene();
    let client = scene.open(json!({"issuer": scene.server.url(), "token_endpoint": null}));
    let begun = start(&client, json!({}));
    let url = visit(&begun);
    let other = scene.open(json!({"issuer": format!("{}/other", scene.server.url()), "token_endpoint": null}));
    let kind = FaultKind::Status { code: 503, body: None, retry_after: None };
    scene.server.fault(Fault::from(kind).on(Endpoint::Discovery).times(2));
    let error = refused(other.sign_in_start(r#"{"redirect_uri": "https://app.example/back"}"#));
    assert_eq!(error.status, Status::Unavailable, "{error}");
    // The code is still good.
    assert_eq!(token(finish(&client, &begun, &url))["generation"], 1);
}

#[test]
fn the_authorization_request_is_exactly_this() {
    let scene = scene();
    let endpoint = "https://login.example/authorize?tenant=a%20b";
    let client = scene.open(json!({
        "authorization_endpoint": endpoint,
        "scope": "configured",
        "authorize_parameters": {"prompt": "login", "audience": "ü&="},
    }));
    let begun = start(&client, json!({"scope": null, "extra": {"prompt": "none", "login_hint": "al ice"}}));
    let url = begun["authorization_url"].as_str().unwrap();
    assert!(url.starts_with(&format!("{endpoint}&response_type=code&client_id=client&")), "{url}");
    assert!(!url.contains(begun["code_verifier"].as_str().unwrap()) && !url.contains('+'), "{url}");
    let sent = parameters(url);
    for (name, expected) in [
        ("tenant", "a b"),
        ("redirect_uri", REDIRECT_URI),
        ("scope", "configured"),
        ("state", begun["state"].as_str().unwrap()),
        ("code_challenge_method", "S256"),
        ("audience", "ü&="),
        ("prompt", "none"),
        ("login_hint", "al ice"),
    ] {
        assert_eq!(value(&sent, name), Some(expected), "{name}");
    }
    // RFC 7636 §4.1 and §4.2: 256 bits each.
    for text in [value(&sent, "code_challenge").unwrap(), begun["code_verifier"].as_str().unwrap()] {
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        assert!(text.len() == 43 && text.bytes().all(unreserved), "{text}");
    }
    let other = start(&client, json!({}));
    assert_eq!(value(&parameters(other["authorization_url"].as_str().unwrap()), "scope"), Some("api refresh_token"));
    for member in ["state", "code_verifier"] {
        assert_ne!(begun[member], other[member]);
    }
    assert_eq!(scene.server.log().len(), 0, "nothing is sent");
}

#[test]
fn the_exchange_is_sent_as_a_refresh_is() {
    let scene = Scene::new(Options { clients: vec![pkce(), Registered::public("public")], ..salesforce() });
    for (more, auth) in [
        (json!({}), AuthMethod::BasicRaw),
        (json!({"client_auth": "client_secret_post"}), AuthMethod::Post),
        (json!({"client_id": "public", "client_secret": null}), AuthMethod::None),
        // Only a refresh is ever sent in headers.
        (json!({"parameters_in": "headers"}), AuthMethod::BasicRaw),
    ] {
        let mut more = more;
        more["store"] = "memory:".into();
        more["refresh_parameters"] = json!({"x": "y"});
        let client = scene.open(more);
        let begun = start(&client, json!({}));
        let url = visit(&begun);
        finish(&client, &begun, &url).unwrap_or_else(|error| panic!("{auth:?}: {error}"));
        let entry = scene.server.token_requests().pop().unwrap();
        assert_eq!((entry.auth, entry.status), (Some(auth), Some(200)));
        let request = scene.last_request();
        let sent = parameters(request.split_once("\r\n\r\n").unwrap().1);
        for (name, expected) in [
            ("grant_type", Some("authorization_code")),
            ("code", value(&parameters(&url), "code")),
            ("redirect_uri", Some(REDIRECT_URI)),
            ("code_verifier", begun["code_verifier"].as_str()),
            ("scope", None),
            ("x", None),
        ] {
            assert_eq!(value(&sent, name), expected, "{name}");
        }
    }
}

#[test]
fn bad_requests_are_refused_before_anything_is_sent() {
    let scene = scene();
    let client = open(&scene, json!({}));
    for (request, word) in [
        (json!([]), "request_json"),
        (json!({}), "redirect_uri: it is missing"),
        (json!({"redirect_uri": null}), "redirect_uri: it is missing"),
        (json!({"redirect_uri": 5}), "redirect_uri: expected a string"),
        (json!({"redirect_uri": ""}), "redirect_uri: it is empty"),
        (json!({"redirect_uri": "http://app.example/"}), "write https"),
        (json!({"redirect_uri": "https://app.example/#canary"}), "fragment"),
        (json!({"redirect_uri": "app:/#canary"}), "fragment"),
        (json!({"redirect_uri": "app:"}), "complete URL"),
        (json!({"redirect_uri": "/back"}), "complete URL"),
        (json!({"redirect_uri": "https://user:canary@app.example/"}), "user information"),
        (json!({"redirect_uri": "https://app.example/ "}), "space"),
        (json!({"redirect_uri": REDIRECT_URI, "scope": 5}), "scope: expected a string"),
        (json!({"redirect_uri": REDIRECT_URI, "scope": "api\n"}), "scope: it contains a control"),
        (json!({"redirect_uri": REDIRECT_URI, "extra": []}), "extra: expected an object"),
        (json!({"redirect_uri": REDIRECT_URI, "extra": {"a": 1}}), "extra: expected an object"),
        (json!({"redirect_uri": REDIRECT_URI, "extra": {"state": "canary"}}), "\"state\" is set by the flow"),
        (json!({"redirect_uri": REDIRECT_URI, "extra": {"code_challenge_method": "plain"}}), "set by the flow"),
        (json!({"redirect_uri": REDIRECT_URI, "client_secret": "canary"}), "client_secret: there is no such member"),
    ] {
        let error = refused(client.sign_in_start(&request.to_string()));
        assert_eq!(error.status, Status::InvalidArgument, "{request}");
        assert!(error.message.contains(word) && !error.message.contains("canary"), "{request}: {error}");
    }
    let twice = r#"{"redirect_uri":"https://a.example","redirect_uri":"https://b.example"}"#;
    assert!(refused(client.sign_in_start(twice)).message.contains("twice"));
    for good in ["http://127.0.0.1:4000/x", "http://[::1]/", "com.example.app:/back", "https://app.example?a=b"] {
        start(&client, json!({"redirect_uri": good}));
    }
    let nowhere = scene.open(json!({"store": "memory:"}));
    let error = refused(nowhere.sign_in_start(&json!({"redirect_uri": REDIRECT_URI}).to_string()));
    assert_eq!(error.status, Status::InvalidArgument);
    assert!(error.message.contains("authorization_endpoint"), "{error}");
    assert_eq!(scene.server.log().len(), 0);
}

#[test]
fn only_the_answer_to_this_sign_in_is_taken() {
    let scene = scene();
    let client = open(&scene, json!({}));
    let begun = lay_over(start(&client, json!({})), json!({"issuer": "https://login.example"}));
    let (state, state_of_another) = (begun["state"].as_str().unwrap(), start(&client, json!({}))["state"].clone());
    let other = state_of_another.as_str().unwrap();
    let back = |query: &str| format!("{REDIRECT_URI}?{query}");
    for (url, word, reason) in [
        (String::new(), "redirect_uri", None),
        (REDIRECT_URI.to_owned(), "no state", None),
        (back(""), "no state", None),
        (back("code=canary"), "no state", None),
        (back("code=canary&state="), "its state", Some("state_mismatch")),
        (back(&format!("code=canary&state={other}")), "its state", Some("state_mismatch")),
        (back(&format!("code=canary&state={}", &state[1..])), "its state", Some("state_mismatch")),
        (back(&format!("error=access_denied&state={other}")), "its state", Some("state_mismatch")),
        (back(&format!("code=canary&state={state}&state={state}")), "state is there twice", None),
        (back(&format!("code=canary&state={state}&code=canary")), "code is there twice", None),
        (back(&format!("state={state}&error=a&error=b")), "error is there twice", None),
        (back(&format!("state={state}&code=canary&iss=https%3A%2F%2Fevil.example")), "iss", Some("issuer_mismatch")),
        (
            back(&format!("state={state}&code=canary&iss=https%3A%2F%2Flogin.example%2F")),
            "iss",
            Some("issuer_mismatch"),
        ),
        (back(&format!("state={state}")), "no code", None),
        (back(&format!("state={state}&code=")), "no code", None),
        (back(&format!("state={state}&code=%ff")), "UTF-8", None),
        (format!("https://app.example/other?code=canary&state={state}"), "redirect_uri", None),
        (format!("https://app.example:8443/back?code=canary&state={state}"), "redirect_uri", None),
        (format!("http://app.example/back?code=canary&state={state}"), "redirect_uri", None),
        (format!("https://app.example.evil.example/back?code=canary&state={state}"), "redirect_uri", None),
        (format!("/back?code=canary&state={state}"), "redirect_uri", None),
    ] {
        let error = refused(finish(&client, &begun, &url));
        assert_eq!(class(&error), (Status::InvalidArgument, reason), "{url}: {error}");
        assert!(error.message.contains(word) && !error.message.contains("canary"), "{url}: {error}");
        assert!(error.message.starts_with("redirect_url: "), "{error}");
    }
    assert_eq!(scene.requests(), 0);
    // Written another way, it is the same place.
    let url = format!(" HTTPS://App.Example:443/back?iss=https%3A%2F%2Flogin.example&code=wrong&state={state}#_=_");
    assert_eq!(class(&refused(finish(&client, &begun, &url))), (Status::SignInRequired, Some("code_refused")));
    assert_eq!(scene.requests(), 1);
}

#[test]
fn what_start_gave_out_must_come_back_whole() {
    let scene = scene();
    let client = open(&scene, json!({}));
    let begun = start(&client, json!({}));
    let url = visit(&begun);
    for member in ["state", "code_verifier", "redirect_uri", "client_id"] {
        for broken in [json!(null), json!(5), json!("")] {
            let error = refused(finish(&client, &lay_over(begun.clone(), json!({member: broken})), &url));
            assert_eq!(error.status, Status::InvalidArgument);
            assert!(error.message.contains(&format!("it has no {member}")), "{error}");
        }
    }
    for text in ["", "canary", "[]", "{}"] {
        let error = refused(client.sign_in_finish(SESSION, text, Some(&url)));
        assert_eq!(error.status, Status::InvalidArgument);
        assert!(error.message.contains("sign_in_json") && !error.message.contains("canary"), "{error}");
    }
    for session in ["", "a\nb", &"x".repeat(256)] {
        let error = refused(client.sign_in_finish(session, &begun.to_string(), Some(&url)));
        assert!(error.status == Status::InvalidArgument && error.message.contains("session"), "{error}");
    }
    let another = open(&scene, json!({"client_id": "public", "client_secret": null}));
    assert!(refused(finish(&another, &begun, &url)).message.contains("client_id"));
    assert_eq!(scene.requests(), 0);
    finish(&client, &begun, &url).unwrap();
    let reader = open(&scene, json!({"renews": false}));
    assert!(refused(finish(&reader, &begun, &url)).message.contains("renews"));
    client.close(0);
    assert_eq!(refused(finish(&client, &begun, &url)).status, Status::Closed);
    assert_eq!(refused(client.sign_in_start("{}")).status, Status::Closed);
}

#[test]
fn an_error_answer_says_what_the_server_said() {
    let scene = scene();
    let client = open(&scene, json!({}));
    for (error, status, reason) in [
        ("access_denied", Status::SignInRequired, "access_denied"),
        ("login_required", Status::SignInRequired, "access_denied"),
        ("temporarily_unavailable", Status::Unavailable, "server_unavailable"),
        ("server_error", Status::Unavailable, "server_unavailable"),
        ("invalid_scope", Status::Refused, "client_refused"),
        ("unauthorized_client", Status::Refused, "client_refused"),
        ("something_new", Status::Refused, "client_refused"),
    ] {
        scene.server.update(|options| options.authorize_error = Some(error.into()));
        let begun = start(&client, json!({}));
        let said = refused(finish(&client, &begun, &visit(&begun)));
        assert_eq!(class(&said), (status, Some(reason)), "{said}");
        assert!(said.message.contains(&format!("{error} (as configured)")), "{said}");
        assert_eq!((said.error.as_deref(), said.error_description.as_deref()), (Some(error), Some("as configured")));
        assert_eq!((said.session.as_deref(), said.outcome), (Some(SESSION), None));
    }
    let begun = start(&client, json!({}));
    let state = begun["state"].as_str().unwrap();
    let verifier = begun["code_verifier"].as_str().unwrap();
    let url = format!("{REDIRECT_URI}?error=x&error_description=a%0Ab+{verifier}&error_uri=u&state={state}&code=c");
    let said = refused(finish(&client, &begun, &url));
    assert_eq!((said.error_description.as_deref(), said.error_uri.as_deref()), (Some("a b [redacted]"), Some("u")));
    assert_eq!(scene.requests(), 0);
}

#[test]
fn a_code_works_once_with_its_verifier_and_redirect_uri() {
    let scene = scene();
    let client = open(&scene, json!({}));
    let before = token(sign_in(&client))["access_token"].clone();
    let begun = start(&client, json!({}));
    let url = visit(&begun);
    let wrong = lay_over(begun.clone(), json!({"code_verifier": "x".repeat(43)}));
    let error = refused(finish(&client, &wrong, &url));
    assert_eq!(class(&error), (Status::SignInRequired, Some("code_refused")));
    assert_eq!(
        (error.outcome, error.http_status, error.error.as_deref()),
        (Some("refused"), Some(400), Some("invalid_grant"))
    );
    for word in ["invalid_grant", "must sign in again", "is as it was", "\"alice\""] {
        assert!(error.message.contains(word), "{word}: {error}");
    }
    assert_eq!(token(client.token(SESSION, None))["access_token"], before, "the session is as it was");

    finish(&client, &begun, &url).unwrap();
    let after = token(client.token(SESSION, None));
    assert_ne!(after["access_token"], before);
    let error = refused(finish(&client, &begun, &url));
    assert_eq!(class(&error), (Status::SignInRequired, Some("code_refused")), "replayed");
    assert_eq!(token(client.token(SESSION, None)), after);
}

#[test]
fn a_lost_answer_leaves_the_session_as_it_was() {
    let faults = [
        FaultKind::DropReply,
        FaultKind::ResetAfterProcess,
        FaultKind::Truncate { bytes: 10 },
        FaultKind::NonJson,
        FaultKind::StatusAfter { code: 503, body: None, retry_after: None },
        FaultKind::Redirect { location: "https://elsewhere.example/".into(), code: 307 },
        FaultKind::WrongTypes { variant: WrongType::Empty },
    ];
    for fault in faults {
        let scene = scene();
        let client = open(&scene, json!({}));
        let before = token(sign_in(&client));
        let begun = start(&client, json!({}));
        let url = visit(&begun);
        scene.server.fault(fault.clone());
        let error = refused(finish(&client, &begun, &url));
        assert_eq!((error.status, error.outcome), (Status::SignInRequired, Some("unknown")), "{fault:?}: {error}");
        assert!(error.message.contains("must sign in again"), "{fault:?}: {error}");
        assert_eq!(token(client.token(SESSION, None))["access_token"], before["access_token"]);
        assert_eq!(client.state(SESSION), "active");
        sign_in(&client).unwrap();
    }
}

#[test]
fn what_was_not_sent_can_be_finished_again() {
    let scene = scene();
    let client = open(&scene, json!({"connect_timeout_ms": 5_000}));
    let begun = start(&client, json!({}));
    let url = visit(&begun);
    scene.server.fault(FaultKind::Status { code: 429, body: None, retry_after: Some("7".into()) });
    let error = refused(finish(&client, &begun, &url));
    assert_eq!(
        (error.status, error.outcome, error.retry_after_ms),
        (Status::Unavailable, Some("not_sent"), Some(7_000))
    );
    scene.server.fault(FaultKind::RefuseConnections { ms: 300 });
    scene.server.close_connections(false);
    eventually("the connection is refused, and then not", || match finish(&client, &begun, &url) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!((error.status, error.outcome), (Status::Unavailable, Some("not_sent")), "{error}");
            assert!(error.message.contains("finish this sign-in again"), "{error}");
            false
        }
    });
}

#[test]
fn a_refused_client_is_told_what_to_check() {
    let scene = scene();
    let client = open(&scene, json!({"client_secret": "another"}));
    let begun = start(&client, json!({}));
    let error = refused(finish(&client, &begun, &visit(&begun)));
    assert_eq!(class(&error), (Status::Refused, Some("client_refused")));
    assert!(error.message.contains("client_secret") && error.message.contains("sign in again"), "{error}");
    assert!(client.describe(SESSION).is_err(), "there is no session");
}

#[test]
fn what_a_sign_out_left_is_revoked_first_and_a_new_session_begins() {
    let scene = scene();
    let client = open(&scene, json!({}));
    let first = token(sign_in(&client));
    scene.server.fault(evergrant_test_server::Fault {
        endpoint: Endpoint::Revoke,
        ..FaultKind::Status { code: 503, body: None, retry_after: None }.into()
    });
    client.sign_out(SESSION).unwrap();
    assert!(scene.server.is_live(first["access_token"].as_str().unwrap()), "the server could not be told");
    let second = token(sign_in(&client));
    assert_eq!((client.state(SESSION), &second["generation"]), ("active".to_owned(), &json!(1)));
    assert!(!scene.server.is_live(first["access_token"].as_str().unwrap()));
    let order: Vec<_> = scene.server.log().into_iter().map(|entry| entry.endpoint).collect();
    let last = |endpoint| order.iter().rposition(|other| *other == endpoint).unwrap();
    assert!(last(Endpoint::Revoke) < last(Endpoint::Token), "{order:?}");
    assert!(scene.server.is_live(second["access_token"].as_str().unwrap()));
}

#[test]
fn a_session_that_has_ended_begins_anew() {
    let scene = scene();
    let client = open(&scene, json!({}));
    sign_in(&client).unwrap();
    let family = scene.server.families().pop().unwrap();
    scene.server.revoke(&family.refresh_tokens[0].token);
    assert_eq!(refused(client.renew(SESSION, None, None)).status, Status::SignInRequired);
    assert_eq!(client.state(SESSION), "ended");
    sign_in(&client).unwrap();
    assert_eq!(token(client.renew(SESSION, None, None))["generation"], 2);
}

#[test]
fn without_a_refresh_token_no_session_that_renews_is_given_up() {
    let scene = Scene::new(salesforce());
    let client = scene.open(json!({}));
    let short = |client: &Client| {
        let begun = start(client, json!({"scope": "api"}));
        finish(client, &begun, &visit(&begun))
    };
    let given = token(short(&client));
    assert_eq!(text(client.access_token(SESSION, None)), given["access_token"]);
    assert_eq!(client.events_of("saved")[0]["reason"], "no_refresh_token");
    let error = refused(client.renew(SESSION, None, None));
    assert_eq!(class(&error), (Status::SignInRequired, Some("no_refresh_token")));

    let before = token(sign_in(&client));
    let error = refused(short(&client));
    assert_eq!(class(&error), (Status::Refused, Some("no_refresh_token")));
    assert!(error.message.contains("scope") && error.message.contains("is as it was"), "{error}");
    assert_eq!(token(client.token(SESSION, None))["access_token"], before["access_token"]);
    let log = scene.server.log();
    let given_back = log.iter().filter(|entry| entry.endpoint == Endpoint::Revoke && entry.outcome == "ok").count();
    assert_eq!(given_back, 1, "the token that nobody keeps is revoked");
}

#[test]
fn an_answer_without_an_access_token_keeps_the_refresh_token() {
    let scene = scene();
    let client = open(&scene, json!({}));
    let begun = start(&client, json!({}));
    let url = visit(&begun);
    scene.server.fault(FaultKind::WrongTypes { variant: WrongType::AccessTokenMissing });
    assert_eq!(class(&refused(finish(&client, &begun, &url))), (Status::Refused, Some("bad_answer")));
    assert_eq!(token(client.token(SESSION, None))["generation"], 2);
}

#[test]
fn closing_lets_a_sign_in_settle() {
    let scene = scene();
    let client = open(&scene, json!({}));
    let begun = start(&client, json!({}));
    let url = visit(&begun);
    scene.server.fault(evergrant_test_server::Fault { before_ms: 1_000, ..FaultKind::Pass.into() });
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| finish(&client, &begun, &url));
        eventually("the code is on its way", || scene.requests() == 1);
        assert_eq!(client.close(30_000), Status::Ok);
        assert_eq!(refused(waiting.join().unwrap()).status, Status::Closed);
    });
    assert_eq!(token(open(&scene, json!({})).token(SESSION, None))["generation"], 1);
}

#[test]
fn a_store_that_cannot_be_read_costs_no_code() {
    let scene = scene();
    let client = open(&scene, json!({}));
    let begun = start(&client, json!({}));
    let url = visit(&begun);
    // Nobody listens there, and nothing is connected before it is needed.
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let broken = open(&scene, json!({"store": "redis://127.0.0.1:1", "encryption_key": key}));
    let error = refused(finish(&broken, &begun, &url));
    assert_eq!((error.status, scene.requests()), (Status::Store, 0), "{error}");
    assert!(error.message.contains("Nothing was sent"), "{error}");
    finish(&client, &begun, &url).unwrap();
}

#[test]
fn what_cannot_be_saved_is_given_back() {
    let scene = scene();
    let client = open(&scene, json!({}));
    let before = token(sign_in(&client));
    let begun = start(&client, json!({}));
    let url = visit(&begun);
    // Others may read meanwhile, and nobody may write.
    let other = rusqlite::Connection::open(scene.store()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = refused(finish(&client, &begun, &url));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(error.status, Status::Store);
    assert!(error.message.contains("must sign in again"), "{error}");
    let lost = scene.server.token_requests().pop().unwrap();
    for given in [lost.issued_access_token.unwrap(), lost.issued_refresh_token.unwrap()] {
        assert!(!scene.server.is_live(&given));
    }
    assert_eq!(token(client.token(SESSION, None))["access_token"], before["access_token"]);
    assert_eq!(token(client.renew(SESSION, None, None))["generation"], 2);
    sign_in(&client).unwrap();
}

/// An Experience Cloud site under two prefixes, and somebody else's server.
#[test]
fn the_code_goes_to_the_site_that_the_answer_names_and_nowhere_else() {
    let scene = Scene::new(salesforce());
    let url = scene.server.url();
    let client = scene.open(json!({"site_url": format!("{url}/a")}));
    let begun = start(&client, json!({}));
    let back = visit(&begun);
    assert!(back.contains("sfdc_community_url"), "{back}");
    let named = |site: &str| {
        let kept: Vec<_> = back.split('&').filter(|pair| !pair.starts_with("sfdc_")).collect();
        format!("{}&{site}", kept.join("&"))
    };
    let thief = TcpListener::bind("127.0.0.1:0").unwrap();
    thief.set_nonblocking(true).unwrap();
    let elsewhere = format!("http%3A%2F%2F{}", thief.local_addr().unwrap());
    for (site, path) in [
        (format!("sfdc_community_url={elsewhere}"), "/a"),
        ("sfdc_community_url=https%3A%2F%2Fevil.example".into(), "/a"),
        ("sfdc_community_url=".into(), "/a"),
        (String::new(), "/a"),
        (format!("sfdc_community_url={url}/b"), "/b"),
        (format!("sfdc_site_url={url}/c/"), "/c"),
    ] {
        let _ = finish(&client, &begun, &named(&site));
        let request = scene.server.token_requests().pop().unwrap();
        assert_eq!(request.target, format!("POST {path}/services/oauth2/token"), "{site}");
    }
    assert!(thief.accept().is_err(), "nobody came");
    // An explicit endpoint wins.
    let explicit = scene.open(json!({
        "site_url": format!("{url}/a"), "token_endpoint": format!("{url}/d/services/oauth2/token"),
    }));
    let begun = start(&explicit, json!({}));
    finish(&explicit, &begun, &visit(&begun)).unwrap();
    assert_eq!(scene.server.token_requests().pop().unwrap().target, "POST /d/services/oauth2/token");
}

// ---- by name and password

/// A site's redirect URI that needs no server behind it.
fn password_request(scene: &Scene, more: Value) -> String {
    let request = json!({
        "username": USER,
        "password": PASSWORD,
        "redirect_uri": format!("{}/services/oauth2/echo", scene.server.url()),
        "scope": "api refresh_token",
    });
    lay_over(request, more).to_string()
}

#[test]
fn a_user_of_a_site_signs_in_by_name_and_password() {
    let clients = vec![pkce(), Registered { require_pkce: true, ..Registered::public("public") }];
    let scene = Scene::new(Options { clients, rotation: Rotation::Strict, ..salesforce() });
    for (id, secret, site, place) in [
        ("client", json!(SECRET), "/customers", "header"),
        ("client", json!(SECRET), "", "body"),
        ("public", json!(null), "/customers", "body"),
        ("public", json!(null), "/customers/", "header"),
    ] {
        let client = scene.open(json!({
            "client_id": id, "client_secret": secret, "store": "memory:",
            "site_url": format!("{}{site}", scene.server.url()), "authorize_parameters": {"a": "b"},
        }));
        let given =
            token(client.sign_in_with_password(SESSION, &password_request(&scene, json!({"credentials_in": place}))));
        assert_eq!((&given["session"], &given["generation"]), (&json!(SESSION), &json!(1)));
        assert!(given.get("refresh_token").is_none());
        assert_eq!(token(client.renew(SESSION, None, None))["generation"], 2);

        let log = scene.server.log();
        let [authorize, exchange, _] = &log[log.len() - 3..] else { panic!("{log:?}") };
        let site = site.trim_end_matches('/');
        assert_eq!(authorize.target, format!("POST {site}/services/oauth2/authorize"));
        assert_eq!(exchange.target, format!("POST {site}/services/oauth2/token"));
        let raw = String::from_utf8(authorize.raw.clone()).unwrap();
        let (head, body) = raw.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        assert!(head.contains("\r\nauth-request-type: named-user"), "{head}");
        assert_eq!(
            head.contains("authorization: basic dxnlckblegftcgxllmnvbtpwyxnzd29yza=="),
            place == "header",
            "{head}"
        );
        let sent = parameters(body);
        assert_eq!(value(&sent, "response_type"), Some("code_credentials"));
        assert_eq!(value(&sent, "password"), (place == "body").then_some(PASSWORD));
        assert_eq!(value(&sent, "username"), (place == "body").then_some(USER));
        assert_eq!((value(&sent, "client_id"), value(&sent, "a")), (Some(id), Some("b")));
        assert_eq!((value(&sent, "client_secret"), value(&sent, "code_challenge_method")), (None, Some("S256")));
        assert!(!String::from_utf8_lossy(&exchange.raw).contains(PASSWORD), "it is sent once");
    }
    let followed = scene.server.log().iter().any(|entry| entry.endpoint == Endpoint::Echo);
    assert!(!followed, "the redirect is read, not followed");
    assert_eq!(scene.server.stats().reuses, 0);
}

#[test]
fn a_site_that_lets_nobody_in_says_why() {
    let scene = Scene::new(salesforce());
    let client = scene.open(json!({}));
    let try_it = |more: Value| {
        let error = refused(client.sign_in_with_password(SESSION, &password_request(&scene, more)));
        assert!(!error.message.contains("hunter2-canary") && error.message.contains("\"alice\""), "{error}");
        error
    };
    for place in ["header", "body"] {
        let error = try_it(json!({"password": "hunter2-canary", "credentials_in": place}));
        assert_eq!(class(&error), (Status::SignInRequired, Some("access_denied")));
        assert_eq!((error.outcome, error.http_status), (Some("refused"), Some(400)));
        assert!(error.message.contains("authentication failure"), "{error}");
        assert_eq!(error.message.contains("credentials_in"), place == "header", "{error}");
    }
    let fault = |kind: FaultKind| {
        scene.server.fault(evergrant_test_server::Fault { endpoint: Endpoint::Authorize, ..kind.into() });
        try_it(json!({"password": "hunter2-canary"}))
    };
    let says = |error: &str, description: &str| FaultKind::Error {
        error: error.into(),
        description: description.into(),
        status: 400,
    };
    for (kind, status, reason) in [
        (says("invalid_client_id", "client identifier invalid"), Status::Refused, "client_refused"),
        (says("invalid_app_access", "hunter2-canary"), Status::Refused, "client_refused"),
        (says("invalid_grant", "user is hunter2-canary"), Status::SignInRequired, "access_denied"),
        (FaultKind::Html { status: 200 }, Status::Refused, "bad_answer"),
        (FaultKind::Html { status: 404 }, Status::Refused, "bad_answer"),
        (FaultKind::Html { status: 503 }, Status::Unavailable, "server_unavailable"),
        (
            FaultKind::Redirect { location: "https://evil.example/?code=x".into(), code: 302 },
            Status::Refused,
            "bad_answer",
        ),
        (FaultKind::DropReply, Status::Unavailable, "network"),
    ] {
        let error = fault(kind.clone());
        assert_eq!(class(&error), (status, Some(reason)), "{kind:?}: {error}");
    }
    scene.server.update(|options| options.authorize_error = Some("access_denied".into()));
    assert_eq!(class(&try_it(json!({}))), (Status::SignInRequired, Some("access_denied")));
    assert_eq!(scene.requests(), 0);
    assert!(client.describe(SESSION).is_err(), "there is no session");
}

#[test]
fn bad_password_requests_are_refused_before_anything_is_sent() {
    let scene = Scene::new(salesforce());
    let client = scene.open(json!({}));
    for (more, word) in [
        (json!({"username": null}), "username: it is missing"),
        (json!({"username": ""}), "username: it is empty"),
        (json!({"username": "a:b"}), "credentials_in"),
        (json!({"password": null}), "password: it is missing"),
        (json!({"password": ["canary"]}), "password: expected a string"),
        (json!({"password": ""}), "password: it is empty"),
        (json!({"redirect_uri": null}), "redirect_uri: it is missing"),
        (json!({"redirect_uri": "http://canary.example/"}), "redirect_uri: "),
        (json!({"credentials_in": "canary"}), "credentials_in: expected"),
        (json!({"extra": {}}), "extra: there is no such member"),
    ] {
        let error = refused(client.sign_in_with_password(SESSION, &password_request(&scene, more.clone())));
        assert_eq!(error.status, Status::InvalidArgument, "{more}");
        assert!(error.message.contains(word) && !error.message.contains("canary"), "{more}: {error}");
    }
    let error = refused(client.sign_in_with_password("", &password_request(&scene, json!({}))));
    assert!(error.message.contains("session"), "{error}");
    let url = scene.server.url();
    let other = Client::open(
        &json!({
            "token_endpoint": format!("{url}/token"), "authorization_endpoint": format!("{url}/authorize"),
            "client_id": "client", "store": "memory:",
        })
        .to_string(),
    )
    .unwrap();
    let error = refused(other.sign_in_with_password(SESSION, &password_request(&scene, json!({}))));
    assert_eq!(error.status, Status::InvalidArgument);
    assert!(error.message.contains("\"site_url\""), "{error}");
    assert_eq!(scene.server.log().len(), 0);
}

// ---- with a browser of this machine

/// A sign-in that this process listens for.
fn listen(client: &Client, more: Value) -> Value {
    parsed(client.sign_in_start(&lay_over(json!({"listen": true}), more).to_string()).unwrap().expose())
}

/// What a browser does with the URL that it was sent back to.
fn come_back(url: &str) -> String {
    let (host, target) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "GET /{target} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn this_process_waits_for_the_user_itself() {
    let scene = scene();
    let client = open(&scene, json!({}));
    let begun = listen(&client, json!({"redirect_uri": "http://localhost/x/y"}));
    let redirect_uri = begun["redirect_uri"].as_str().unwrap();
    assert!(redirect_uri.starts_with("http://localhost:") && redirect_uri.ends_with("/x/y"), "{redirect_uri}");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.sign_in_finish(SESSION, &begun.to_string(), None));
        let right = visit(&begun);
        let wrong = right.replace("state=", "state=x");
        assert!(come_back(&wrong).starts_with("HTTP/1.1 400 "));
        assert!(come_back(&redirect_uri.replace("/x/y", "/favicon.ico")).starts_with("HTTP/1.1 404 "));
        assert!(!waiting.is_finished());
        assert!(come_back(&right).contains("close this window"));
        assert_eq!(token(waiting.join().unwrap())["generation"], 1);
    });
    let address = redirect_uri.strip_prefix("http://").unwrap().strip_suffix("/x/y").unwrap();
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    let error = refused(client.sign_in_finish(SESSION, &begun.to_string(), None));
    assert!(error.status == Status::InvalidArgument && error.message.starts_with("redirect_url: "), "{error}");
}

#[test]
fn a_user_who_declines_ends_the_wait() {
    let scene = scene();
    scene.server.update(|options| options.authorize_error = Some("access_denied".into()));
    let client = open(&scene, json!({}));
    let begun = listen(&client, json!({}));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.sign_in_finish(SESSION, &begun.to_string(), None));
        come_back(&visit(&begun));
        assert_eq!(class(&refused(waiting.join().unwrap())), (Status::SignInRequired, Some("access_denied")));
    });
}

#[test]
fn a_wait_for_the_user_ends_with_its_time_or_its_client() {
    let scene = scene();
    let client = open(&scene, json!({}));
    let begun = listen(&client, json!({"max_wait_ms": 50}));
    let error = refused(client.sign_in_finish(SESSION, &begun.to_string(), None));
    assert_eq!((error.status, error.session.as_deref()), (Status::TimedOut, Some(SESSION)));

    let (begun, idle) = (listen(&client, json!({})), listen(&client, json!({})));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.sign_in_finish(SESSION, &begun.to_string(), None));
        sleep_ms(100);
        assert_eq!(client.close(10_000), Status::Ok);
        assert_eq!(refused(waiting.join().unwrap()).status, Status::Closed);
    });
    let address = |begun: &Value| begun["redirect_uri"].as_str().unwrap()[7..].split('/').next().unwrap().to_owned();
    for begun in [begun, idle] {
        assert!(TcpStream::connect(address(&begun)).is_err(), "nobody listens any more");
    }
    assert_eq!(scene.server.log().len(), 0);
}

#[test]
fn bad_requests_for_a_browser_are_refused() {
    let scene = scene();
    let client = open(&scene, json!({}));
    for (more, word) in [
        (json!({"redirect_uri": "https://127.0.0.1/"}), "redirect_uri: to listen there it must be http"),
        (json!({"redirect_uri": "https://app.example/"}), "redirect_uri: to listen there"),
        (json!({"redirect_uri": "http://app.example/"}), "redirect_uri: http would send"),
        (json!({"max_wait_ms": -1}), "max_wait_ms: expected a whole number"),
        (json!({"max_wait_ms": 3_600_001}), "max_wait_ms: expected a whole number"),
        (json!({"listen": 5}), "listen: "),
        (json!({"extra": {"state": "x"}}), "extra: "),
    ] {
        for error in [
            refused(client.sign_in_start(&lay_over(json!({"listen": true}), more.clone()).to_string())),
            refused(client.sign_in_with_browser(SESSION, &more.to_string())),
        ] {
            assert_eq!(error.status, Status::InvalidArgument, "{more}");
            assert!(error.message.contains(word), "{more}: {error}");
        }
    }
    let error = refused(client.sign_in_start(&json!({"redirect_uri": REDIRECT_URI, "max_wait_ms": 5}).to_string()));
    assert!(error.message.contains("listen"), "{error}");
    assert!(refused(client.sign_in_with_browser("", "{}")).message.contains("session"));
    assert!(refused(client.sign_in_with_browser(SESSION, "[]")).message.contains("request_json"));
    assert_eq!(scene.server.log().len(), 0);
}

/// A client that knows its server's issuer only.
fn from_issuer(scene: &Scene, more: Value) -> Client {
    let own = json!({"issuer": scene.server.url(), "token_endpoint": null, "revocation_endpoint": null});
    scene.open(lay_over(own, more))
}

#[test]
fn a_server_that_is_named_by_its_issuer_is_asked_where_users_sign_in() {
    let scene = scene();
    let client = from_issuer(&scene, json!({}));
    let begun = start(&client, json!({}));
    let url = begun["authorization_url"].as_str().unwrap();
    assert!(url.starts_with(&format!("{}/authorize?", scene.server.url())), "{url}");
    assert_eq!(begun["issuer"], scene.server.url());
    // It names itself in every answer, and says so: without iss, or with another, an answer is another server's.
    let answer = visit(&begun);
    let (before, iss) = answer.split_once("&iss=").unwrap();
    let without = format!("{before}&{}", iss.split_once('&').unwrap().1);
    for forged in [format!("{without}&iss=https%3A%2F%2Fevil.example"), without] {
        let error = refused(finish(&client, &begun, &forged));
        assert_eq!(class(&error), (Status::InvalidArgument, Some("issuer_mismatch")), "{error}");
    }
    assert_eq!(scene.requests(), 0);
    assert_eq!(token(finish(&client, &begun, &answer))["generation"], 1);
    assert_eq!(token(client.renew(SESSION, None, None))["generation"], 2);
    let discoveries = scene.server.log().iter().filter(|entry| entry.endpoint == Endpoint::Discovery).count();
    assert_eq!((discoveries, scene.requests()), (1, 2));
}

#[test]
fn a_sign_in_that_cannot_discover_says_so_and_sends_nobody_anywhere() {
    let scene = scene();
    let request = json!({"redirect_uri": REDIRECT_URI}).to_string();
    let fails = |kind: FaultKind| {
        scene.server.fault(evergrant_test_server::Fault::from(kind).always().on(Endpoint::Discovery));
    };
    fails(FaultKind::Status { code: 404, body: None, retry_after: None });
    let error = from_issuer(&scene, json!({})).sign_in_start(&request).unwrap_err();
    assert_eq!(class(&error), (Status::Refused, Some("bad_answer")), "{error}");
    scene.server.clear_faults();

    fails(FaultKind::Hang);
    let brief = from_issuer(&scene, json!({"store": "memory:", "max_wait_ms": 100}));
    let error = brief.sign_in_start(&request).unwrap_err();
    assert_eq!(error.status, Status::TimedOut, "{error}");
    let patient = from_issuer(&scene, json!({"store": "memory:", "max_wait_ms": 60_000}));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| patient.sign_in_start(&request).unwrap_err().status);
        sleep_ms(300);
        patient.close(0);
        assert_eq!(waiting.join().unwrap(), Status::Closed);
    });
    scene.server.clear_faults();

    let bare = json!({"issuer": scene.server.url(), "token_endpoint": scene.server.token_endpoint()}).to_string();
    fails(FaultKind::Status { code: 200, body: Some(bare), retry_after: None });
    let elsewhere = scene.open(json!({"issuer": scene.server.url(), "user_agent": "other", "store": "memory:"}));
    drop((brief, patient));
    let error = elsewhere.sign_in_start(&request).unwrap_err();
    assert_eq!(error.status, Status::InvalidArgument, "{error}");
    assert!(error.message.contains("authorization_endpoint"), "{error}");
}
