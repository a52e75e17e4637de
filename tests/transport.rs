//! How the server is reached: private authorities, client certificates, proxies, addresses. Everything between is real:
//! OpenSSL's TLS, proxies from Debian's packages, the kernel's TCP.

mod common;
#[path = "transport/stage.rs"]
mod stage;

use std::process::Command;

use common::servers::{Proxy, free_port, wait_until};
use common::*;
use evergrant::{Client, Status};
use evergrant_test_server::{Fault, FaultKind, GraceKind};
use serde_json::json;
use stage::*;

// ---- TLS

#[test]
fn an_authority_of_ones_own_is_trusted_by_its_file() {
    let (server, other) = (Secured::new(), Authority::new());
    let message = server.not_sent(json!({"ca_file": null}));
    assert!(message.contains("UnknownIssuer") && message.contains("set ca_file"), "{message}");
    let message = server.not_sent(json!({"ca_file": other.path("ca.crt")}));
    assert!(message.contains("BadSignature") && message.contains("set ca_file"), "{message}");
    server.renews(json!({}));
}

#[test]
fn the_systems_roots_are_trusted_besides() {
    let ours = Secured::new();
    let system = Secured::new();
    let roots = format!("SSL_CERT_FILE={}", system.authority.path("ca.crt").display());
    for (server, ca) in [(&ours, &ours), (&system, &ours)] {
        let config = json!({"ca_file": ca.authority.path("ca.crt")});
        let mut party = server.party(&["env", &roots], config);
        party.of("access_token", SESSION).unwrap();
    }
}

#[test]
fn nothing_of_the_systems_roots_is_read_before_the_first_exchange() {
    let server = Secured::new();
    let log = server.scene.directory.path().join("strace");
    let words = ["strace", "-f", "-qq", "-e", "trace=openat", "-o", log.to_str().unwrap()];
    let mut party = server.party(&words, json!({}));
    let opened = || std::fs::read_to_string(&log).unwrap();
    party.of("describe", SESSION).unwrap();
    assert!(opened().contains("ca.crt") && !opened().contains("/etc/ssl"), "{}", opened());
    party.of("access_token", SESSION).unwrap();
    assert!(opened().contains("/etc/ssl"), "{}", opened());
}

#[test]
fn a_server_that_wants_a_client_certificate() {
    for version in ["TLS1.2", "TLS1.3"] {
        let options = format!("{MEMBERS},openssl-min-proto-version={version},openssl-max-proto-version={version}");
        let server = Secured::with("127.0.0.1", generic(), &options);
        let client = |authority: &Authority| {
            let path = |name| authority.path(name);
            json!({"client_certificate_file": path("client.crt"), "client_key_file": path("client.key")})
        };
        let stranger = Authority::new();
        for config in [json!({}), client(&stranger)] {
            let message = server.not_sent(config);
            let words = ["asks for a client certificate", "client_certificate_file", "client_key_file"];
            assert!(words.iter().all(|word| message.contains(word)), "{version}: {message}");
        }
        server.renews(client(&server.authority));
        // Both in one file.
        let pem = server.authority.path("client.pem");
        server.renews(json!({"client_certificate_file": pem, "client_key_file": pem}));
    }
}

#[test]
fn a_certificate_that_is_replaced_is_used_without_a_restart() {
    let server = Secured::with("127.0.0.1", generic(), MEMBERS);
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = (files.path().join("tls.crt"), files.path().join("tls.key"));
    let copy = |authority: &Authority, name: &str, to: &std::path::Path| {
        // In one step, as those do it who renew certificates.
        std::fs::copy(authority.path(name), files.path().join("new")).unwrap();
        std::fs::rename(files.path().join("new"), to).unwrap();
    };
    let other = Authority::new();
    copy(&other, "client.crt", &certificate);
    copy(&other, "client.key", &key);
    let config = server.config(json!({"client_certificate_file": certificate, "client_key_file": key}));
    let client = Client::open(&config.to_string()).unwrap();
    server.scene.saved(&client, SESSION);
    let refused = |client: &Client| {
        let error = client.renew(SESSION, None, Some(r#"{"anyway": true}"#)).unwrap_err();
        assert_eq!((error.status, error.outcome), (Status::Unavailable, Some("not_sent")), "{error}");
        assert!(error.message.contains("asks for a client certificate"), "{error}");
    };
    refused(&client);
    // Half of it: the old pair serves on.
    copy(&server.authority, "client.crt", &certificate);
    refused(&client);
    copy(&server.authority, "client.key", &key);
    client.renew(SESSION, None, Some(r#"{"anyway": true}"#)).unwrap();
}

#[test]
fn what_is_wrong_with_a_file_is_said_at_once() {
    let (one, other) = (Authority::new(), Authority::new());
    let locked = one.path("locked.key");
    let encrypt = ["pkcs8", "-topk8", "-passout", "pass:canary", "-in", "client.key", "-out", "locked.key"];
    let directory = one.path("");
    assert!(Command::new("openssl").args(encrypt).current_dir(directory).status().unwrap().success());
    let scene = Scene::new(generic());
    for (authority, certificate, key, word) in [
        (&one, "client.crt", other.path("client.key"), "\"client_key_file\": it is not the key of client_certificate"),
        (&one, "client.crt", one.path("client.crt"), "\"client_key_file\": there is no private key"),
        (&one, "client.crt", locked, "without a password"),
        (&one, "client.key", one.path("client.key"), "\"client_certificate_file\": there is no certificate"),
        (&one, "missing", one.path("client.key"), "\"client_certificate_file\": the file cannot be read"),
    ] {
        let config = json!({"client_certificate_file": authority.path(certificate), "client_key_file": key});
        let error = Client::open(&scene.config(config).to_string()).map(|_| ()).unwrap_err();
        assert_eq!(error.status, Status::InvalidArgument, "{error}");
        assert!(error.message.contains(word), "{error}");
    }
}

#[test]
fn less_than_tls_1_2_is_refused() {
    let server = Secured::new();
    let port = free_port();
    let mut old = Command::new("openssl");
    let pem = server.authority.path("server.pem");
    old.args(["s_server", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-www", "-accept", &format!("127.0.0.1:{port}")]);
    let _old = Program::listening(old.arg("-cert").arg(pem), &format!("127.0.0.1:{port}"));
    let message = server.not_sent(json!({"token_endpoint": format!("https://127.0.0.1:{port}/token")}));
    assert!(message.contains("does it speak TLS 1.2 or later?"), "{message}");
}

// ---- addresses

#[test]
fn an_ipv6_address_in_brackets() {
    let server = Secured::with("[::1]", generic(), ANYBODY);
    server.renews(json!({}));
    let (tunnel, (_socks, port)) = (TinyProxy::start(""), socks(None));
    server.renews(json!({"proxy": format!("http://127.0.0.1:{}", tunnel.port)}));
    server.renews(json!({"proxy": format!("socks5://127.0.0.1:{port}")}));
}

/// The dead address comes first, and would use up most of the time if it got its share of it.
#[test]
fn a_name_with_a_dead_address() {
    let server = Secured::with("127.0.0.2", generic(), ANYBODY);
    let _dead = Dead::at(([127, 0, 0, 1], server.port).into());
    let wrapper = with_hosts(server.scene.directory.path(), "127.0.0.1 two.test\n127.0.0.2 two.test\n");
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let found = output_of(&[&wrapper[..], &["getent", "ahostsv4", "two.test"]].concat());
    assert!(found.starts_with("127.0.0.1 "), "{found}");
    let more = json!({
        "token_endpoint": format!("https://two.test:{}/token", server.port),
        "connect_timeout_ms": 60_000,
        "max_wait_ms": 25_000,
    });
    let mut party = server.party(&wrapper, more);
    party.of("access_token", SESSION).unwrap();
    assert_eq!(server.scene.requests(), 1);
}

// ---- proxies

#[test]
fn an_http_proxy() {
    let server = Secured::new();
    let proxy = TinyProxy::start("");
    let counted = Proxy::to(proxy.port);
    server.renews(json!({"proxy": format!("http://127.0.0.1:{}", counted.port)}));
    assert!(counted.connections() > 0, "it went another way");
    let strict = TinyProxy::start("ConnectPort 1");
    let message = server.not_sent(json!({"proxy": format!("http://127.0.0.1:{}", strict.port)}));
    assert!(message.contains("configuration key \"proxy\"") && message.contains("403"), "{message}");
}

#[test]
fn an_http_proxy_with_a_password() {
    let server = Secured::new();
    let proxy = TinyProxy::start(&format!("BasicAuth user {PASSWORD}"));
    let to = |user: &str| json!({"proxy": format!("http://{user}127.0.0.1:{}", proxy.port)});
    server.renews(to(&format!("user:{ENCODED}@")));
    let message = server.not_sent(to(""));
    assert!(message.contains("(configuration key \"proxy\") wants a user and a password"), "{message}");
    let message = server.not_sent(to("user:canary@"));
    assert!(message.contains("(configuration key \"proxy\") refuses the user and the password"), "{message}");
}

#[test]
fn an_https_proxy() {
    let server = Secured::new();
    let proxy = TinyProxy::start(&format!("BasicAuth user {PASSWORD}"));
    let (_front, port) = server.authority.front("127.0.0.1", proxy.port, ANYBODY);
    let ca = server.authority.path("ca.crt");
    let to = |user: &str, ca: Option<&str>| json!({"proxy": format!("https://{user}127.0.0.1:{port}"), "ca_file": ca});
    let user = format!("user:{ENCODED}@");
    server.renews(to(&user, ca.to_str()));
    let message = server.not_sent(to("", ca.to_str()));
    assert!(message.contains("wants a user and a password"), "{message}");
    let message = server.not_sent(to(&user, None));
    assert!(message.contains("configuration key \"proxy\"") && message.contains("UnknownIssuer"), "{message}");
}

#[test]
fn a_socks_proxy() {
    let server = Secured::new();
    let (_open, port) = socks(None);
    let counted = Proxy::to(port);
    server.renews(json!({"proxy": format!("socks5://127.0.0.1:{}", counted.port)}));
    assert!(counted.connections() > 0, "it went another way");
    server.renews(json!({"proxy": format!("socks5h://127.0.0.1:{port}")}));
    let (_locked, port) = socks(Some("user"));
    let to = |user: &str| json!({"proxy": format!("socks5://{user}127.0.0.1:{port}")});
    server.renews(to(&format!("user:{ENCODED}@")));
    for user in ["", "user:canary@"] {
        let message = server.not_sent(to(user));
        assert!(message.contains("configuration key \"proxy\"") && message.contains("auth"), "{message}");
    }
}

#[test]
fn proxies_of_the_environment_are_not_used() {
    let server = Secured::new();
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let names = ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    let variables: Vec<String> = names.iter().map(|name| format!("{name}={nobody}")).collect();
    let mut wrapper = vec!["env"];
    wrapper.extend(variables.iter().map(String::as_str));
    server.party(&wrapper, json!({})).of("access_token", SESSION).unwrap();
}

#[test]
fn a_silent_proxy_counts_as_time_to_connect() {
    let server = Secured::new();
    let proxy = TinyProxy::start("");
    let silent = Proxy::to(proxy.port);
    silent.fall_silent();
    for scheme in ["http", "https", "socks5"] {
        let to = format!("{scheme}://127.0.0.1:{}", silent.port);
        let message = server.not_sent(json!({"proxy": to, "connect_timeout_ms": 300}));
        assert!(message.contains("connect_timeout_ms"), "{message}");
    }
}

#[test]
fn a_proxy_that_dies_in_a_request_leaves_a_doubt_that_heals() {
    let server = Secured::with("127.0.0.1", grace(GraceKind::SiblingsAll), ANYBODY);
    let mut proxy = TinyProxy::start("");
    let more = json!({"proxy": format!("http://127.0.0.1:{}", proxy.port), "max_wait_ms": 50_000});
    let client = Client::open(&server.config(more).to_string()).unwrap();
    server.scene.saved(&client, SESSION);
    server.scene.server.fault(Fault::from(FaultKind::Delay).after(3_000));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| client.access_token(SESSION, Some(r#"{"max_wait_ms": 50000}"#)));
        wait_until("the request", || server.scene.requests() == 1);
        proxy.kill();
        wait_until("the doubt", || client.outcomes(SESSION).contains(&"unknown".to_owned()));
        proxy.resume();
        asking.join().unwrap().map(|_| ()).or_else(|_| client.renew(SESSION, None, None).map(|_| ())).unwrap();
    });
    assert_eq!(client.state(SESSION), "active");
    assert_eq!(client.outcomes(SESSION).last().map(String::as_str), Some("done"));
}

// ---- both

/// All of it in one connection.
#[test]
fn a_client_certificate_through_a_proxy_with_tls_of_its_own() {
    let server = Secured::with("127.0.0.1", generic(), MEMBERS);
    let proxy = TinyProxy::start("");
    let (_front, port) = server.authority.front("127.0.0.1", proxy.port, ANYBODY);
    let path = |name| server.authority.path(name);
    server.renews(json!({
        "proxy": format!("https://127.0.0.1:{port}"),
        "client_certificate_file": path("client.crt"),
        "client_key_file": path("client.key"),
    }));
}
