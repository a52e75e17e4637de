use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::*;
use crate::Status;
use crate::store::servers::{self, Certificates, Proxy, Redis, SAFE, certificates};
use crate::store::suite::{keeps_the_contract, key, record, says_when_an_outcome_is_unknown};

fn keys(seed: u8) -> Keys {
    Keys::new(&[[seed; 32]]).unwrap()
}

fn store(url: &str) -> Arc<dyn Store> {
    open(&Secret::new(url), keys(1), false).unwrap()
}

/// What it says when it refuses.
fn refusal(url: &str) -> String {
    let error = store(url).load(&key("a")).unwrap_err();
    assert_eq!(error.status, Status::Store);
    assert!(!error.message.contains("canary") && !error.message.contains('\n'), "{error}");
    error.message.clone()
}

fn is_back(store: &dyn Store) -> Option<Record> {
    let mut found = None;
    servers::wait_until("the store", || {
        found = store.load(&key("a")).ok();
        found.is_some()
    });
    found.unwrap().0
}

#[test]
fn it_keeps_the_contract() {
    let redis = Redis::start();
    let first = store(&redis.url());
    keeps_the_contract(&*first);

    // Parties are strangers to each other.
    let second = store(&redis.url());
    assert_eq!(second.life_of(&first.owner().unwrap()), Life::Unknown);
    assert!(second.load(&key("raced")).unwrap().0.is_some());
    assert!(second.warnings(0).is_empty(), "{:?}", second.warnings(0));

    // Nothing expires, all keys of a namespace are in one slot of a cluster, and no dump holds a secret.
    let names = redis.cli(&["KEYS", "*"]);
    let slots: std::collections::HashSet<_> = names
        .lines()
        .filter(|name| name.contains(&Place::of(&key("").namespace).0))
        .map(|name| {
            assert_eq!(redis.cli(&["TTL", name]), "-1", "{name}");
            name.split_once('}').unwrap().0.to_owned()
        })
        .collect();
    assert_eq!(slots.len(), 1, "{names}");
    let row = redis.cli(&["HGETALL", &Place::of(&key("").namespace).session("raced")]);
    assert!(row.contains("active") && !row.contains("canary"), "{row}");
}

#[test]
fn a_page_goes_on_where_sessions_have_gone() {
    let redis = Redis::start();
    let store = store(&redis.url());
    for name in ["a", "b", "c", "d"] {
        assert!(store.compare_and_swap(&key(name), None, &record(1)).unwrap());
    }
    let place = Place::of(&key("").namespace);
    for name in ["b", "c"] {
        redis.cli(&["DEL", &place.session(name)]);
    }
    let page = store.list(&key("").namespace, None, 2).unwrap();
    assert_eq!(page.iter().map(|row| &*row.session).collect::<Vec<_>>(), ["a", "d"]);
    // What lists them follows a forgotten one, and one that comes back.
    assert!(store.delete(&key("a"), 1).unwrap());
    assert_eq!(redis.cli(&["ZRANGE", &place.names(), "0", "-1"]), "b\nc\nd");
}

#[test]
fn a_lost_reply_is_an_unknown_outcome() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port);
    let store = store(&Redis::url_of(&[proxy.port]));
    says_when_an_outcome_is_unknown(&*store, &|| proxy.lose_next_reply());
}

#[test]
fn a_cut_connection_costs_a_reader_nothing() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port);
    let store = store(&Redis::url_of(&[proxy.port]));
    assert!(store.compare_and_swap(&key("a"), None, &record(1)).unwrap());
    proxy.cut();
    assert_eq!(store.load(&key("a")).unwrap().0, Some(record(1)));
    // An administrator ends it.
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    assert_eq!(store.load(&key("a")).unwrap().0, Some(record(1)));
}

#[test]
fn what_was_said_to_be_written_outlives_a_crash_of_the_server() {
    let redis = Redis::start();
    let store = store(&redis.url());
    assert!(store.compare_and_swap(&key("a"), None, &record(1)).unwrap());
    let mut version = 1;
    for _ in 0..5 {
        for _ in 0..20 {
            assert!(store.compare_and_swap(&key("a"), Some(version), &record(version + 1)).unwrap());
            version += 1;
        }
        redis.stop(Signal::KILL);
        let error = store.load(&key("a")).unwrap_err();
        assert!(error.message.contains(&format!("127.0.0.1:{}/0", redis.port)), "{error}");
        assert!(error.retry_after_ms.is_some() && !error.message.contains("canary"), "{error}");
        redis.resume(&SAFE);
        assert_eq!(is_back(&*store), Some(record(version)));
    }
    assert!(store.warnings(0).is_empty());
}

#[test]
fn a_server_that_may_forget_is_warned_of() {
    let warnings = |settings: &[&str]| {
        let redis = Redis::with(settings);
        let store = store(&redis.url());
        assert!(store.warnings(0).is_empty(), "nothing is connected yet");
        store.load(&key("a")).unwrap();
        for warning in store.warnings(0) {
            assert_eq!(warning.reason, "store_not_durable");
            assert!(warning.message.contains(&redis.port.to_string()) && !warning.message.contains("canary"));
        }
        assert!(store.warnings(1).is_empty() || settings.len() > 2);
        store.warnings(0).into_iter().map(|warning| warning.message).collect::<String>()
    };
    assert!(warnings(&[]).contains("nothing on a disk"));
    assert!(warnings(&["save=3600 1"]).contains("snapshots only"));
    assert!(warnings(&["appendonly=yes"]).contains("two seconds"));
    let evicting = warnings(&[&SAFE[..], &["maxmemory=100mb", "maxmemory-policy=allkeys-lru"]].concat());
    assert!(evicting.contains("deletes sessions") && !evicting.contains("a disk"), "{evicting}");
    assert_eq!(warnings(&[&SAFE[..], &["maxmemory=100mb"]].concat()), "");
    // Where an administrator has hidden the settings.
    assert!(warnings(&[&SAFE[..], &["rename-command=CONFIG CFG"]].concat()).contains("does not show its setting"));
}

#[test]
fn what_it_cannot_do_is_said_without_a_secret() {
    let redis = Redis::start();
    let url = redis.url();
    let message = refusal(&url.replace("canary", "canary2"));
    assert!(message.contains("password is wrong"), "{message}");
    assert!(refusal(&format!("redis://127.0.0.1:{}", redis.port)).contains("password is wrong, or missing"));
    assert!(refusal(&url.replace(&redis.port.to_string(), "1")).contains("127.0.0.1:1/0"));
    assert!(refusal(&url.replace("127.0.0.1", "no-such-host.invalid")).contains("cannot be resolved"));
    assert!(refusal(&url.replace("redis:", "rediss:")).contains("cannot be"));
    assert!(refusal(&url.replace("/0", "/99")).contains("no such database"));

    // A user that may do exactly what the message says.
    redis.cli(&["ACL", "SETUSER", "guest", "on", ">canary", "~evergrant:*", "+ping"]);
    let guest = format!("redis://guest:canary@127.0.0.1:{}", redis.port);
    let message = refusal(&guest);
    assert!(message.contains("grant it"), "{message}");
    let rights = message.split_once("grant it ").unwrap().1.split_once(", and").unwrap().0;
    redis.cli(&[&["ACL", "SETUSER", "guest"], &rights.split(' ').collect::<Vec<_>>()[..]].concat());
    let poor = store(&guest);
    keeps_the_contract(&*poor);
    assert!(poor.warnings(0)[0].message.contains("does not show whether"), "{:?}", poor.warnings(0));
    redis.cli(&["ACL", "SETUSER", "guest", "+info", "+wait", "+config|get"]);
    let rich = store(&guest);
    assert!(rich.load(&key("raced")).unwrap().0.is_some());
    assert!(rich.warnings(0).is_empty(), "{:?}", rich.warnings(0));

    // Databases are apart.
    let other = store(&url.replace("/0", "/7"));
    assert!(other.load(&key("raced")).unwrap().0.is_none());
    assert!(other.compare_and_swap(&key("a"), None, &record(1)).unwrap());
    assert_eq!(redis.cli(&["-n", "7", "DBSIZE"]), "2");

    let other = open(&Secret::new(&*url), keys(2), false).unwrap();
    let error = other.load(&key("raced")).unwrap_err();
    assert!(error.message.contains("another encryption key"), "{error}");

    let reader = open(&Secret::new(&*url), keys(1), true).unwrap();
    assert!(reader.load(&key("raced")).unwrap().0.is_some());
    let error = reader.compare_and_swap(&key("a"), None, &record(2)).unwrap_err();
    assert!(error.message.contains("renews: false"), "{error}");

    let place = Place::of(&key("").namespace);
    let first = store(&url);
    assert!(first.compare_and_swap(&key("a"), None, &record(1)).unwrap());
    redis.cli(&["HSET", &place.session("a"), "state", "ended"]);
    assert!(refusal(&url).contains("damaged"));
    redis.cli(&["HDEL", &place.session("a"), "sealed"]);
    assert!(refusal(&url).contains("not what evergrant writes"));
    redis.cli(&["SET", &place.session("a"), "canary"]);
    assert!(refusal(&url).contains("another program"));
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = first.compare_and_swap(&key("full"), None, &record(1)).unwrap_err();
    assert!(error.message.contains("memory is full") && !error.message.contains("canary"), "{error}");
}

#[test]
fn a_silent_server_is_given_up_once_and_then_left_alone() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port);
    let store = store(&Redis::url_of(&[proxy.port]));
    assert!(store.compare_and_swap(&key("a"), None, &record(1)).unwrap());
    proxy.fall_silent();
    let error = store.load(&key("a")).unwrap_err();
    assert!(error.message.contains("no answer in time"), "{error}");
    let before = proxy.connections();
    for _ in 0..100 {
        assert!(store.load(&key("a")).unwrap_err().retry_after_ms.is_some());
    }
    assert!(proxy.connections() <= before + 1, "one look at a time");
    proxy.heal();
    assert_eq!(is_back(&*store), Some(record(1)));
}

#[test]
fn a_write_that_is_held_up_is_of_unknown_outcome() {
    let redis = Redis::start();
    let store = store(&redis.url());
    assert!(store.compare_and_swap(&key("a"), None, &record(1)).unwrap());
    redis.cli(&["CLIENT", "PAUSE", "6000", "WRITE"]);
    let error = store.compare_and_swap(&key("a"), Some(1), &record(2)).unwrap_err();
    assert!(error.message.contains("no answer in time"), "{error}");
    // Whether the server still takes it or not, the record tells.
    servers::wait_until("the end of the pause", || match store.load(&key("a")) {
        Ok((Some(found), _)) if found.version == 2 => true,
        _ => store.compare_and_swap(&key("a"), Some(1), &record(2)).unwrap_or(false),
    });
    assert!(!store.compare_and_swap(&key("a"), Some(1), &record(2)).unwrap());
}

#[test]
fn tls_is_with_whom_a_trusted_root_has_signed_for() {
    let [ca, other_ca] = [(); 2].map(|()| certificates());
    let redis = Redis::start();
    redis.stop(Signal::TERM);
    let certificate = redis.add_file("server.crt", &ca.server);
    let private_key = redis.add_file("server.key", &ca.server_key);
    let tls_port = servers::free_port();
    let tls = [
        format!("tls-port={tls_port}"),
        format!("tls-cert-file={}", certificate.display()),
        format!("tls-key-file={}", private_key.display()),
        "tls-auth-clients=no".to_owned(),
    ];
    redis.resume(&SAFE.into_iter().chain(tls.iter().map(String::as_str)).collect::<Vec<_>>());
    let url = |host: &str, parameters: &str| {
        let plain = Redis::url_of(&[tls_port]);
        format!("{}?{parameters}", plain.replace("redis:", "rediss:").replace("127.0.0.1", host))
    };
    let root = |ca: &Certificates| format!("ssl_ca_certs={}", ca.file.path().display());
    keeps_the_contract(&*store(&url("localhost", &root(&ca))));
    for refused in [
        url("127.0.0.1", &root(&ca)),
        url("localhost", &root(&other_ca)),
        url("localhost", ""),
        url("localhost", "ssl_ca_certs=/nowhere"),
    ] {
        let message = refusal(&refused);
        assert!(message.contains("TLS") && message.contains("ssl_ca_certs"), "{refused}: {message}");
    }
}

#[test]
fn the_master_is_found_among_several_hosts_and_after_a_failover() {
    let master = Redis::start();
    let replica = Redis::replica_of(&master);
    let several = store(&Redis::url_of(&[1, replica.port, master.port]));
    assert!(several.compare_and_swap(&key("a"), None, &record(1)).unwrap());
    assert!(refusal(&replica.url()).contains("it is a replica"));

    let place = Place::of(&key("").namespace);

    // A planned failover, with the connection still there: the write goes to the new master.
    let replicated = format!("127.0.0.1 {}", replica.port);
    assert_eq!(replica.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    master.cli(&["REPLICAOF", "127.0.0.1", replicated.split(' ').next_back().unwrap()]);
    assert!(several.compare_and_swap(&key("a"), Some(1), &record(2)).unwrap());
    assert_eq!(replica.cli(&["HGET", &place.session("a"), "version"]), "2");

    // One that crashes: the other is found.
    servers::wait_until("the replica", || master.cli(&["INFO", "replication"]).contains("master_link_status:up"));
    replica.stop(Signal::KILL);
    master.cli(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(is_back(&*several), Some(record(2)));
}

#[test]
fn a_write_is_with_a_replica_when_it_is_done() {
    let master = Redis::start();
    let replica = Redis::replica_of(&master);
    let place = Place::of(&key("").namespace);
    // Where the machine is too busy for the replica, there is a warning; not each time.
    for version in 1_i64.. {
        let store = store(&master.url());
        store.load(&key("a")).unwrap();
        let expected = Some(version - 1).filter(|version| *version > 0);
        let follows = AtomicBool::new(false);
        replica.signal(Signal::STOP);
        let written = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(100));
                follows.store(true, Ordering::SeqCst);
                replica.signal(Signal::CONT);
            });
            let done = store.compare_and_swap(&key("a"), expected, &record(version)).unwrap();
            (done, store.warnings(0).is_empty(), follows.load(Ordering::SeqCst))
        });
        if let (done, true, follows) = written {
            assert!(done && follows, "it waited for the replica");
            assert_eq!(replica.cli(&["HGET", &place.session("a"), "version"]), version.to_string());
            break;
        }
        assert!(version < 50, "{:?}", store.warnings(0));
    }
}

#[test]
fn a_write_is_of_unknown_outcome_if_the_master_dies_before_a_replica_has_it() {
    // Where the machine is too busy to kill it within the time for which a write waits, there is a warning.
    let outcome = (0..50).find_map(|_| {
        let master = Redis::start();
        let replica = Redis::replica_of(&master);
        let place = Place::of(&key("").namespace);
        let store = store(&master.url());
        store.load(&key("a")).unwrap();
        replica.signal(Signal::STOP);
        let outcome = thread::scope(|scope| {
            let writing = scope.spawn(|| store.compare_and_swap(&key("a"), None, &record(1)));
            servers::wait_until("the write", || master.cli(&["HGET", &place.session("a"), "version"]) == "1");
            master.stop(Signal::KILL);
            writing.join().unwrap()
        });
        replica.signal(Signal::CONT);
        store.warnings(0).is_empty().then_some(outcome)
    });
    let error = outcome.expect("one of them in time").unwrap_err();
    assert!(error.message.contains("cannot be reached"), "{error}");
}

#[test]
fn a_replica_that_does_not_follow_is_warned_of() {
    let master = Redis::start();
    let replica = Redis::replica_of(&master);
    let store = store(&master.url());
    replica.signal(Signal::STOP);
    assert!(store.compare_and_swap(&key("a"), None, &record(1)).unwrap(), "it is not waited for for ever");
    replica.signal(Signal::CONT);
    let warning = store.warnings(0).remove(0);
    assert_eq!(warning.reason, "store_not_durable");
    assert!(warning.message.contains("none has confirmed"), "{}", warning.message);
}

#[test]
fn a_cluster_is_followed_to_the_node_that_has_the_keys() {
    let settings = [&SAFE[..], &["cluster-enabled=yes"]].concat();
    let [first, second] = [(); 2].map(|()| Redis::with(&settings));
    first.cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "8191"]);
    second.cli(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]);
    first.cli(&["CLUSTER", "MEET", "127.0.0.1", &second.port.to_string()]);
    for node in [&first, &second] {
        servers::wait_until("the cluster", || {
            let info = node.cli(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
        });
    }
    let store = store(&first.url());
    keeps_the_contract(&*store);
    for number in 0..20 {
        let key = Key { namespace: format!("client {number}").into(), session: "a".into() };
        assert!(store.compare_and_swap(&key, None, &record(1)).unwrap());
        assert_eq!(store.load(&key).unwrap().0, Some(record(1)));
        assert_eq!(store.list(&key.namespace, None, 9).unwrap().len(), 1);
    }
    for node in [&first, &second] {
        assert_ne!(node.cli(&["DBSIZE"]), "0");
    }
}

#[test]
fn connections_are_few() {
    let redis = Redis::start();
    let store = store(&redis.url());
    thread::scope(|scope| {
        for number in 0..32 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..10 {
                    let key = key(&format!("{number} {round}"));
                    assert!(store.compare_and_swap(&key, None, &record(1)).unwrap());
                }
            });
        }
    });
    let connected = redis.cli(&["CLIENT", "LIST", "TYPE", "normal"]).lines().count() - 1;
    assert!((1..=4).contains(&connected), "{connected}");
    thread::sleep(Duration::from_millis(300));
    assert!(store.load(&key("0 0")).unwrap().0.is_some());
}
