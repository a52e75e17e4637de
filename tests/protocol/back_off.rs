//! Who waits after a failure, and for how long.

use evergrant::oauth::{Failure, Outcome};
use evergrant::session::protocol::{LONGEST_BACK_OFF_MS, Moment, settle};
use evergrant::session::record::{Attempt, BackOff, Binds, Record};

use crate::parts::*;

/// The back-off after this outcome, and its length.
fn after(before: Option<BackOff>, sends: u32, outcome: Outcome, jitter: i64) -> (BackOff, i64) {
    let attempt = Some(Attempt { sends, ..attempt(MINE, G) });
    let record = Record { attempt, back_off: before, ..record() };
    let now = now();
    let moment = Moment { jitter, ..moment(&now) };
    let next = settle(Some(&record), &sent(sends), &outcome, &moment).expect("a write");
    let back_off = next.back_off.expect("a back-off");
    assert_eq!(back_off.clock, now.clock);
    let wait_ms = back_off.until_ms - NOW_MS;
    (back_off, wait_ms)
}

fn network() -> Failure {
    failure("network", Binds::Host("here".to_owned()))
}

fn asked(ms: u64) -> Failure {
    with(failure("server_unavailable", Binds::All), |failure| failure.retry_after_ms = Some(ms))
}

#[test]
fn it_binds_whom_the_failure_concerns() {
    let host = || Binds::Host("here".to_owned());
    let configuration = || Binds::Configuration("mine".to_owned());
    for (outcome, binds) in [
        (Outcome::NotSent(network()), host()),
        (Outcome::NotSent(asked(1_000)), Binds::All),
        (Outcome::Refused(failure("client_refused", configuration())), configuration()),
        (Outcome::Refused(failure("server_unavailable", Binds::All)), Binds::All),
        // These leave a doubt, and a doubt concerns everybody.
        (Outcome::Busy(network()), Binds::All),
        (Outcome::Unknown(failure("server_unavailable", Binds::All)), Binds::All),
    ] {
        for sends in [1, 2] {
            assert_eq!(after(None, sends, outcome.clone(), 0).0.binds, binds, "{}", outcome.name());
        }
    }
}

/// A client that is being closed keeps nobody waiting.
#[test]
fn who_withdraws_an_unsent_claim_binds_nobody() {
    let withdrawn = || Outcome::NotSent(failure(evergrant::oauth::WITHDRAWN, Binds::Host("here".to_owned())));
    let running = BackOff { count: 3, ..after(None, 1, Outcome::NotSent(network()), 0).0 };
    for (sends, before) in [(1, None), (2, None), (1, Some(running))] {
        let attempt = Some(Attempt { sends, ..attempt(MINE, G) });
        let claimed = Record { attempt, back_off: before.clone(), ..record() };
        let now = now();
        let next = settle(Some(&claimed), &sent(sends), &withdrawn(), &moment(&now)).expect("a write");
        assert_eq!(next.back_off, before, "none of its own");
        assert_eq!(next.attempt.map(|attempt| attempt.doubt), (sends > 1).then_some(true), "a replay's doubt stays");
    }
}

#[test]
fn it_says_why() {
    let (back_off, _) = after(None, 1, Outcome::NotSent(network()), 0);
    assert_eq!((back_off.cause.as_str(), back_off.reason.as_str()), ("what happened: network", "network"));
}

/// A server's window for a replay may be short.
#[test]
fn the_first_lost_reply_is_replayed_at_once() {
    for jitter in [0, 1023] {
        let (back_off, wait_ms) = after(None, 1, Outcome::Unknown(network()), jitter);
        assert_eq!((back_off.count, wait_ms), (1, 0));
    }
    assert!(after(None, 2, Outcome::Unknown(network()), 1023).1 > 0, "the second is not");
}

#[test]
fn it_doubles_until_five_minutes() {
    let mut before = None;
    let mut waits = vec![];
    for _ in 0..12 {
        let (back_off, wait_ms) = after(before, 1, Outcome::NotSent(network()), 0);
        waits.push(wait_ms / 1_000);
        before = Some(back_off);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    assert_eq!(before.map(|back_off| back_off.count), Some(12));
}

#[test]
fn it_starts_again_for_somebody_else() {
    let before = back_off(Binds::Host("there".to_owned()));
    assert_eq!(after(Some(before.clone()), 1, Outcome::NotSent(network()), 0).0.count, 1);
    let same = BackOff { binds: Binds::Host("here".to_owned()), ..before };
    assert_eq!(after(Some(same), 1, Outcome::NotSent(network()), 0).0.count, 4);
}

#[test]
fn counts_without_end_do_not_overflow() {
    let before = BackOff { count: u32::MAX, ..back_off(Binds::Host("here".to_owned())) };
    let (back_off, wait_ms) = after(Some(before), 1, Outcome::NotSent(network()), 0);
    assert_eq!((back_off.count, wait_ms), (u32::MAX, LONGEST_BACK_OFF_MS));
    let (_, wait_ms) = after(None, 1, Outcome::NotSent(asked(u64::MAX)), 1023);
    assert!(wait_ms < 25 * 60 * 60 * 1000, "a server is believed for a day: {wait_ms}");
}

/// Chosen waits are shortened by up to a half, a server's word is only ever lengthened.
#[test]
fn jitter_spreads_parties() {
    for count in [0, 3, 30] {
        let before = BackOff { count, ..back_off(Binds::Host("here".to_owned())) };
        let wait = |jitter| after(Some(before.clone()), 1, Outcome::NotSent(network()), jitter).1;
        let longest = wait(0);
        let waits = [0, 1, 100, 511, 1023].map(wait);
        assert!(waits.iter().all(|ms| (longest / 2..=longest).contains(ms)), "{waits:?}");
        assert!(waits.is_sorted_by(|a, b| a >= b) && waits[4] <= longest * 51 / 100, "{waits:?}");
    }
    for asked_ms in [0, 7_000, 3_600_000] {
        for outcome in
            [Outcome::NotSent(asked(asked_ms)), Outcome::Busy(asked(asked_ms)), Outcome::Unknown(asked(asked_ms))]
        {
            let asked_ms = asked_ms as i64;
            assert_eq!(after(None, 1, outcome.clone(), 0).1, asked_ms, "{}", outcome.name());
            let latest = after(None, 1, outcome, 1023).1;
            assert!((asked_ms..=asked_ms + 1_000).contains(&latest), "{latest}");
            assert!(asked_ms == 0 || latest > asked_ms);
        }
    }
}
