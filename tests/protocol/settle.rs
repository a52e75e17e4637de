//! The settle table, cell by cell.

use Cell::*;
use Row::*;
use evergrant::oauth::Outcome;
use evergrant::session::protocol::{LONGEST_BACK_OFF_MS, Sent, settle};
use evergrant::session::record::{Attempt, BackOff, Binds, Id, MadeBy, Record, State};
use evergrant::{Secret, session::record::Entry};

use crate::parts::*;

/// The record that is found. `g` is the generation that was sent, "mine" the attempt that is settled.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Row {
    /// 1: active, g, attempt mine
    Mine,
    /// 2: active, g, another's attempt, open
    AnothersOpen,
    /// 3: active, g, attempt none or another's in doubt
    NobodysOrInDoubt,
    /// 4: ended, g
    HasEnded,
    /// 5: active, g+1, no attempt of generation g+1
    Next,
    /// 6: active, g+1, an attempt of generation g+1
    NextInUse,
    /// 7: ended, g+1
    NextEnded,
    /// 8: g+2 or more
    Later,
    /// 9: another grant
    OtherGrant,
    /// 10: signed out
    SignedOut,
    /// 11: forgotten, or no record
    Gone,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cell {
    /// Nothing is written.
    No,
    /// Generation g+1 with the new token, or with the old one if there is none.
    Renew,
    /// The same, and the other's attempt stays as a barrier.
    RenewBehind,
    /// The spare takes over, or the session ends.
    Refuse,
    /// A first send is undone; a replay leaves its doubt. Back-off.
    Undo,
    /// A doubt. Back-off.
    Doubt,
    /// A second successor: the later presentation's counts, the other is the spare.
    Sibling,
    /// A second successor is the spare.
    Spare,
    /// Active again, if the successor is a new one.
    Revive,
    /// If the attempt is mine, it goes.
    ClearMine,
    /// The successor must be revoked.
    Revoke,
}

/// docs/protocol.md, "settle".
#[rustfmt::skip]
const TABLE: [(Row, [Cell; 6]); 11] = [
    // record found      Done(rt')    Done(no rt)  invalid_grant  NotSent, Refused  Busy       Unknown
    (Mine,             [ Renew,       Renew,       Refuse,        Undo,             Doubt,     Doubt     ]),
    (AnothersOpen,     [ RenewBehind, RenewBehind, No,            No,               No,        No        ]),
    (NobodysOrInDoubt, [ Renew,       Renew,       No,            No,               No,        No        ]),
    (HasEnded,         [ Renew,       Renew,       No,            No,               No,        No        ]),
    (Next,             [ Sibling,     ClearMine,   ClearMine,     ClearMine,        ClearMine, ClearMine ]),
    (NextInUse,        [ Spare,       No,          No,            No,               No,        No        ]),
    (NextEnded,        [ Revive,      No,          No,            No,               No,        No        ]),
    (Later,            [ No,          No,          No,            No,               No,        No        ]),
    (OtherGrant,       [ Revoke,      No,          No,            No,               No,        No        ]),
    (SignedOut,        [ Revoke,      No,          No,            No,               No,        No        ]),
    (Gone,             [ No,          No,          No,            No,               No,        No        ]),
];

/// The outcomes of each column.
fn columns() -> [Vec<Outcome>; 6] {
    let mismatch = with(answer(Some("rt-new"), Some("at-new")), |answer| answer.signature_mismatch = true);
    let host = || Binds::Host("here".to_owned());
    let configuration = Binds::Configuration("mine".to_owned());
    let asked = with(failure("server_unavailable", Binds::All), |failure| failure.retry_after_ms = Some(7_000));
    [
        vec![
            done(Some("rt-new"), Some("at-new")),
            done(Some("rt-new"), None), // an answer whose access token cannot be used is a Done all the same
            Outcome::Done(Box::new(mismatch)),
        ],
        vec![
            done(None, Some("at-new")),
            done(Some("rt-5"), Some("at-new")), // the same token again is no rotation
            done(Some("rt-5"), None),
        ],
        vec![
            Outcome::InvalidGrant(failure("expired_or_revoked", Binds::All)),
            Outcome::InvalidGrant(failure("inactive_user", Binds::All)),
        ],
        vec![
            Outcome::NotSent(failure("network", host())),
            Outcome::NotSent(asked.clone()),
            Outcome::Refused(failure("client_refused", configuration)),
        ],
        // Somebody else is spending the token: that concerns everybody.
        vec![Outcome::Busy(failure("server_unavailable", Binds::All)), Outcome::Busy(failure("network", host()))],
        vec![Outcome::Unknown(failure("server_unavailable", Binds::All)), Outcome::Unknown(asked)],
    ]
}

impl Row {
    /// Every kind of record that this row is about.
    fn records(self, sends: u32) -> Vec<Option<Record>> {
        let mine = |generation| Attempt { sends, ..attempt(MINE, generation) };
        let theirs = |generation| Attempt { sends: 4, ..attempt(THEIRS, generation) };
        let records = match self {
            Gone => {
                let forgotten = with(record(), |record| record.state = State::Forgotten);
                return vec![None, Some(forgotten.clone()), Some(Record { grant: Id(0xb2), ..forgotten })];
            }
            Mine => attempts(&[Some(mine(G))]),
            // The second is a barrier already.
            AnothersOpen => attempts(&[Some(theirs(G)), Some(theirs(G - 1))]),
            NobodysOrInDoubt => attempts(&[None, Some(in_doubt(theirs(G))), Some(in_doubt(theirs(G - 1)))]),
            HasEnded => vec![ended("expired_or_revoked"), ended("rotation_lost")],
            Next => attempts(&[None, Some(mine(G)), Some(theirs(G)), Some(in_doubt(theirs(G)))])
                .into_iter()
                .flat_map(next_generations)
                .collect(),
            NextInUse => attempts(&[Some(theirs(G + 1)), Some(in_doubt(theirs(G + 1)))])
                .into_iter()
                .flat_map(next_generations)
                .collect(),
            NextEnded => vec![ended("expired_or_revoked"), ended("rotation_lost")]
                .into_iter()
                .flat_map(next_generations)
                .collect(),
            Later => attempts(&[None, Some(theirs(G + 2)), Some(in_doubt(theirs(G)))])
                .into_iter()
                .chain([ended("expired_or_revoked")])
                .flat_map(|record| [G + 2, G + 9].map(|generation| Record { generation, ..record.clone() }))
                .collect(),
            OtherGrant => attempts(&[None, Some(theirs(G)), Some(theirs(1))])
                .into_iter()
                .chain([ended("rotation_lost"), with(record(), |record| record.state = State::SignedOut)])
                .flat_map(|record| [1, G, G + 1, G + 2].map(|generation| Record { generation, ..record.clone() }))
                .map(|record| Record { grant: Id(0xb2), ..record })
                .flat_map(waiting_to_be_revoked)
                .collect(),
            SignedOut => [G, G + 1, G + 2]
                .map(|generation| Record { generation, state: State::SignedOut, ..record() })
                .into_iter()
                .flat_map(waiting_to_be_revoked)
                .collect(),
        };
        records.into_iter().flat_map(spares).map(Some).collect()
    }
}

/// An empty and a full record with each of these attempts.
fn attempts(attempts: &[Option<Attempt>]) -> Vec<Record> {
    let records = [record(), full_record()];
    let with_attempt =
        |record: Record| attempts.iter().map(move |attempt| Record { attempt: attempt.clone(), ..record.clone() });
    records.into_iter().flat_map(with_attempt).collect()
}

/// Generation g+1, made by each who may have made it; its token is the one that is settled or another.
fn next_generations(record: Record) -> Vec<Record> {
    let another = |sends| Some(MadeBy { attempt: THEIRS, sends });
    let mut records = vec![];
    for (made_by, token) in [
        (Some(MadeBy { attempt: MINE, sends: 2 }), "rt-new"),
        (another(2), "rt-new"), // the server has answered both with the same
        (another(1), "rt-6"),
        (another(2), "rt-6"),
        (another(3), "rt-6"),
        (None, "rt-6"),
    ] {
        records.push(with(Record { generation: G + 1, made_by, ..record.clone() }, |record| {
            record.secrets.refresh_token = Some(secret(token));
        }));
    }
    records
}

/// Without a spare, with another one, and with the one that is settled.
fn spares(record: Record) -> Vec<Record> {
    [None, Some("spare"), Some("rt-new")]
        .map(|spare| with(record.clone(), |record| record.secrets.spare = spare.map(secret)))
        .into()
}

fn waiting_to_be_revoked(record: Record) -> Vec<Record> {
    let tokens: [&[&str]; 3] = [&[], &["other"], &["rt-new", "other"]];
    tokens
        .map(|tokens| {
            with(record.clone(), |record| record.secrets.to_revoke = tokens.iter().map(|t| secret(t)).collect())
        })
        .into()
}

/// The record that the table makes of this one.
fn expected(cell: Cell, record: &Record, sent: &Sent, outcome: &Outcome) -> Option<Record> {
    let mine = record.attempt.as_ref().filter(|attempt| attempt.id == MINE);
    let new = Some(secret("rt-new"));
    let current = &record.secrets.refresh_token;
    let rotated = matches!(outcome, Outcome::Done(answer) if answer.refresh_token == new);
    let there = *current == new || record.secrets.spare == new;
    let made_by = |id| record.made_by.filter(|by| by.attempt == id);
    let mut next = record.clone();
    match cell {
        No => return None,
        Renew | RenewBehind => {
            if cell == Renew {
                next.attempt = None;
            }
            next.generation = G + 1;
            next.back_off = None;
            next.secrets.spare = None;
            if rotated {
                next.secrets.refresh_token = new;
                keep(&mut next.known.spent, fingerprint(record, "rt-5"));
            }
            take(&mut next, sent, outcome);
        }
        Refuse => {
            next.attempt = None;
            match next.secrets.spare.take() {
                Some(spare) => {
                    next.generation = G + 1;
                    next.secrets.refresh_token = Some(spare);
                    keep(&mut next.known.spent, fingerprint(record, "rt-5"));
                    // It belongs to the token that was refused.
                    next.secrets.access_token = None;
                    next.secrets.members = None;
                    next.life = None;
                }
                None => {
                    next.state = State::Ended;
                    next.back_off = None;
                    let reason = if sent.sends > 1 { "rotation_lost" } else { outcome.failure()?.reason };
                    next.reason = Some(reason.to_owned());
                }
            }
        }
        Undo | Doubt => {
            next.attempt = (cell == Doubt || sent.sends > 1).then(|| in_doubt(mine.expect("mine").clone()));
            next.back_off = Some(backed_off(record.back_off.as_ref(), sent, outcome));
        }
        Sibling | Spare if made_by(MINE).is_some() || there => {
            mine?;
            next.attempt = None;
        }
        Sibling if sent.sends > made_by(THEIRS).map_or(0, |by| by.sends) => {
            next.attempt = record.attempt.clone().filter(|_| mine.is_none());
            next.secrets.spare.clone_from(current);
            next.secrets.refresh_token = new;
            take(&mut next, sent, outcome);
        }
        Sibling | Spare => {
            next.attempt = record.attempt.clone().filter(|_| mine.is_none());
            next.secrets.spare = new;
        }
        Revive => {
            if there {
                return None;
            }
            let refused = current.as_ref().expect("a token that was refused");
            keep(&mut next.known.spent, fingerprint(record, refused.expose()));
            next.secrets.refresh_token = new;
            next.secrets.spare = None;
            take(&mut next, sent, outcome);
        }
        ClearMine => {
            mine?;
            next.attempt = None;
        }
        Revoke => {
            // A token that the new grant lives on is not revoked.
            if next.secrets.to_revoke.contains(&secret("rt-new")) || there {
                return None;
            }
            next.secrets.to_revoke.extend(new);
        }
    }
    next.version += 1;
    let history = Entry {
        reason: outcome.failure().map(|failure| failure.reason.to_owned()),
        refresh_token_fingerprint: Some(fingerprint(record, "rt-5")),
        duration_ms: Some(321),
        ..entry(outcome.name())
    };
    keep(&mut next.history, history);
    Some(next)
}

/// What a Done brings besides the refresh token.
fn take(next: &mut Record, sent: &Sent, outcome: &Outcome) {
    let Outcome::Done(answer) = outcome else { panic!("not a Done") };
    next.state = State::Active;
    next.reason = None;
    next.made_by = Some(MadeBy { attempt: MINE, sends: sent.sends });
    next.renewed_at_ms = WALL_MS;
    next.signature_mismatch = answer.signature_mismatch;
    next.secrets.access_token.clone_from(&answer.access_token);
    next.secrets.members = Some(answer.members.clone());
    next.life = answer.access_token.as_ref().map(|_| NEW_LIFE);
}

fn backed_off(before: Option<&BackOff>, sent: &Sent, outcome: &Outcome) -> BackOff {
    let failure = outcome.failure().expect("a failure");
    let (binds, first_ms) = match outcome {
        Outcome::Busy(_) => (Binds::All, 250),
        Outcome::Unknown(_) if sent.sends == 1 => (Binds::All, 0),
        Outcome::Unknown(_) => (Binds::All, 1_000),
        _ => (failure.binds.clone(), 1_000),
    };
    let count = 1 + before.filter(|before| before.binds == binds).map_or(0, |before| before.count);
    let chosen_ms = (first_ms * 2i64.pow(count - 1)).min(LONGEST_BACK_OFF_MS);
    BackOff {
        until_ms: NOW_MS + failure.retry_after_ms.map_or(chosen_ms, |asked| asked as i64),
        clock: now().clock,
        count,
        binds,
        cause: failure.message.clone(),
        reason: failure.reason.to_owned(),
    }
}

fn settled(record: Option<&Record>, sent: &Sent, outcome: &Outcome) -> Option<Record> {
    settle(record, sent, outcome, &moment(&now()))
}

#[test]
fn every_cell_of_the_table() {
    let mut cells = 0;
    let mut inputs = 0;
    for (row, cells_of_row) in TABLE {
        for (outcomes, cell) in columns().iter().zip(cells_of_row) {
            cells += 1;
            for sends in 1..=3 {
                for (n, record) in row.records(sends).iter().enumerate() {
                    for outcome in outcomes {
                        inputs += 1;
                        let sent = sent(sends);
                        let expected = record.as_ref().and_then(|record| expected(cell, record, &sent, outcome));
                        let got = settled(record.as_ref(), &sent, outcome);
                        let what = format!("{row:?} × {}: {cell:?}, sends {sends}, record {n}", outcome.name());
                        assert_same(&what, got.as_ref(), expected.as_ref());
                    }
                }
            }
        }
    }
    assert_eq!(cells, 66);
    assert!(inputs > 8_000, "{inputs} inputs");
}

/// What was sent was written once: a store that has an older generation went back in time, and a Done repairs it.
#[test]
fn a_done_repairs_a_store_that_went_back_in_time() {
    for before in
        [record(), ended("expired_or_revoked"), Record { attempt: Some(in_doubt(attempt(THEIRS, G - 2))), ..record() }]
    {
        let before = with(Record { generation: G - 2, ..before }, |record| {
            record.secrets.refresh_token = Some(secret("rt-3"));
            record.secrets.spare = Some(secret("spare"));
        });
        for (outcome, token) in [(done(Some("rt-new"), Some("at-new")), "rt-new"), (done(None, Some("at-new")), "rt-5")]
        {
            let sent = sent(1);
            let expected = expected(Renew, &before, &sent, &outcome)
                .map(|next| with(next, |next| next.secrets.refresh_token = Some(secret(token))));
            assert_same("repaired", settled(Some(&before), &sent, &outcome).as_ref(), expected.as_ref());
        }
        for outcome in columns().into_iter().skip(2).flatten() {
            assert_same(outcome.name(), settled(Some(&before), &sent(1), &outcome).as_ref(), None);
        }
    }
}

/// An answer for a generation beats everything that is known of it: also when the record was written since.
#[test]
fn it_goes_by_attempt_and_never_by_version() {
    let claimed = Record { attempt: Some(attempt(MINE, G)), ..record() };
    for version in [1, 69, 71, i64::MAX / 2] {
        let found = Record { version, ..claimed.clone() };
        let next = settled(Some(&found), &sent(1), &done(Some("rt-new"), Some("at-new"))).expect("a write");
        assert_eq!((next.version, next.generation), (version + 1, G + 1));
    }
}

/// The server answered two, and lets the newest answer live. The one that was committed first is refused, and the late one
/// revives the session. A commit of the first that was reported as failed is tried again: it must not bring back a
/// token that the server has refused.
#[test]
fn a_refused_token_does_not_come_back() {
    let other = Sent { attempt: THEIRS, sends: 2, ..sent(1) };
    let first = done(Some("rt-6"), Some("at-6"));
    let claimed = Record { attempt: Some(Attempt { sends: 2, ..attempt(THEIRS, G) }), ..record() };
    let committed = settled(Some(&claimed), &other, &first).expect("a write");
    let refused = with(committed, |record| {
        record.version += 1;
        record.state = State::Ended;
        record.reason = Some("expired_or_revoked".to_owned());
    });
    let revived = settled(Some(&refused), &sent(1), &done(Some("rt-new"), Some("at"))).expect("a write");
    assert_eq!((revived.state, &revived.secrets.refresh_token), (State::Active, &Some(secret("rt-new"))));
    assert_same("tried again", settled(Some(&revived), &other, &first).as_ref(), None);
}

/// A server that does not rotate has answered to the token before: it was not used by somebody else.
#[test]
fn a_token_that_was_answered_before_was_not_used_elsewhere() {
    let claimed = Record { attempt: Some(attempt(MINE, G)), ..record() };
    let first = settled(Some(&claimed), &sent(1), &done(None, Some("at-new"))).expect("a write");
    let again = Record { attempt: Some(attempt(MINE, G + 1)), ..first };
    let sent = Sent { generation: G + 1, ..sent(1) };
    let refused = Outcome::InvalidGrant(failure("used_elsewhere_or_revoked", Binds::All));
    let next = settled(Some(&again), &sent, &refused).expect("a write");
    assert_eq!((next.state, next.reason.as_deref()), (State::Ended, Some("expired_or_revoked")));
}

/// The reason is the answer's, unless an earlier presentation may have rotated the token.
#[test]
fn a_refusal_names_its_reason() {
    let claimed = Record { attempt: Some(attempt(MINE, G)), ..record() };
    for (sends, reason, expected) in [
        (1, "expired_or_revoked", "expired_or_revoked"),
        (1, "inactive_user", "inactive_user"),
        (2, "inactive_user", "rotation_lost"),
        (3, "expired_or_revoked", "rotation_lost"),
        (1, "used_elsewhere_or_revoked", "used_elsewhere_or_revoked"),
        (2, "used_elsewhere_or_revoked", "rotation_lost"),
    ] {
        let refused = Outcome::InvalidGrant(failure(reason, Binds::All));
        let next = settled(Some(&claimed), &sent(sends), &refused).expect("a write");
        assert_eq!((next.state, next.reason.as_deref()), (State::Ended, Some(expected)), "{reason}, sends {sends}");
        // The same token, saved again, must still be recognised.
        assert_eq!(next.secrets.refresh_token.as_ref().map(Secret::expose), Some("rt-5"));
    }
}
