//! The model's steps are the driver's: these are the places where src/session/renewer does what `world` has a step for.
//! Who moves one, or adds one, finds the model's step here and moves it too.

/// The text of one function: from its name to the next line that closes a block at its indentation.
fn body<'a>(source: &'a str, name: &str) -> &'a str {
    let at = source.find(&format!("fn {name}(")).unwrap_or_else(|| panic!("there is no function {name}"));
    let line = source[..at].rfind('\n').map_or(0, |at| at + 1);
    let indent = source[line..].len() - source[line..].trim_start().len();
    let end = format!("\n{}}}\n", " ".repeat(indent));
    let rest = &source[at..];
    &rest[..rest.find(&end).map_or(rest.len(), |at| at + end.len())]
}

/// Asserts that these stand in a function in this order, and how often each stands there.
#[track_caller]
fn assert_order(source: &str, name: &str, expected: &[&str]) {
    // Where lines are broken makes no difference.
    let tight = |text: &str| text.split_whitespace().collect::<String>();
    let body = tight(body(source, name));
    let expected: Vec<_> = expected.iter().map(|mark| tight(mark)).collect();
    let marks: std::collections::BTreeSet<_> = expected.iter().collect();
    let mut found: Vec<_> = marks.iter().flat_map(|mark| body.match_indices(mark.as_str())).collect();
    found.sort_unstable();
    let found: Vec<_> = found.into_iter().map(|(_, mark)| mark).collect();
    assert_eq!(found, expected, "the steps of {name}, and with them of tests/model/src/world.rs");
}

const JOB: &str = include_str!("../../../src/session/renewer/job.rs");
const ASIDE: &str = include_str!("../../../src/session/renewer/aside.rs");
const RENEWER: &str = include_str!("../../../src/session/renewer.rs");
const REVOKE: &str = include_str!("../../../src/session/renewer/revoke.rs");
const OAUTH: &str = include_str!("../../../src/oauth/mod.rs");
const HTTP: &str = include_str!("../../../src/oauth/http.rs");
const CACHE: &str = include_str!("../../../src/session/cache.rs");

/// `idle`, `decides`: one load, one decision; then a claim, a correction, or nothing.
#[test]
fn a_job_loads_decides_and_acts() {
    assert_order(JOB, "load_at", &["Instant::now()", "self.load("]);
    assert_order(JOB, "renew", &["self.load_at(", "self.decide(", "self.exchange(", "self.correct("]);
    assert_order(JOB, "correct", &["compare_and_swap(", "Some(record.version)", "publish("]);
}

/// `claims`, `looks_once_more`, `sends`, `waits`, `settles`.
#[test]
fn an_exchange_claims_looks_once_more_sends_once_and_settles() {
    assert_order(
        JOB,
        "exchange",
        &[
            "self.vault.begin(",
            "protocol::claim(record, attempt)",
            "compare_and_swap(&slot.key, Some(record.version), &claimed)",
            "is_claimed(",
            "let gate =",
            "is_claimed(",
            "refresh::refresh(",
            "self.settle(",
            "running.settled(); drop(running)",
            "self.conclude(",
        ],
    );
    assert_order(JOB, "exchange", &["Deadline::from(before, registration)"]);
    assert_order(
        OAUTH,
        "from",
        &["start + registration.connect_timeout", "first_byte + registration.exchange_timeout"],
    );
    assert_order(JOB, "is_claimed", &["store.load(", "record.grant ==", "record.generation ==", "attempt.id =="]);
    assert_order(HTTP, "read", &["match ask()", "Instant::now() > self.first_byte", "Gate::Open => self.rest.read("]);
}

/// `settles`: load, settle, compare-and-swap against what was loaded, publish; after a failure of the store a Done is
/// set aside and pending, and anything else is dropped.
#[test]
fn settling_loads_first_and_goes_by_what_it_finds() {
    assert_order(
        JOB,
        "settle_once",
        &[
            "store.load(",
            "protocol::settle(found.as_ref()",
            "let expected = found.map(|record| record.version)",
            "compare_and_swap(&slot.key, expected, &next)",
        ],
    );
    assert_order(
        JOB,
        "settle",
        &[
            "self.settle_once(",
            "self.no_longer_aside(",
            "self.publish(",
            "Ok(None) => continue",
            "if !done",
            "return Err(",
            "self.set_aside(",
            "if self.abandoned",
            "return Err(",
            "self.serve_uncommitted(",
            "slot.changed(retry_after, || self.abandoned",
        ],
    );
    // The doubt is replayed by its owner, whether anybody asks or not: `Wanted::NoDoubt`.
    assert_order(JOB, "conclude", &["self.revoke(", "self.start_later("]);
    assert_order(JOB, "start_later", &["Want::NoDoubt"]);
}

/// `settles_aside`: whoever takes over looks first; the record first, then the file.
#[test]
fn what_is_set_aside_is_settled_before_anybody_replays() {
    assert_order(JOB, "renew", &["self.decide(", "protocol::takes_over(", "self.settle_pending(", "self.exchange("]);
    assert_order(ASIDE, "settle_pending", &["self.settle_once(", "aside.settled("]);
}

/// `users`: load, change, compare-and-swap, until nobody has come in between.
#[test]
fn users_writes_are_tried_until_they_succeed() {
    assert_order(
        RENEWER,
        "rewrite",
        &["loop {", "self.load(", "change(", "compare_and_swap(&slot.key, expected, &next)"],
    );
    for (function, rule) in
        [("save", "protocol::save("), ("sign_out", "protocol::sign_out("), ("forget", "protocol::forget(")]
    {
        assert_order(RENEWER, function, &["self.write(", rule]);
    }
}

/// `revokes`, `removes`: the server first, then the record.
#[test]
fn revoking_tells_the_server_before_the_record() {
    assert_order(
        REVOKE,
        "revoke",
        &["store.load(", "revoke::revoke(", "store.load(", "protocol::revoked(", "compare_and_swap("],
    );
}

/// A party that is not idle starts nothing; memory keeps the highest generation.
#[test]
fn one_job_runs_at_a_time() {
    assert_order(CACHE, "begin_job", &["if state.running {", "return Err(", "state.running = true"]);
    assert_order(
        CACHE,
        "publish",
        &["seen.generation <= record.generation", "State::Active | State::Ended", "state.seen = None"],
    );
}
