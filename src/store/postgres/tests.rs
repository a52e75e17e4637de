use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::*;
use crate::Status;
use crate::session::record::{Attempt, Record};
use crate::store::servers::{self, Certificates, PgBouncer, Postgres, Proxy, certificates, wait_until};
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

#[test]
fn it_keeps_the_contract() {
    let postgres = Postgres::shared();
    let database = postgres.database();
    let first = store(&postgres.url(&database));
    keeps_the_contract(&*first);

    // Parties are strangers to each other, and one of them may have made the tables before.
    let second = store(&postgres.url(&database));
    assert_eq!(second.life_of(&first.owner().unwrap()), Life::Unknown);
    assert!(second.load(&key("raced")).unwrap().0.is_some());
    assert!(second.warnings(0).is_empty(), "{:?}", second.warnings(0));

    // A dump holds no secret.
    let dump = postgres.psql(&database, "SELECT * FROM evergrant_session").unwrap();
    assert!(dump.contains("raced") && !dump.contains("canary"), "{dump}");
}

#[test]
fn it_keeps_the_contract_through_a_pooler_of_transactions() {
    let postgres = Postgres::shared();
    let pooler = PgBouncer::before(&postgres);
    let database = postgres.database();
    let store = store(&servers::url(pooler.port, &database));
    keeps_the_contract(&*store);
}

#[test]
fn it_keeps_the_contract_where_transactions_are_isolated_strictly() {
    let postgres = Postgres::shared();
    let database = postgres.database();
    let strict = "ALTER DATABASE {} SET default_transaction_isolation = 'serializable'".replace("{}", &database);
    postgres.psql("postgres", &strict).unwrap();
    keeps_the_contract(&*store(&postgres.url(&database)));
}

#[test]
fn a_schema_of_its_own_can_be_named() {
    let postgres = Postgres::shared();
    let database = postgres.database();
    postgres.psql(&database, "CREATE SCHEMA tokens").unwrap();
    let store = store(&format!("{}?options=-c%20search_path%3Dtokens", postgres.url(&database)));
    assert!(store.compare_and_swap(&key("a"), None, &record(1)).unwrap());
    assert_eq!(postgres.psql(&database, "SELECT session FROM tokens.evergrant_session").unwrap(), "a");
}

#[test]
fn many_that_come_first_make_the_tables_once() {
    let postgres = Postgres::shared();
    let url = postgres.url(&postgres.database());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(store(&url).load(&key("a")).unwrap().0.is_none()));
        }
    });
}

#[test]
fn a_lost_reply_is_an_unknown_outcome() {
    let postgres = Postgres::shared();
    let proxy = Proxy::to(postgres.port);
    let store = store(&servers::url(proxy.port, &postgres.database()));
    says_when_an_outcome_is_unknown(&*store, &|| proxy.lose_next_reply());
}

#[test]
fn a_cut_connection_costs_a_reader_nothing() {
    let postgres = Postgres::shared();
    let proxy = Proxy::to(postgres.port);
    let database = postgres.database();
    let store = store(&servers::url(proxy.port, &database));
    assert!(store.compare_and_swap(&key("a"), None, &record(1)).unwrap());
    proxy.cut();
    assert_eq!(store.load(&key("a")).unwrap().0, Some(record(1)));
    // An administrator ends it.
    postgres.end_connections(&database);
    assert_eq!(store.load(&key("a")).unwrap().0, Some(record(1)));
}

#[test]
fn what_was_said_to_be_written_outlives_a_crash_of_the_server() {
    let postgres = Postgres::start();
    let database = postgres.database();
    // A database that forgets what it has just committed: not with us.
    postgres.psql("postgres", &format!("ALTER DATABASE {database} SET synchronous_commit = off")).unwrap();
    let store = store(&postgres.url(&database));
    assert!(store.compare_and_swap(&key("a"), None, &record(1)).unwrap());
    let mut version = 1;
    for _ in 0..5 {
        for _ in 0..20 {
            assert!(store.compare_and_swap(&key("a"), Some(version), &record(version + 1)).unwrap());
            version += 1;
        }
        postgres.stop(Signal::QUIT);
        let error = store.load(&key("a")).unwrap_err();
        assert!(error.message.contains(&format!("127.0.0.1:{}/{database}", postgres.port)), "{error}");
        assert!(error.retry_after_ms.is_some() && !error.message.contains("canary"), "{error}");
        postgres.resume(&[]);
        let mut found = None;
        servers::wait_until("the store", || {
            found = store.load(&key("a")).ok();
            found.is_some()
        });
        assert_eq!(found.unwrap().0, Some(record(version)));
    }
}

#[test]
fn a_server_that_may_forget_is_warned_of() {
    let postgres = Postgres::start();
    let url = postgres.url(&postgres.database());
    postgres.stop(Signal::INT);
    postgres.resume(&["fsync=off"]);
    let store = store(&url);
    assert!(store.warnings(0).is_empty(), "nothing is connected yet");
    store.load(&key("a")).unwrap();
    let warning = store.warnings(0).remove(0);
    assert_eq!(warning.reason, "store_not_durable");
    assert!(warning.message.contains("fsync") && !warning.message.contains("canary"), "{}", warning.message);
    assert!(store.warnings(1).is_empty());
}

#[test]
fn what_it_cannot_do_is_said_without_a_secret() {
    let postgres = Postgres::shared();
    let database = postgres.database();
    let url = postgres.url(&database);
    assert!(refusal(&url.replace("canary", "canary2")).contains("password is wrong"));
    assert!(refusal(&postgres.url("nowhere")).contains("no such database"));
    assert!(refusal(&url.replace(&postgres.port.to_string(), "1")).contains("127.0.0.1:1"));
    assert!(refusal(&url.replace("127.0.0.1", "no-such-host.invalid")).contains("cannot be resolved"));
    assert!(refusal(&format!("{url}?sslmode=require")).contains("TLS"));

    // A user that may not make tables is told what to have done, and then works.
    let admin = |sql: &str| postgres.psql(&database, sql).unwrap();
    admin("CREATE ROLE guest LOGIN PASSWORD 'canary'");
    admin("REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let guest = format!("postgres://guest:canary@127.0.0.1:{}/{database}", postgres.port);
    let message = refusal(&guest);
    assert!(message.contains("docs/postgres.sql") && message.contains("may not create"), "{message}");
    admin(include_str!("../../../docs/postgres.sql"));
    assert!(refusal(&guest).contains("grant what it says"));
    admin("GRANT SELECT, INSERT, UPDATE, DELETE ON evergrant_session TO guest");
    admin("GRANT SELECT ON evergrant_meta TO guest");
    assert!(store(&guest).compare_and_swap(&key("a"), None, &record(1)).unwrap());

    let other = open(&Secret::new(&url), keys(2), false).unwrap();
    let error = other.load(&key("a")).unwrap_err();
    assert!(error.message.contains("another encryption key"), "{error}");

    let reader = open(&Secret::new(&url), keys(1), true).unwrap();
    assert_eq!(reader.load(&key("a")).unwrap().0, Some(record(1)));
    let error = reader.compare_and_swap(&key("a"), Some(1), &record(2)).unwrap_err();
    assert!(error.message.contains("renews: false"), "{error}");
    let empty = open(&Secret::new(postgres.url(&postgres.database())), keys(1), true).unwrap();
    assert!(empty.load(&key("a")).unwrap_err().message.contains("a client that renews"));

    admin("UPDATE evergrant_session SET state = 'ended'");
    assert!(refusal(&url).contains("damaged"));
    admin("UPDATE evergrant_meta SET value = '2.0'");
    let message = refusal(&url);
    assert!(message.contains("2.0") && message.contains("upgrade"), "{message}");
}

#[test]
fn tables_that_are_gone_are_not_made_under_a_running_process() {
    let postgres = Postgres::shared();
    let database = postgres.database();
    let store = store(&postgres.url(&database));
    store.load(&key("a")).unwrap();
    postgres.psql(&database, "DROP TABLE evergrant_session, evergrant_meta").unwrap();
    assert!(store.load(&key("a")).unwrap_err().message.contains("tables are gone"));
}

#[test]
fn a_silent_server_is_given_up_once_and_then_left_alone() {
    let postgres = Postgres::shared();
    let proxy = Proxy::to(postgres.port);
    let store = store(&servers::url(proxy.port, &postgres.database()));
    store.load(&key("a")).unwrap();
    proxy.fall_silent();
    let error = store.load(&key("a")).unwrap_err();
    assert!(error.message.contains("no answer in time"), "{error}");
    let before = proxy.connections();
    for _ in 0..100 {
        assert!(store.load(&key("a")).unwrap_err().retry_after_ms.is_some());
    }
    assert!(proxy.connections() <= before + 1, "one look at a time");
    proxy.heal();
    servers::wait_until("the store", || store.load(&key("a")).is_ok());
}

#[test]
fn tls_is_what_sslmode_says() {
    let postgres = Postgres::start();
    let database = postgres.database();
    let [ca, other_ca] = [(); 2].map(|()| certificates());
    postgres.stop(Signal::INT);
    let certificate = postgres.add_file("server.crt", &ca.server);
    let private_key = postgres.add_file("server.key", &ca.server_key);
    let (certificate, private_key) =
        (format!("ssl_cert_file={}", certificate.display()), format!("ssl_key_file={}", private_key.display()));
    postgres.resume(&["ssl=on", &certificate, &private_key]);
    let url =
        |host: &str, parameters: &str| format!("{}?{parameters}", postgres.url(&database).replace("127.0.0.1", host));
    let works = |url: &str| {
        let sql = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'evergrant'";
        let store = store(url);
        assert!(store.load(&key("a")).is_ok(), "{:?}", store.load(&key("a")).err());
        let ssl = postgres.psql(&database, sql).unwrap();
        drop(store);
        servers::wait_until("the connection's end", || postgres.psql(&database, sql).unwrap().is_empty());
        ssl
    };
    let root = |ca: &Certificates| format!("sslrootcert={}", ca.file.path().display());
    assert_eq!(works(&url("localhost", "sslmode=disable")), "f");
    assert_eq!(works(&url("localhost", "")), "t");
    assert_eq!(works(&url("localhost", "sslmode=require")), "t");
    assert_eq!(works(&url("localhost", &format!("sslmode=verify-full&{}", root(&ca)))), "t");
    assert_eq!(works(&url("127.0.0.1", &format!("sslmode=verify-ca&{}", root(&ca)))), "t");
    for refused in [
        url("127.0.0.1", &format!("sslmode=verify-full&{}", root(&ca))),
        url("localhost", &format!("sslmode=verify-full&{}", root(&other_ca))),
        url("localhost", &format!("sslmode=verify-ca&{}", root(&other_ca))),
        url("localhost", &format!("sslmode=require&{}", root(&other_ca))),
        url("localhost", "sslmode=verify-full"),
        url("localhost", "sslmode=verify-full&sslrootcert=/nowhere"),
    ] {
        let message = refusal(&refused);
        assert!(message.contains("TLS") && message.contains("sslrootcert"), "{refused}: {message}");
    }
}

#[test]
fn several_hosts_find_the_one_that_answers() {
    let postgres = Postgres::shared();
    let database = postgres.database();
    let hosts = format!("127.0.0.1:1,no-such-host.invalid:5432,127.0.0.1:{}", postgres.port);
    let url = postgres.url(&database).replace(&format!("127.0.0.1:{}", postgres.port), &hosts);
    let several = store(&url);
    assert!(several.compare_and_swap(&key("a"), None, &record(1)).unwrap());
    // What cannot be written is not the one that is meant.
    postgres.psql("postgres", &format!("ALTER DATABASE {database} SET default_transaction_read_only = on")).unwrap();
    let error = store(&url).load(&key("a")).unwrap_err();
    assert!(error.retry_after_ms.is_some(), "{error}");
    let single = store(&postgres.url(&database));
    let error = single.compare_and_swap(&key("a"), Some(1), &Record { version: 2, ..record(2) }).unwrap_err();
    assert!(error.message.contains("read-only"), "{error}");
}

#[test]
fn connections_are_few_and_idle_ones_stay_good() {
    let postgres = Postgres::shared();
    let database = postgres.database();
    let store = store(&postgres.url(&database));
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
    let count = postgres.psql(
        &database,
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'evergrant' AND datname = current_database()",
    );
    assert!((1..=4).contains(&count.unwrap().parse::<usize>().unwrap()));
    thread::sleep(Duration::from_millis(300));
    assert!(store.load(&key("0 0")).unwrap().0.is_some());
}

/// Counts how often it is woken.
fn watch(store: &dyn Store, grant: Id) -> (Box<dyn Watch>, Arc<AtomicUsize>) {
    let woken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&woken);
    let wake = move || _ = count.fetch_add(1, Ordering::Relaxed);
    (store.watch(grant, Arc::new(wake)).unwrap(), woken)
}

fn connections(postgres: &Postgres, database: &str) -> String {
    postgres.psql("postgres", &format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'")).unwrap()
}

#[test]
fn who_waits_is_told_when_another_party_has_settled() {
    let postgres = Postgres::shared();
    let database = postgres.database();
    let (ours, theirs) = (store(&postgres.url(&database)), store(&postgres.url(&database)));
    assert!(theirs.compare_and_swap(&key("a"), None, &record(1)).unwrap());
    let (waiting, woken) = watch(&*ours, Id(7));
    let (_other, other_woken) = watch(&*ours, Id(8));
    wait_until("that it listens", || waiting.hears() && woken.load(Ordering::Relaxed) == 1);
    let write = |version, record: Record| assert!(theirs.compare_and_swap(&key("a"), Some(version), &record).unwrap());
    let owner = theirs.owner().unwrap();
    let attempt = Attempt {
        since_ms: 1,
        until_ms: 2,
        id: Id(1),
        generation: 3,
        owner,
        sends: 1,
        doubt: false,
        others: Default::default(),
    };
    write(1, Record { attempt: Some(attempt), ..record(2) });
    write(2, record(3));
    wait_until("the notification", || woken.load(Ordering::Relaxed) > 1);
    // Once for the beginning, once for the result; not for the claim, nor for others.
    assert_eq!((woken.load(Ordering::Relaxed), other_woken.load(Ordering::Relaxed)), (2, 1));
    // A connection that is gone is told of, too, and made anew.
    postgres.end_connections(&database);
    wait_until("that it no longer listens", || !waiting.hears() && woken.load(Ordering::Relaxed) == 3);
    wait_until("that it listens again", || watch(&*ours, Id(9)).0.hears());
    drop((waiting, _other));
    // One each stays in the pools.
    wait_until("the end of the listening", || connections(&postgres, &database) == "2");
}

#[test]
fn who_waits_looks_where_nothing_is_told() {
    let postgres = Postgres::shared();
    let pooler = PgBouncer::before(&postgres);
    let database = postgres.database();
    let url = servers::url(pooler.port, &database);
    let store = store(&url);
    assert!(store.compare_and_swap(&key("a"), None, &record(1)).unwrap());
    let (waiting, _) = watch(&*store, Id(7));
    let probed = "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_notify($1%'";
    wait_until("the probe", || postgres.psql("postgres", probed).unwrap() == "t");
    let until = Instant::now() + Duration::from_secs(7);
    while Instant::now() < until {
        assert!(!waiting.hears());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(store.compare_and_swap(&key("a"), Some(1), &record(2)).unwrap());
}

#[test]
fn who_may_not_notify_writes_all_the_same() {
    let postgres = Postgres::shared();
    let database = postgres.database();
    postgres.psql(&database, "REVOKE EXECUTE ON FUNCTION pg_notify FROM public").unwrap();
    let sql = "CREATE ROLE no_notes LOGIN PASSWORD 'canary'; GRANT CREATE ON SCHEMA public TO no_notes";
    postgres.psql(&database, sql).unwrap();
    let store = store(&format!("postgres://no_notes:canary@127.0.0.1:{}/{database}", postgres.port));
    assert!(store.compare_and_swap(&key("a"), None, &record(1)).unwrap());
    assert!(store.compare_and_swap(&key("a"), Some(1), &record(2)).unwrap());
    let (waiting, _) = watch(&*store, Id(7));
    assert!(!waiting.hears());
}
