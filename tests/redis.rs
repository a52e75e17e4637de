//! Sessions in Redis: outages, crashes, lost replies, failovers that lose writes, and many processes, with real servers.

mod common;

use common::servers::{Proxy, Redis, SAFE};
use common::{Party, SESSION, Scene, Tell, class, eventually, lay_over, sleep_ms, strict, text, token};
use evergrant::{Client, Status};
use evergrant_test_server::{Fault, FaultKind, Options};
use rustix::process::Signal;
use serde_json::{Value, json};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A configuration for this store.
fn on(url: &str, more: Value) -> Value {
    lay_over(json!({"store": url, "encryption_key": KEY}), more)
}

/// The access token after this one.
fn renewed(client: &Client, rejected: &str) -> String {
    token(client.renew(SESSION, Some(rejected), None))["access_token"].as_str().unwrap().to_owned()
}

/// A master, and a replica that may take over.
struct Failover {
    master: Redis,
    replica: Redis,
}

impl Failover {
    fn new() -> Self {
        let master = Redis::start();
        let replica = Redis::replica_of(&master);
        Self { master, replica }
    }

    fn url(&self) -> String {
        Redis::url_of(&[self.master.port, self.replica.port])
    }

    /// Waits until the replica has all that the master has.
    fn catch_up(&self) {
        let offset = |redis: &Redis| {
            let info = redis.cli(&["INFO", "replication"]);
            let line = info.lines().find(|line| line.starts_with("master_repl_offset:")).map(str::to_owned);
            line.unwrap().trim().to_owned()
        };
        eventually("the replica's having it all", || offset(&self.master) == offset(&self.replica));
    }

    /// What the master writes from now on the replica will not have.
    fn separate(&self) {
        self.catch_up();
        assert_eq!(self.replica.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
        eventually("the separation", || self.master.cli(&["INFO", "replication"]).contains("connected_slaves:0"));
    }

    /// The replica takes over with what it has.
    fn fail_over(&self) {
        self.master.stop(Signal::KILL);
        assert_eq!(self.replica.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    }
}

#[test]
fn opening_a_client_and_a_token_in_memory_ask_no_server() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port);
    let scene = Scene::new(strict());
    let config = on(&Redis::url_of(&[proxy.port]), json!({}));
    let client = scene.open(config.clone());
    assert_eq!(client.peek(SESSION, |_| ()).unwrap_err(), Status::Stale);
    client.stats().unwrap();
    assert_eq!(proxy.connections(), 0);
    scene.saved(&client, SESSION);
    assert_eq!(proxy.connections(), 1);
    // Clients that name the same store share its connections.
    scene.open(config).describe(SESSION).unwrap();
    assert_eq!(proxy.connections(), 1);

    let first = text(client.access_token(SESSION, None));
    let commands = || {
        let stats = redis.cli(&["INFO", "commandstats"]);
        stats.lines().find(|line| line.starts_with("cmdstat_eval:")).unwrap().to_owned()
    };
    let before = commands();
    for _ in 0..1000 {
        assert_eq!(text(client.access_token(SESSION, None)), first);
    }
    assert_eq!(commands(), before);
}

#[test]
fn a_valid_token_is_served_while_the_server_is_away_and_none_is_spent() {
    let redis = Redis::start();
    let scene = Scene::new(Options { access_token_life_ms: 12_000, ..strict() });
    let more = json!({"recheck_s": 0, "early_renewal": "off", "max_wait_ms": 1500});
    let client = scene.open(on(&redis.url(), more));
    scene.saved(&client, SESSION);
    let first = text(client.access_token(SESSION, None));
    redis.stop(Signal::KILL);
    for _ in 0..200 {
        assert_eq!(text(client.access_token(SESSION, None)), first);
        sleep_ms(5);
    }
    // Its life is over at last: then there is an error, and nothing is sent.
    let mut failed = None;
    eventually("an error", || {
        failed = client.access_token(SESSION, None).err();
        failed.is_some()
    });
    let failed = failed.unwrap();
    assert_eq!(class(&failed), (Status::Store, None));
    assert!(
        failed.message.contains("the refresh token was not spent") && !failed.message.contains("canary"),
        "{failed}"
    );
    assert_eq!(scene.requests(), 1);
    redis.resume(&SAFE);
    eventually("a new token", || client.access_token(SESSION, None).is_ok_and(|token| token.expose() != first));
    assert_eq!(scene.requests(), 2);
}

#[test]
fn an_answer_that_comes_while_the_server_restarts_is_kept_and_committed() {
    let redis = Redis::start();
    let scene = Scene::new(strict());
    let client = scene.open(on(&redis.url(), json!({"max_wait_ms": 30_000})));
    scene.saved(&client, SESSION);
    scene.server.fault(Fault::from(FaultKind::Delay).before(3000));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| token(client.token(SESSION, None)));
        eventually("the request", || scene.requests() == 1);
        redis.stop(Signal::KILL);
        let got = asking.join().unwrap();
        assert_eq!(got["uncommitted"], true, "{got}");
    });
    assert_eq!(client.events_of("commit_pending").len(), 1);
    redis.resume(&SAFE);
    let mut other = scene.party(on(&redis.url(), json!({})));
    eventually("the commit", || {
        let shown = other.of("describe", SESSION).unwrap();
        shown["generation"] == 2 && shown["attempt"].is_null()
    });
    assert_eq!(scene.requests(), 1);
}

#[test]
fn a_claim_whose_commit_was_not_heard_of_is_recognised() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port);
    let scene = Scene::new(strict());
    let client = scene.open(on(&Redis::url_of(&[proxy.port]), json!({"max_wait_ms": 30_000})));
    scene.saved(&client, SESSION);
    // Of the claim.
    proxy.lose_next_commit();
    let first = text(client.access_token(SESSION, None));
    assert_eq!((scene.requests(), client.tell(SESSION)["generation"].as_u64()), (1, Some(2)));
    // Of the result.
    scene.server.fault(Fault::from(FaultKind::Delay).before(500));
    let connections = proxy.connections();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| client.renew(SESSION, Some(&first), None).unwrap());
        eventually("the claim", || !client.tell(SESSION)["attempt"].is_null());
        proxy.lose_next_commit();
        asking.join().unwrap();
    });
    eventually("the end of the attempt", || client.tell(SESSION)["attempt"].is_null());
    assert!(proxy.connections() > connections, "one was cut");
    assert_eq!((scene.requests(), client.tell(SESSION)["generation"].as_u64()), (2, Some(3)));
    assert_eq!(client.outcomes(SESSION), ["done", "done"]);
}

#[test]
fn sixteen_processes_make_one_renewal() {
    const PARTIES: usize = 16;
    let redis = Redis::start();
    let scene = Scene::new(strict());
    let config = on(&redis.url(), json!({"max_wait_ms": 50_000, "early_renewal": "off"}));
    let mut parties: Vec<Party> = (0..PARTIES).map(|_| Party::start()).collect();
    for party in &mut parties {
        party.ask(json!({"do": "open", "config": scene.config(config.clone())})).unwrap();
    }
    let refresh_token = scene.sign_in().refresh_token;
    parties[0].ask(json!({"do": "save", "session": SESSION, "token": {"refresh_token": refresh_token}})).unwrap();
    let mut rejected = Value::Null;
    for round in 1..=5 {
        let call = match &rejected {
            Value::Null => json!({"do": "token", "session": SESSION}),
            rejected => json!({"do": "renew", "session": SESSION, "rejected": rejected}),
        };
        parties.iter_mut().for_each(|party| party.begin(call.clone()));
        let got: Vec<Value> = parties.iter_mut().map(|party| party.answer().unwrap()).collect();
        assert_eq!(scene.requests(), round);
        for token in &got {
            assert_eq!(token["access_token"], got[0]["access_token"]);
        }
        rejected = got[0]["access_token"].clone();
    }
}

#[test]
fn a_result_that_a_failover_lost_is_written_back_from_memory() {
    let servers = Failover::new();
    let scene = Scene::new(strict());
    let config = on(&servers.url(), json!({"recheck_s": 0, "early_renewal": "off", "max_wait_ms": 30_000}));
    let client = scene.open(config.clone());
    scene.saved(&client, SESSION);
    let first = text(client.access_token(SESSION, None));
    servers.separate();
    let second = renewed(&client, &first);
    servers.fail_over();

    // The new master has the refresh token that is spent. Nobody presents it.
    eventually("the new master", || client.tell(SESSION)["generation"].as_u64().is_some());
    eventually("the token that memory has", || text(client.access_token(SESSION, None)) == second);
    let third = renewed(&client, &second);
    assert_eq!((scene.requests(), client.tell(SESSION)["generation"].as_u64()), (3, Some(4)));
    assert_eq!(client.outcomes(SESSION).last().map(String::as_str), Some("done"));
    let told: Vec<_> = client.events_of("store_warning").into_iter().map(|event| event["reason"].clone()).collect();
    assert!(told.contains(&"store_rolled_back".into()), "{told:?}");
    // A party without a memory finds it so.
    let mut other = scene.party(config);
    assert_eq!(other.of("token", SESSION).unwrap()["access_token"], third.as_str());
}

#[test]
fn a_version_that_comes_twice_is_not_taken_for_the_same_record() {
    let servers = Failover::new();
    let scene = Scene::new(strict());
    let config = on(&servers.url(), json!({"recheck_s": 0, "early_renewal": "off", "max_wait_ms": 30_000}));
    let client = scene.open(config.clone());
    scene.saved(&client, SESSION);
    let first = text(client.access_token(SESSION, None));
    servers.separate();
    let second = renewed(&client, &first);
    scene.server.fault(Fault::from(FaultKind::Delay).before(3000));
    let mut other = scene.party(config);
    let third = std::thread::scope(|scope| {
        let asking = scope.spawn(|| renewed(&client, &second));
        eventually("the request", || scene.requests() == 3);
        // With the claim in it, this record is as many writes after what the replica has as the last one below.
        assert_eq!(other.of("token", SESSION).unwrap()["access_token"], second.as_str());
        servers.fail_over();
        asking.join().unwrap()
    });
    eventually("the commit", || client.tell(SESSION)["generation"] == 4);
    let fourth = renewed(&client, &third);
    assert_eq!(other.of("token", SESSION).unwrap()["access_token"], fourth.as_str());
    assert_eq!(scene.requests(), 4);
}

#[test]
fn an_answer_to_a_claim_that_a_failover_lost_is_committed() {
    let servers = Failover::new();
    let scene = Scene::new(strict());
    let client = scene.open(on(&servers.url(), json!({"max_wait_ms": 30_000})));
    scene.saved(&client, SESSION);
    servers.separate();
    scene.server.fault(Fault::from(FaultKind::Delay).before(3000));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| token(client.token(SESSION, None)));
        eventually("the request", || scene.requests() == 1);
        servers.fail_over();
        asking.join().unwrap();
    });
    let mut other = scene.party(on(&servers.url(), json!({})));
    eventually("the commit", || other.of("describe", SESSION).is_ok_and(|shown| shown["generation"] == 2));
    assert_eq!(scene.requests(), 1);
    assert_eq!(client.outcomes(SESSION), ["done"]);
}

#[test]
fn what_a_replica_has_outlives_its_master() {
    let servers = Failover::new();
    let scene = Scene::new(strict());
    let client = scene.open(on(&servers.url(), json!({"early_renewal": "off", "max_wait_ms": 30_000})));
    scene.saved(&client, SESSION);
    let mut last = text(client.access_token(SESSION, None));
    for _ in 0..10 {
        last = renewed(&client, &last);
    }
    servers.catch_up();
    servers.fail_over();
    let mut other = scene.party(on(&servers.url(), json!({})));
    let mut got = Err(Value::Null);
    eventually("the new master", || {
        got = other.of("token", SESSION);
        got.is_ok()
    });
    assert_eq!(got.unwrap()["access_token"], last.as_str());
    assert_eq!(scene.requests(), 11);
}

#[test]
fn sessions_that_the_server_has_forgotten_want_a_sign_in() {
    let redis = Redis::start();
    let scene = Scene::new(strict());
    let client = scene.signed_in(on(&redis.url(), json!({"recheck_s": 0})));
    client.access_token(SESSION, None).unwrap();
    redis.cli(&["FLUSHALL"]);
    let error = client.access_token(SESSION, None).unwrap_err();
    assert_eq!(class(&error), (Status::SignInRequired, Some("no_session")));
    // Which the same name takes.
    scene.saved(&client, SESSION);
    client.access_token(SESSION, None).unwrap();
    assert_eq!(scene.requests(), 2);
}

#[test]
fn a_server_that_may_forget_is_told_of_in_the_events() {
    let redis = Redis::with(&["appendonly=yes", "maxmemory=100mb", "maxmemory-policy=allkeys-lru"]);
    let scene = Scene::new(strict());
    let client = scene.signed_in(on(&redis.url(), json!({})));
    client.access_token(SESSION, None).unwrap();
    let warnings = client.events_of("store_warning");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (warning, word) in warnings.iter().zip(["appendfsync everysec", "allkeys-lru"]) {
        assert_eq!(warning["reason"], "store_not_durable");
        assert!(warning["message"].as_str().unwrap().contains(word), "{warning}");
        assert!(!warning.to_string().contains("canary"));
    }
}
