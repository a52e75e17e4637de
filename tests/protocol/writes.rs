//! The writes without an exchange: save, sign-out, forget, and what the server has revoked.

use evergrant::Secret;
use evergrant::session::protocol::{
    Fresh, KEPT, TOMBSTONE_MS, Want, expires, forget, revoked, save, settle, sign_in, sign_out,
};
use evergrant::session::record::{Attempt, Binds, Entry, Id, Known, Record, Secrets, State};
use evergrant::token::{Answer, Expiry, Life};
use serde_json::Map;

use crate::parts::*;

const NEW_GRANT: Id = Id(0xc3);

fn saved(record: Option<&Record>, answer: &Answer) -> Option<Record> {
    let fresh = Fresh { version: 4_242, grant: NEW_GRANT, fingerprint_key: secret("fresh key") };
    save(record, answer, fresh, Some(NEW_LIFE), &moment(&now()))
}

fn save_token(record: &Record, token: &str) -> Option<Record> {
    saved(Some(record), &answer(Some(token), Some("at-new")))
}

fn signed_out(record: &Record) -> Record {
    sign_out(Some(record), true, &moment(&now())).expect("a tombstone")
}

fn forgotten(record: &Record) -> Record {
    forget(Some(record), &moment(&now())).expect("a tombstone")
}

/// A Done that makes `token` the next one.
fn renewed(record: &Record, token: &str) -> Record {
    let refresh_token = record.secrets.refresh_token.clone().expect("a refresh token");
    let sent = evergrant::session::protocol::Sent {
        grant: record.grant,
        generation: record.generation,
        refresh_token,
        ..sent(1)
    };
    settle(Some(record), &sent, &done(Some(token), Some("at")), &moment(&now())).expect("a write")
}

#[test]
fn a_new_session() {
    let new = saved(None, &answer(Some("seed"), Some("at-new"))).expect("a write");
    let fingerprint = fingerprint(&new, "seed");
    let expected = Record {
        version: 4_242,
        grant: NEW_GRANT,
        generation: 1,
        state: State::Active,
        reason: None,
        life: Some(NEW_LIFE),
        renewed_at_ms: WALL_MS,
        made_by: None,
        attempt: None,
        back_off: None,
        known: Known { saved: vec![fingerprint.clone()], spent: vec![] },
        history: vec![Entry { refresh_token_fingerprint: Some(fingerprint), ..entry("saved") }.into()],
        signature_mismatch: false,
        moved: None,
        arrived: Vec::new(),
        delete_after_ms: None,
        others: Map::new(),
        secrets: Secrets {
            refresh_token: Some(secret("seed")),
            access_token: Some(secret("at-new")),
            members: Some(answer(Some("seed"), Some("at-new")).members),
            fingerprint_key: secret("fresh key"),
            ..Secrets::default()
        },
    };
    assert_same("saved", Some(&new), Some(&expected));
}

/// In every state of the record: the new grant, generation 1, and nothing of the old one but what must outlive it.
#[test]
fn a_token_that_nobody_knows_is_a_new_sign_in() {
    let claimed = Record { attempt: Some(attempt(THEIRS, G)), ..full_record() };
    let spare = with(claimed.clone(), |record| record.secrets.spare = Some(secret("spare")));
    for before in [record(), claimed, spare, ended("rotation_lost"), signed_out(&full_record())] {
        let next = save_token(&before, "new").expect("a write");
        let expected = with(before.clone(), |record| {
            record.version += 1;
            record.grant = NEW_GRANT;
            record.generation = 1;
            (record.state, record.reason) = (State::Active, None);
            (record.made_by, record.attempt, record.back_off) = (None, None, None);
            record.delete_after_ms = None;
            record.life = Some(NEW_LIFE);
            record.renewed_at_ms = WALL_MS;
            record.signature_mismatch = false;
            record.secrets.spare = None;
            record.secrets.access_token = Some(secret("at-new"));
            record.secrets.members = Some(answer(Some("new"), Some("at-new")).members);
            if record.secrets.refresh_token.replace(secret("new")).is_some() {
                keep(&mut record.known.spent, fingerprint(&before, "rt-5"));
            }
            keep(&mut record.known.saved, fingerprint(&before, "new"));
            let refresh_token_fingerprint = Some(fingerprint(&before, "new"));
            keep(&mut record.history, Entry { refresh_token_fingerprint, ..entry("saved") });
        });
        assert_same(before.state.name(), Some(&next), Some(&expected));
    }
}

fn signed_in(record: Option<&Record>, token: &str) -> Record {
    let fresh = Fresh { version: 4_242, grant: NEW_GRANT, fingerprint_key: secret("fresh key") };
    sign_in(record, &answer(Some(token), Some("at-new")), fresh, Some(NEW_LIFE), &moment(&now())).expect("a write")
}

/// Where the token is new, the server's word and the application's are the same.
#[test]
fn a_sign_in_writes_what_saving_its_token_would() {
    assert_same("none", Some(&signed_in(None, "new")), saved(None, &answer(Some("new"), Some("at-new"))).as_ref());
    for before in [full_record(), ended("rotation_lost"), signed_out(&full_record()), forgotten(&record())] {
        assert_same(before.state.name(), Some(&signed_in(Some(&before), "new")), save_token(&before, "new").as_ref());
    }
}

/// A server may give a user the same tokens again, whatever became of them here.
#[test]
fn a_sign_in_begins_a_session_with_a_token_that_is_known_too() {
    let first = saved(None, &answer(Some("seed"), None)).expect("a write");
    let second = renewed(&first, "rt-2");
    let ended = Record { state: State::Ended, reason: Some("expired_or_revoked".to_owned()), ..second.clone() };
    let out = signed_out(&second);
    assert!(out.secrets.to_revoke.contains(&secret("rt-2")));
    for before in [&first, &second, &ended, &out] {
        for token in ["seed", "rt-2"] {
            let next = signed_in(Some(before), token);
            assert_eq!((next.state, next.grant, next.generation), (State::Active, NEW_GRANT, 1));
            assert_eq!(next.secrets.refresh_token, Some(secret(token)));
            assert!(!next.known.spent.contains(&fingerprint(before, token)), "it is not spent");
            assert!(!next.secrets.to_revoke.contains(&secret(token)), "and not to be revoked");
            assert!(token == "rt-2" || before.secrets.to_revoke == next.secrets.to_revoke, "all else is");
        }
    }
}

/// Programs save the token of their configuration at every start, long after it was spent.
#[test]
fn a_token_that_is_known_changes_nothing() {
    let first = saved(None, &answer(Some("seed"), None)).expect("a write");
    let second = renewed(&first, "rt-2");
    let third = renewed(&second, "rt-3");
    let spare = with(third.clone(), |record| record.secrets.spare = Some(secret("rt-3b")));
    let ended = Record { state: State::Ended, reason: Some("expired_or_revoked".to_owned()), ..third.clone() };
    let out = signed_out(&spare);
    let again = save_token(&out, "other").expect("a new sign-in");
    for (record, known) in [
        (&first, &["seed"][..]),
        (&second, &["seed", "rt-2"]),
        (&third, &["seed", "rt-2", "rt-3"]),
        (&spare, &["seed", "rt-2", "rt-3", "rt-3b"]),
        (&ended, &["seed", "rt-2", "rt-3"]),
        (&out, &["seed", "rt-2", "rt-3", "rt-3b"]),
        (&again, &["seed", "rt-2", "rt-3", "rt-3b", "other"]),
        (&save_token(&again, "third").expect("a new sign-in"), &["seed", "rt-2", "rt-3", "rt-3b", "other", "third"]),
    ] {
        for token in known {
            assert_same(token, save_token(record, token).as_ref(), None);
        }
        assert!(save_token(record, "new").is_some());
    }
}

#[test]
fn sixteen_of_each_are_known() {
    let mut record = saved(None, &answer(Some("saved-0"), None)).expect("a write");
    for n in 1..=20 {
        record = save_token(&record, &format!("saved-{n}")).expect("a new sign-in");
    }
    // Those that were replaced count as spent.
    assert_eq!((record.known.saved.len(), record.known.spent.len()), (KEPT, KEPT));
    assert_same("the oldest of them", save_token(&record, "saved-4").as_ref(), None);
    assert!(save_token(&record, "saved-3").is_some(), "one that is too old is a new sign-in");

    for n in 0..20 {
        record = renewed(&record, &format!("rt-{n}"));
    }
    assert_eq!(record.known.spent.len(), KEPT);
    assert_eq!(record.history.len(), KEPT);
    assert_same("the oldest spent", save_token(&record, "rt-3").as_ref(), None);
    assert!(save_token(&record, "rt-2").is_some(), "one that is too old is a new sign-in");
    assert_same("saved outlives spent", save_token(&record, "saved-20").as_ref(), None);
}

#[test]
fn a_session_without_a_refresh_token() {
    let new = saved(None, &answer(None, Some("at-1"))).expect("a write");
    assert_eq!((new.generation, new.secrets.refresh_token.is_none()), (1, true));
    assert_eq!(new.history.last().and_then(|entry| entry.refresh_token_fingerprint.clone()), None);
    assert_same("the same again", saved(Some(&new), &answer(None, Some("at-1"))).as_ref(), None);
    assert!(saved(Some(&new), &answer(None, Some("at-2"))).is_some());
    assert_same("nothing at all", saved(None, &answer(None, None)).as_ref(), None);
}

#[test]
fn a_life_needs_a_token() {
    let new = saved(None, &answer(Some("seed"), None)).expect("a write");
    assert_eq!((new.life, new.secrets.access_token.is_none()), (None, true));
    assert!(!new.serves(WALL_MS, 0));
}

#[test]
fn signing_out_leaves_a_tombstone_with_the_tokens() {
    let before = with(full_record(), |record| {
        record.attempt = Some(attempt(THEIRS, G));
        record.secrets.spare = Some(secret("spare"));
    });
    for (before, revocable) in [(&before, true), (&before, false), (&ended("inactive_user"), true)] {
        let next = sign_out(Some(before), revocable, &moment(&now()));
        let open_ms = before.attempt.as_ref().map_or(0, |attempt| attempt.until_ms - NOW_MS);
        let expected = with(before.clone(), |record| {
            record.version += 1;
            (record.state, record.reason) = (State::SignedOut, None);
            (record.made_by, record.attempt, record.back_off, record.life) = (None, None, None, None);
            record.delete_after_ms = Some(WALL_MS + open_ms + TOMBSTONE_MS);
            let secrets = &mut record.secrets;
            secrets.members = None;
            let tokens = [secrets.refresh_token.take(), secrets.spare.take(), secrets.access_token.take()];
            if revocable {
                secrets.to_revoke.extend(tokens.into_iter().flatten());
            }
            for token in ["rt-5", "spare"].iter().take(if before.secrets.spare.is_some() { 2 } else { 1 }) {
                keep(&mut record.known.spent, fingerprint(before, token));
            }
            keep(&mut record.history, entry("signed_out"));
        });
        assert_same("signed out", next.as_ref(), Some(&expected));
        assert_same("again", sign_out(next.as_ref(), revocable, &moment(&now())).as_ref(), None);
    }
    assert_same("no session", sign_out(None, true, &moment(&now())).as_ref(), None);
    assert_same("forgotten", sign_out(Some(&forgotten(&before)), true, &moment(&now())).as_ref(), None);
}

#[test]
fn forgetting_wipes_everything_but_the_version() {
    let full = with(full_record(), |record| record.attempt = Some(attempt(THEIRS, G)));
    for before in [full.clone(), ended("rotation_lost"), signed_out(&full_record())] {
        let next = forgotten(&before);
        let open_ms = before.attempt.as_ref().map_or(0, |attempt| attempt.until_ms - NOW_MS);
        let expected = Record {
            version: before.version + 1,
            state: State::Forgotten,
            reason: None,
            life: None,
            made_by: None,
            attempt: None,
            back_off: None,
            known: Known::default(),
            history: vec![],
            others: Map::new(),
            delete_after_ms: Some(WALL_MS + open_ms + TOMBSTONE_MS),
            secrets: Secrets::default(),
            ..before
        };
        assert_same("forgotten", Some(&next), Some(&expected));
        assert_same("again", forget(Some(&next), &moment(&now())).as_ref(), None);

        // The same tokens are new to it, under a key of its own; versions never come twice.
        for token in ["seed", "rt-5"] {
            let again = save_token(&next, token).expect("a new sign-in");
            let new = saved(None, &answer(Some(token), Some("at-new")))
                .map(|new| Record { version: next.version + 1, ..new });
            assert_same(
                "saved again",
                Some(&again),
                new.map(|new| Record { signature_mismatch: false, ..new }).as_ref(),
            );
        }
    }
    assert_same("no session", forget(None, &moment(&now())).as_ref(), None);
}

/// A deadline that has passed already does not shorten a tombstone's life.
#[test]
fn tombstones_outlive_every_attempt_by_a_day() {
    for (until_ms, open_ms) in [(NOW_MS + 90_000, 90_000), (NOW_MS, 0), (NOW_MS - 90_000, 0), (0, 0)] {
        let before = Record { attempt: Some(Attempt { until_ms, ..attempt(THEIRS, G) }), ..record() };
        for tombstone in [signed_out(&before), forgotten(&before)] {
            assert_eq!(tombstone.delete_after_ms, Some(WALL_MS + open_ms + 24 * 60 * 60 * 1000));
        }
    }
}

#[test]
fn confirmed_tokens_are_no_longer_revoked() {
    let out = signed_out(&full_record());
    let waiting = |record: &Record| -> Vec<String> {
        record.secrets.to_revoke.iter().map(|token| token.expose().to_owned()).collect()
    };
    assert_eq!(waiting(&out), ["old grant's", "rt-5", "at-5"]);
    let next = revoked(Some(&out), &secret("rt-5")).expect("a write");
    let expected = with(out.clone(), |record| {
        record.version += 1;
        record.secrets.to_revoke = vec![secret("old grant's"), secret("at-5")];
    });
    assert_same("revoked", Some(&next), Some(&expected));
    assert_same("again", revoked(Some(&next), &secret("rt-5")).as_ref(), None);
    assert_same("no record", revoked(None, &secret("rt-5")).as_ref(), None);

    // A new sign-in keeps what is left, whoever finishes it.
    let again = save_token(&out, "new").expect("a new sign-in");
    assert_eq!(waiting(&again), waiting(&out));
    assert!(revoked(Some(&again), &secret("at-5")).is_some());
}

/// What a party still holds when its session was left goes to the server, not into the next session.
#[test]
fn a_late_answer_never_reaches_the_next_session() {
    let before = Record { attempt: Some(attempt(MINE, G)), ..record() };
    let late = done(Some("late"), Some("at-late"));
    let settle = |record: &Record| settle(Some(record), &sent(1), &late, &moment(&now()));
    let out = signed_out(&before);
    let next = save_token(&out, "new").expect("a new sign-in");
    for left in [&out, &next] {
        let settled = settle(left).expect("a write");
        assert!(settled.secrets.to_revoke.contains(&secret("late")));
        assert_eq!((settled.state, settled.generation, settled.grant), (left.state, left.generation, left.grant));
        assert_eq!(settled.secrets.refresh_token, left.secrets.refresh_token);
    }
    assert_same("forgotten", settle(&forgotten(&before)).as_ref(), None);
    let refused = evergrant::oauth::Outcome::InvalidGrant(failure("expired_or_revoked", Binds::All));
    let settled = evergrant::session::protocol::settle(Some(&next), &sent(1), &refused, &moment(&now()));
    assert_same("the next session does not end", settled.as_ref(), None);
}

/// Every token of the tests goes through one type; nothing that shows a record shows it.
#[test]
fn wants_and_claims_show_no_secret() {
    let want = Want::OtherThan(Secret::new("canary"));
    assert!(!format!("{want:?} {:?}", sent(1)).contains("canary"));
    assert!(!format!("{:?}", sent(1)).contains("rt-5"));
}

#[test]
fn an_end_that_is_learnt_is_for_its_own_token_and_only_shortens_its_life() {
    const END_MS: i64 = WALL_MS + 600_000;
    let with_life = |until_ms, expiry| {
        let life = Some(Life { from_ms: WALL_MS, until_ms, expiry });
        Record { life, attempt: Some(attempt(THEIRS, G)), ..full_record() }
    };
    for (known_ms, expiry, learnt) in [
        (None, Expiry::Unknown, true),
        (Some(END_MS + 1), Expiry::Assumed, true),
        (Some(END_MS), Expiry::Assumed, false),
        (Some(END_MS - 1), Expiry::Assumed, false),
        (Some(END_MS + 1), Expiry::Known, false),
    ] {
        let record = with_life(known_ms, expiry);
        let next = Record { version: record.version + 1, ..with_life(Some(END_MS), Expiry::Assumed) };
        let next = Some(next).filter(|_| learnt);
        assert_same("learnt", expires(Some(&record), &secret("at-5"), END_MS).as_ref(), next.as_ref());
    }
    let record = with_life(None, Expiry::Unknown);
    assert_same("another token", expires(Some(&record), &secret("at-4"), END_MS).as_ref(), None);
    for state in State::ALL.into_iter().filter(|state| *state != State::Active) {
        let record = Record { state, ..record.clone() };
        assert_same(state.name(), expires(Some(&record), &secret("at-5"), END_MS).as_ref(), None);
    }
    let endless = Record { life: None, ..record };
    assert_same("no token", expires(Some(&endless), &secret("at-5"), END_MS).as_ref(), None);
    assert_same("no record", expires(None, &secret("at-5"), END_MS).as_ref(), None);
}
