//! What every store must do. Each store's tests run all of it, unchanged.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{Life, Store};
use crate::clock;
use crate::secret::Secret;
use crate::session::record::{Id, Key, Known, Owner, Record, Secrets, State};
use crate::token::{Expiry, Life as TokenLife};

pub fn key(session: &str) -> Key {
    Key { namespace: "https://login.example.com/token client".into(), session: session.into() }
}

pub fn record(version: i64) -> Record {
    Record {
        version,
        grant: Id(7),
        generation: 3,
        state: State::Active,
        reason: None,
        life: Some(TokenLife { from_ms: 1, until_ms: Some(1_700_000_000_000), expiry: Expiry::Known }),
        renewed_at_ms: 1,
        made_by: None,
        attempt: None,
        back_off: None,
        known: Known::default(),
        history: Vec::new(),
        signature_mismatch: false,
        moved: None,
        arrived: Vec::new(),
        delete_after_ms: None,
        others: Default::default(),
        secrets: Secrets {
            refresh_token: Some(Secret::new("refresh-canary")),
            access_token: Some(Secret::new("access-canary")),
            members: Some(Secret::new(r#"{"access_token":"access-canary","id":"https://x/\"y\""}"#)),
            spare: Some(Secret::new("spare-canary")),
            to_revoke: vec![Secret::new("revoke-canary")],
            fingerprint_key: Secret::new("fingerprint-canary"),
            others: Default::default(),
        },
    }
}

/// `store` is empty.
pub fn keeps_the_contract(store: &dyn Store) {
    tells_the_time(store);
    swaps_and_lists(store);
    lets_one_of_many_win(store);

    let owner = store.owner().unwrap();
    assert_eq!(store.life_of(&owner), Life::Alive);
    assert_eq!(store.life_of(&Owner { handle: Id(1), ..owner }), Life::Unknown);
}

fn tells_the_time(store: &dyn Store) {
    let (found, now) = store.load(&key("a")).unwrap();
    assert!(found.is_none());
    let ms = if store.is_local() {
        assert_eq!(now.clock, crate::host::boot_id());
        clock::monotonic_ms()
    } else {
        assert_eq!(now.clock, "unix");
        clock::wall_ms()
    };
    assert!((now.ms - ms).abs() < 60_000, "{} is not about {ms}", now.ms);
    assert!(store.load(&key("a")).unwrap().1.ms >= now.ms);
}

fn swaps_and_lists(store: &dyn Store) {
    assert!(!store.compare_and_swap(&key("a"), Some(1), &record(2)).unwrap(), "no record");
    assert!(store.compare_and_swap(&key("a"), None, &record(5)).unwrap());
    assert!(!store.compare_and_swap(&key("a"), None, &record(6)).unwrap(), "there is one");
    assert!(!store.compare_and_swap(&key("a"), Some(4), &record(6)).unwrap(), "another version");
    assert_eq!(store.load(&key("a")).unwrap().0, Some(record(5)));
    assert!(store.compare_and_swap(&key("a"), Some(5), &record(6)).unwrap());
    assert_eq!(store.load(&key("a")).unwrap().0, Some(record(6)));
    let largest = i64::MAX - 1;
    assert!(store.compare_and_swap(&key("a"), Some(6), &record(largest)).unwrap());
    assert_eq!(store.load(&key("a")).unwrap().0, Some(record(largest)));
    assert!(store.compare_and_swap(&key("a"), Some(largest), &record(6)).unwrap());

    for (version, session) in ["B", "é", "ab", "a%_'\"\\*?[b]{c}:", "\u{10000}"].into_iter().enumerate() {
        assert!(store.compare_and_swap(&key(session), None, &record(version as i64)).unwrap());
        assert_eq!(store.load(&key(session)).unwrap().0, Some(record(version as i64)));
    }
    let forgotten = Record { state: State::Forgotten, life: None, ..record(1) };
    assert!(store.compare_and_swap(&key("gone"), None, &forgotten).unwrap());
    let other = Key { namespace: "other".into(), session: "a".into() };
    assert!(store.compare_and_swap(&other, None, &record(1)).unwrap());
    let names = |after, limit| {
        let listed = store.list(&key("a").namespace, after, limit).unwrap();
        listed.into_iter().map(|row| row.session).collect::<Vec<_>>()
    };
    assert_eq!(names(None, 9), ["B", "a", "a%_'\"\\*?[b]{c}:", "ab", "é", "\u{10000}"]);
    assert_eq!(names(None, 2), ["B", "a"]);
    assert_eq!(names(Some("a%"), 2), ["a%_'\"\\*?[b]{c}:", "ab"]);
    assert_eq!(names(Some("\u{10000}"), 2), [""; 0]);
    let first = store.list("other", None, 1).unwrap().remove(0);
    assert_eq!((first.version, first.state, first.expires_at_ms), (1, State::Active, Some(1_700_000_000_000)));

    assert!(!store.delete(&key("a"), 5).unwrap());
    assert!(store.delete(&key("a"), 6).unwrap());
    assert!(!store.delete(&key("a"), 6).unwrap());
    assert!(store.load(&key("a")).unwrap().0.is_none());
}

fn lets_one_of_many_win(store: &dyn Store) {
    const THREADS: usize = 8;
    const ROUNDS: i64 = 10;
    for round in 0..ROUNDS {
        let wins = AtomicUsize::new(0);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let wins = &wins;
                scope.spawn(move || {
                    let mine = Record { generation: thread as u64, ..record(round + 1) };
                    let expected = (round > 0).then_some(round);
                    if store.compare_and_swap(&key("raced"), expected, &mine).unwrap() {
                        wins.fetch_add(1, Ordering::Relaxed);
                        assert_eq!(store.load(&key("raced")).unwrap().0, Some(mine), "who wins is what is there");
                    }
                });
            }
        });
        assert_eq!(wins.into_inner(), 1, "round {round}");
    }
}

/// For stores behind a network: `lose_reply` has the next write done and its answer lost.
#[cfg(any(feature = "postgres", feature = "redis"))]
#[allow(dead_code)] // Until all of them use it.
pub fn says_when_an_outcome_is_unknown(store: &dyn Store, lose_reply: &dyn Fn()) {
    assert!(store.compare_and_swap(&key("lost"), None, &record(1)).unwrap());
    lose_reply();
    let error = store.compare_and_swap(&key("lost"), Some(1), &record(2)).unwrap_err();
    assert_eq!(error.status, crate::Status::Store, "{error}");
    assert!(!error.message.contains("canary"), "{error}");
    // It was written, the store can be used again, and the same write does not happen twice.
    assert_eq!(store.load(&key("lost")).unwrap().0, Some(record(2)));
    assert!(!store.compare_and_swap(&key("lost"), Some(1), &record(2)).unwrap());
}
