//! The session keeper against the test server, through the Rust face.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use evergrant::Client;
use evergrant_test_server::{Client as Registered, Options, Rotation, Server};
use serde_json::{Value, json};

fn strict() -> Server {
    Server::start(Options {
        clients: vec![Registered::confidential("client", "secret")],
        rotation: Rotation::Strict,
        access_token_life_ms: 3_600_000,
        ..Options::generic()
    })
}

fn config(server: &Server, store: &str) -> Value {
    json!({
        "token_endpoint": server.token_endpoint(),
        "client_id": "client",
        "client_secret": "secret",
        "store": store,
    })
}

fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_session_is_saved_served_and_renewed() {
    for store in ["memory:", "sqlite"] {
        let directory = tempfile::tempdir().unwrap();
        let store = match store {
            "sqlite" => format!("sqlite:{}", directory.path().join("s.db").display()),
            other => other.to_owned(),
        };
        let server = strict();
        let first = server.sign_in("client", "user", "api");
        let client = Client::open(&config(&server, &store).to_string()).unwrap();
        client.save("alice", &json!({"refresh_token": first.refresh_token}).to_string()).unwrap();
        let one = client.access_token("alice", None).unwrap();
        assert_eq!(server.token_requests().len(), 1);
        assert_eq!(client.access_token("alice", None).unwrap(), one);
        assert_eq!(client.peek("alice", str::to_owned).unwrap().0, one.expose());
        for generation in 3..6 {
            let token = parsed(client.renew("alice", None, None).unwrap().expose());
            assert_eq!(token["generation"], generation);
            assert!(token.get("refresh_token").is_none());
        }
        assert_eq!(server.token_requests().len(), 4);
        println!("{}", client.describe("alice").unwrap());
        println!("{}", client.stats().unwrap());
        println!("{}", client.events(0, 0).unwrap());
        println!("{}", client.list(None, 10).unwrap());
        client.sign_out("alice").unwrap();
        println!("{}", client.describe("alice").unwrap());
        assert_eq!(client.access_token("alice", None).unwrap_err().reason.as_deref(), Some("signed_out"));
    }
}

#[test]
fn sixty_four_threads_at_the_moment_of_expiry_make_one_request() {
    let directory = tempfile::tempdir().unwrap();
    let server = strict();
    server.update(|options| options.latency_ms = 50);
    let client =
        Client::open(&config(&server, &format!("sqlite:{}", directory.path().join("s.db").display())).to_string())
            .unwrap();
    let client = Arc::new(client);
    let first = server.sign_in("client", "user", "api");
    client.save("alice", &json!({"refresh_token": first.refresh_token}).to_string()).unwrap();
    let begin = Instant::now();
    let threads: Vec<_> = (0..64)
        .map(|_| {
            let client = Arc::clone(&client);
            thread::spawn(move || {
                let token = client.access_token("alice", None).unwrap();
                (token, begin.elapsed())
            })
        })
        .collect();
    let tokens: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(tokens.iter().all(|(token, _)| *token == tokens[0].0));
    println!("{:?}", tokens.iter().map(|(_, took)| *took).max());
    assert_eq!(server.token_requests().len(), 1);
    assert!(begin.elapsed() < Duration::from_secs(5));
}
