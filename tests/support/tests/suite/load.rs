use crate::raw::{Raw, basic, refresh_body};
use evergrant_test_server::{Options, Rotation, Server};
use std::collections::HashSet;
use std::sync::Barrier;
use std::time::Instant;

#[test]
fn two_hundred_connections_at_once() {
    let server = Server::start(Options { rotation: Rotation::Strict, latency_ms: 20, ..Options::generic() });
    let everybody = Barrier::new(200);
    let tokens: HashSet<String> = std::thread::scope(|scope| {
        let one = || {
            let mut token = server.sign_in("client", "user", "api").refresh_token;
            let mut seen = vec![token.clone()];
            everybody.wait();
            let mut raw = Raw::connect(&server);
            for _ in 0..3 {
                let answer = raw.refresh("/token", &token);
                assert_eq!(answer.status, 200);
                token = answer.json()["refresh_token"].as_str().unwrap().to_owned();
                seen.push(token.clone());
            }
            seen
        };
        let clients: Vec<_> = (0..200).map(|_| scope.spawn(one)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(tokens.len(), 800);
    let stats = server.stats();
    assert_eq!((stats.token_requests, stats.rotations, stats.connections), (600, 600, 200));
    assert!(stats.in_flight == 0 && stats.in_flight_max > 20, "{stats:?}");
    let log = server.token_requests();
    let presented: HashSet<_> = log.iter().map(|entry| entry.token.clone().unwrap()).collect();
    assert_eq!((log.len(), presented.len()), (600, 600));
    assert!(log.windows(2).all(|pair| pair[0].n + 1 == pair[1].n));
    assert!(server.families().iter().all(|family| family.generation == 4 && family.revoked.is_none()));
}

/// `cargo test --release -p evergrant-test-server -- --ignored --nocapture` says what one exchange costs.
#[test]
#[ignore = "a measurement"]
fn what_one_exchange_costs() {
    for rotation in [Rotation::None, Rotation::Strict] {
        let server = Server::start(Options { rotation, ..Options::salesforce() });
        let mut token = server.sign_in("client", "user", "api").refresh_token;
        let mut raw = Raw::connect(&server);
        let headers = basic("client", "secret");
        let count = 50_000;
        let start = Instant::now();
        for _ in 0..count {
            use std::io::Read;
            raw.post("/services/oauth2/token", &headers, &refresh_body(&token)).unwrap();
            let mut bytes = [0; 4096];
            let length = raw.0.read(&mut bytes).unwrap();
            if rotation == Rotation::Strict {
                let text = std::str::from_utf8(&bytes[..length]).unwrap();
                token = text.split("refresh_token\":\"").nth(1).unwrap().split('"').next().unwrap().into();
            }
        }
        println!(
            "{rotation:?}: {:.1} µs wall per exchange, both sides",
            start.elapsed().as_micros() as f64 / count as f64
        );
    }
}
