//! Faults on the wire: every fault of the test server, in every state of a session, on every kind of server. Here those of
//! the token endpoint, in `wire/revocation.rs` those of the revocation endpoint.
//!
//! What must come of each is computed ([`Expected::of`]) from what the fault does, by the rules of `docs/protocol.md`.
//! A record with a spare is not among the states: on a local store no two parties are answered for one generation.
//! `tests/protocol` and `tests/model` have it.

mod common;
#[path = "wire/revocation.rs"]
mod revocation;

use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::*;
use evergrant::{Client, Error, Result, Secret, Status};
use evergrant_test_server::{Fault, FaultKind, GraceKind, Options, Rotation, WrongType};
use serde_json::{Value, json};

const WAIT: Option<&str> = Some(r#"{"max_wait_ms": 30000}"#);
const ANYWAY: Option<&str> = Some(r#"{"max_wait_ms": 30000, "anyway": true}"#);

/// So many failures stand behind a doubt that the next wait is longer than a caller's and than any step of a test.
const FAILURES: u32 = 6;
/// A caller waits for a replay that is due within this time.
const SOON_MS: u64 = 2000;
/// Longer than the replay that comes at once.
const GHOST_MS: u64 = 3000;
/// Cells that run at one time on each kind of server: most of their time they wait.
const WORKERS: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Rotates; a used refresh token ends its family.
    Strict,
    /// Rotates; a used refresh token is refused.
    Refuses,
    /// Rotates; a used refresh token is answered for another minute.
    Grace,
    /// Does not rotate.
    Keeps,
    /// As strict, and revokes only what lives, for whoever asks.
    Salesforce,
}

impl Kind {
    fn options(self) -> Options {
        match self {
            Kind::Strict => strict(),
            Kind::Refuses => Options { rotation: Rotation::StrictRefuses, ..strict() },
            Kind::Grace => grace(GraceKind::SiblingsAll),
            Kind::Keeps => generic(),
            Kind::Salesforce => Options { rotation: Rotation::Strict, ..salesforce() },
        }
    }

    /// A refresh token that was used is of no use.
    fn forgets(self) -> bool {
        matches!(self, Kind::Strict | Kind::Refuses | Kind::Salesforce)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Generation 1, no access token.
    Fresh,
    /// Its access token is valid, and in its early window.
    Early,
    /// Its access token is valid, but a resource server has rejected it.
    Rejected,
    /// Its access token has expired.
    Expired,
    /// In doubt; the server has carried out nothing.
    Doubt,
    /// In doubt; the server has carried out the first request.
    SpentDoubt,
    /// Ended, to be tried once more.
    Ended,
    /// A back-off runs, to be gone past.
    BackOff,
    /// Its user has left.
    SignedOut,
}
use State::*;

const STATES: [State; 9] = [Fresh, Early, Rejected, Expired, Doubt, SpentDoubt, Ended, BackOff, SignedOut];

impl State {
    /// What the record knows of exchanges.
    fn outcomes(self) -> Vec<&'static str> {
        match self {
            Fresh | Early | Rejected | Expired | SignedOut => vec![],
            Doubt | SpentDoubt => vec!["unknown"; FAILURES as usize],
            Ended => vec!["invalid_grant"],
            BackOff => vec!["not_sent"],
        }
    }

    fn in_doubt(self) -> bool {
        matches!(self, Doubt | SpentDoubt)
    }

    /// How many claims of the open attempt there are.
    fn sends(self) -> u32 {
        if self.in_doubt() { FAILURES } else { 0 }
    }
}

/// How far a request comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reach {
    /// No request arrives.
    Nowhere,
    /// It arrives; the refresh token in it is not read.
    Head,
    /// It is read.
    Read,
    /// It is read and carried out.
    Done,
    /// It is carried out when its sender has given up.
    Ghost,
}

/// What becomes of the server's answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    /// It arrives.
    Whole,
    /// There is no access token that can be used in it.
    NoAccessToken,
    /// What is in it is no bearer token.
    NotBearer,
    /// There is no new refresh token in it.
    NoSuccessor,
    /// There is none, or another one.
    Other(Outcome),
}

/// What the client makes of it, with the reason.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Done,
    /// Done, without an access token.
    Unusable,
    NotSent(&'static str),
    Busy,
    Refused(&'static str),
    Dead(&'static str),
    Unknown(&'static str),
}
use Outcome::*;

impl Outcome {
    /// In history and events.
    fn name(self) -> &'static str {
        match self {
            Done | Unusable => "done",
            NotSent(_) => "not_sent",
            Busy => "busy",
            Refused(_) => "refused",
            Dead(_) => "invalid_grant",
            Unknown(_) => "unknown",
        }
    }

    fn reason(self) -> Option<&'static str> {
        match self {
            Done | Unusable => None,
            Busy => Some("server_unavailable"),
            NotSent(reason) | Refused(reason) | Dead(reason) | Unknown(reason) => Some(reason),
        }
    }
}

/// What a fault does to a request and to its answer.
fn effect(fault: &FaultKind) -> (Reach, Answer) {
    let unknown = |reason| Answer::Other(Unknown(reason));
    let status = |code: u16| match code {
        429 => Answer::Other(NotSent("server_unavailable")),
        500..=599 => unknown("server_unavailable"),
        _ => unknown("bad_answer"),
    };
    match fault {
        FaultKind::Pass | FaultKind::Delay => (Reach::Done, Answer::Whole),
        FaultKind::BadContentType { .. } | FaultKind::ConnectionClose | FaultKind::SilentClose { .. } => {
            (Reach::Done, Answer::Whole)
        }
        FaultKind::DropReply | FaultKind::ResetAfterProcess | FaultKind::Truncate { .. } => {
            (Reach::Done, unknown("network"))
        }
        FaultKind::TruncateHead { .. } => (Reach::Done, unknown("network")),
        FaultKind::ResetBeforeRead => (Reach::Head, unknown("network")),
        FaultKind::ResetAfterRead | FaultKind::Hang => (Reach::Read, unknown("network")),
        FaultKind::ProcessLate { .. } => (Reach::Ghost, unknown("network")),
        FaultKind::Slow { total_ms: Some(..1000), .. } => (Reach::Done, Answer::Whole),
        FaultKind::Slow { .. } => (Reach::Done, unknown("network")),
        FaultKind::Oversized { bytes: ..=1_048_576 } => (Reach::Done, Answer::Whole),
        FaultKind::Oversized { .. } => (Reach::Done, unknown("bad_answer")),
        FaultKind::NonJson => (Reach::Read, unknown("bad_answer")),
        FaultKind::Html { status: code } | FaultKind::Status { code, .. } => (Reach::Read, status(*code)),
        FaultKind::StatusAfter { code, .. } => (Reach::Done, status(*code)),
        FaultKind::Redirect { .. } => (Reach::Read, unknown("bad_answer")),
        FaultKind::Error { error, description, .. } => {
            let outcome = match (error.as_str(), description.as_str()) {
                ("invalid_grant", "inactive user") => Dead("inactive_user"),
                ("invalid_grant", "login rate exceeded") => Refused("server_unavailable"),
                ("invalid_grant", "expired by inactivity") => Dead("expired_or_revoked"),
                ("invalid_grant", _) => Dead("used_elsewhere_or_revoked"),
                ("server_error" | "temporarily_unavailable", _) => Unknown("server_unavailable"),
                _ => Refused("client_refused"),
            };
            (Reach::Read, Answer::Other(outcome))
        }
        FaultKind::Busy => (Reach::Read, Answer::Other(Busy)),
        FaultKind::WrongTypes { variant } => (Reach::Done, spoiled(*variant)),
        FaultKind::OmitRefreshToken => (Reach::Done, Answer::NoSuccessor),
        FaultKind::ResetOnAccept => (Reach::Nowhere, unknown("network")), // or BEFORE_THE_FIRST_BYTE
        FaultKind::RefuseConnections { .. } => (Reach::Nowhere, Answer::Other(NotSent("network"))),
    }
}

fn ends_by_time_out(fault: &FaultKind) -> bool {
    match fault {
        FaultKind::Hang | FaultKind::ProcessLate { .. } => true,
        FaultKind::Slow { .. } => effect(fault).1 != Answer::Whole,
        _ => false,
    }
}

fn spoiled(variant: WrongType) -> Answer {
    match variant {
        WrongType::AccessTokenNumber
        | WrongType::AccessTokenMissing
        | WrongType::AccessTokenEmpty
        | WrongType::AccessTokenNull
        | WrongType::AccessTokenLineBreak => Answer::NoAccessToken,
        WrongType::RefreshTokenNumber | WrongType::RefreshTokenEmpty | WrongType::RefreshTokenNull => {
            Answer::NoSuccessor
        }
        WrongType::TokenTypeMac => Answer::NotBearer,
        WrongType::TokenTypeMissing => Answer::Whole,
        WrongType::Array | WrongType::Empty | WrongType::NotUtf8 => Answer::Other(Unknown("bad_answer")),
    }
}

/// A connection that is reset as soon as it stands may be found so before the first byte, or not.
const BEFORE_THE_FIRST_BYTE: (Reach, Answer) = (Reach::Nowhere, Answer::Other(NotSent("network")));

/// How long the server wants us to wait.
fn retry_after_ms(fault: &FaultKind) -> Option<u64> {
    match fault {
        FaultKind::Status { retry_after, .. } | FaultKind::StatusAfter { retry_after, .. } => {
            retry_after.as_ref().map(|seconds| seconds.parse::<u64>().unwrap() * 1000)
        }
        FaultKind::Error { description, .. } if description == "login rate exceeded" => Some(60_000),
        _ => None,
    }
}

fn faults() -> Vec<FaultKind> {
    let status = |code| FaultKind::Status { code, body: None, retry_after: None };
    let status_after = |code| FaultKind::StatusAfter { code, body: None, retry_after: None };
    let wait = || Some("600".to_owned());
    let redirect = |code| FaultKind::Redirect { location: "https://elsewhere.example/token".into(), code };
    let error = |status, error: &str, description: &str| FaultKind::Error {
        error: error.into(),
        description: description.into(),
        status,
    };
    let wrong = |variant| FaultKind::WrongTypes { variant };
    vec![
        FaultKind::Hang, // The slow ones come first.
        FaultKind::ProcessLate { delay_ms: GHOST_MS },
        FaultKind::Slow { bytes_per_s: None, total_ms: Some(20_000) },
        FaultKind::Pass,
        FaultKind::Delay,
        FaultKind::DropReply,
        FaultKind::ResetBeforeRead,
        FaultKind::ResetAfterRead,
        FaultKind::ResetAfterProcess,
        FaultKind::Truncate { bytes: 0 },
        FaultKind::Truncate { bytes: 30 },
        FaultKind::TruncateHead { bytes: 1 },
        FaultKind::TruncateHead { bytes: 30 },
        FaultKind::Slow { bytes_per_s: None, total_ms: Some(300) },
        FaultKind::Oversized { bytes: 1 << 20 },
        FaultKind::Oversized { bytes: (1 << 20) + 1 },
        FaultKind::NonJson,
        FaultKind::Html { status: 503 },
        wrong(WrongType::AccessTokenNumber),
        wrong(WrongType::AccessTokenMissing),
        wrong(WrongType::AccessTokenEmpty),
        wrong(WrongType::AccessTokenNull),
        wrong(WrongType::AccessTokenLineBreak),
        wrong(WrongType::RefreshTokenNumber),
        wrong(WrongType::RefreshTokenEmpty),
        wrong(WrongType::RefreshTokenNull),
        wrong(WrongType::TokenTypeMac),
        wrong(WrongType::TokenTypeMissing),
        wrong(WrongType::Array),
        wrong(WrongType::Empty),
        wrong(WrongType::NotUtf8),
        status(404),
        status(408),
        status(429),
        status(500),
        FaultKind::Status { code: 429, body: None, retry_after: wait() },
        FaultKind::Status { code: 503, body: None, retry_after: wait() },
        status_after(502),
        FaultKind::StatusAfter { code: 503, body: None, retry_after: wait() },
        redirect(301),
        redirect(302),
        redirect(307),
        error(400, "invalid_grant", "the refresh token was revoked"),
        error(400, "invalid_grant", "expired by inactivity"),
        error(400, "invalid_grant", "inactive user"),
        error(400, "invalid_grant", "login rate exceeded"),
        error(401, "invalid_client", "bad secret"),
        error(400, "invalid_scope", ""),
        error(400, "temporarily_unavailable", "maintenance"),
        FaultKind::Busy,
        FaultKind::BadContentType { content_type: "text/html".into() },
        FaultKind::ConnectionClose,
        FaultKind::SilentClose { delay_ms: 20 },
        FaultKind::OmitRefreshToken,
        FaultKind::ResetOnAccept,
        FaultKind::RefuseConnections { ms: 600_000 },
    ]
}

/// What must come of a fault in a state.
#[derive(Debug)]
struct Expected {
    /// Of the exchange that the fault strikes, and of the replay that the same call waits for, if there is one.
    outcomes: Vec<Outcome>,
    /// How many of these requests arrive, and in how many of them the first refresh token is read.
    requests: usize,
    presentations: u32,
    /// The longest wait that stands in the record.
    wait_ms: Option<u64>,
    /// It was the server's word.
    asked: bool,
    record: RecordSays,
    error: Option<(Status, &'static str, &'static str, &'static str)>,
    /// What one more try on a healthy server comes to; `None`: nothing is sent, only a sign-in helps.
    next: Option<Outcome>,
    /// What the record says then.
    then: RecordSays,
}

#[derive(Clone, Debug, PartialEq)]
struct RecordSays {
    state: &'static str,
    reason: Option<&'static str>,
    generation: u64,
    /// Of the attempt.
    sends: Option<u32>,
}

impl Expected {
    fn of(fault: &FaultKind, (reach, answer): (Reach, Answer), state: State, server: Kind) -> Self {
        let mut sends = state.sends() + 1;
        let mut spent = state == SpentDoubt;
        let refused = |spent: bool| spent && server.forgets();
        let dead = Dead("used_elsewhere_or_revoked");
        let first = match answer {
            Answer::Other(outcome) => outcome,
            _ if refused(spent) => dead,
            Answer::Whole | Answer::NoSuccessor => Done,
            Answer::NoAccessToken | Answer::NotBearer if server != Kind::Keeps => Unusable,
            Answer::NoAccessToken => Unknown("bad_answer"),
            Answer::NotBearer => Refused("bad_answer"),
        };
        spent |= reach == Reach::Done;
        let mut outcomes = vec![first];

        // Only its own send is undone by an exchange that has spent nothing.
        let mut doubt = match first {
            Unknown(_) | Busy => true,
            NotSent(_) | Refused(_) => sends > 1,
            Done | Unusable | Dead(_) => false,
        };
        let (wait_ms, asked) = wait_after(first, fault, state);
        let replayed = doubt && wait_ms.is_none_or(|wait_ms| wait_ms <= SOON_MS);
        if replayed {
            sends += 1;
            outcomes.push(if refused(spent) { dead } else { Done });
            doubt = false;
        }
        let last = outcomes[outcomes.len() - 1];
        spent |= reach == Reach::Ghost;

        let renewed = matches!(last, Done | Unusable);
        let generation = if renewed { 2 } else { 1 };
        let ended_before = (state == Ended).then_some("inactive_user");
        let record = |says, reason| RecordSays { state: says, reason, generation, sends: None };
        let record = match last {
            Done | Unusable => record("active", None),
            Dead(_) if sends > 1 => record("ended", Some("rotation_lost")),
            Dead(reason) => record("ended", Some(reason)),
            _ if doubt => RecordSays { sends: Some(sends), ..record("in_doubt", ended_before) },
            _ => record(if state == Ended { "ended" } else { "active" }, ended_before),
        };
        let kept = if record.state == "ended" { "still ended, try once more" } else { "the session is kept" };
        let error = match last {
            // A token that is still valid is served.
            _ if state == Early => None,
            Done => None,
            Unusable => Some((Status::Refused, "bad_answer", "refused", "new refresh token is kept")),
            Dead(_) => {
                Some((Status::SignInRequired, record.reason.unwrap_or_default(), "refused", "must sign in again"))
            }
            NotSent(reason) => Some((Status::Unavailable, reason, "not_sent", kept)),
            Refused(reason @ "server_unavailable") => Some((Status::Unavailable, reason, "refused", kept)),
            Refused(reason) => Some((Status::Refused, reason, "refused", kept)),
            Busy => {
                Some((Status::Unavailable, "server_unavailable", "unknown", "tried again until there is an answer"))
            }
            Unknown(reason) => Some((Status::Unavailable, reason, "unknown", "tried again until there is an answer")),
        };

        // A new refresh token is good, unless the server's own answer has kept it from us, or a ghost has ended it.
        let kept_back = answer == Answer::NoSuccessor && first == Done;
        let next_is_dead = match last {
            Done | Unusable => (kept_back && server.forgets()) || (reach == Reach::Ghost && server == Kind::Strict),
            _ => refused(spent),
        };
        let next = match record.reason {
            Some("rotation_lost") => None,
            _ if next_is_dead => Some(dead),
            _ => Some(Done),
        };
        let then = match next {
            None => record.clone(),
            Some(Done) => RecordSays { state: "active", reason: None, generation: generation + 1, sends: None },
            Some(_) => {
                let why = match last {
                    _ if doubt => "rotation_lost",
                    // The server has answered to this very token before.
                    Done if kept_back => "expired_or_revoked",
                    _ => "used_elsewhere_or_revoked",
                };
                RecordSays { state: "ended", reason: Some(why), generation, sends: None }
            }
        };
        let again = usize::from(replayed);
        Self {
            requests: usize::from(reach != Reach::Nowhere) + again,
            presentations: state.sends()
                + u32::from([Ended, BackOff].contains(&state))
                + u32::from(![Reach::Nowhere, Reach::Head].contains(&reach))
                + u32::from(replayed),
            wait_ms: wait_ms.filter(|_| !replayed && !renewed && record.reason.is_none_or(|_| doubt || state == Ended)),
            asked,
            outcomes,
            record,
            error,
            next,
            then,
        }
    }
}

/// The longest wait after an outcome that leaves the session as it is, and whether it is the server's word.
fn wait_after(outcome: Outcome, fault: &FaultKind, state: State) -> (Option<u64>, bool) {
    if let Some(asked_ms) = retry_after_ms(fault) {
        return (Some(asked_ms), true);
    }
    let first_ms = match outcome {
        Done | Unusable | Dead(_) => return (None, false),
        // The replay comes at once.
        Unknown(_) if !state.in_doubt() => return (None, false),
        Busy => 250,
        _ => 1000,
    };
    // Only failures that bind the same parties are counted.
    let binds_all = !matches!(outcome, NotSent("network") | Refused("client_refused" | "bad_answer"));
    let failures = match state {
        Doubt | SpentDoubt if binds_all => FAILURES,
        BackOff if binds_all => 1,
        _ => 0,
    };
    (Some(first_ms << failures), false)
}

/// One worker's server and client.
struct Place {
    server: Kind,
    scene: Scene,
    /// It has all the time that a busy machine may take.
    patient: Client,
    /// For the faults that nothing but a time-out ends.
    brisk: Client,
}

impl Place {
    fn new(server: Kind) -> Self {
        let scene = Scene::new(server.options());
        let open = |connect_timeout_ms: u32, exchange_timeout_ms: u32| {
            scene.open(json!({
                "store": "memory:",
                "early_renewal": "wait",
                "renew_before_s": 400,
                "max_exchanges": 1000,
                "connect_timeout_ms": connect_timeout_ms,
                "exchange_timeout_ms": exchange_timeout_ms,
            }))
        };
        Self { server, patient: open(15_000, 15_000), brisk: open(4000, 500), scene }
    }

    /// Brings the session into the state. Returns its tokens.
    fn bring_about(&self, client: &Client, state: State, session: &str) -> (String, Option<String>) {
        let scene = &self.scene;
        let down = |after| {
            let (code, body, retry_after) = (503, None, Some("600".into()));
            match after {
                true => FaultKind::StatusAfter { code, body, retry_after },
                false => FaultKind::Status { code, body, retry_after },
            }
        };
        let fails = |fault: FaultKind| {
            scene.server.fault(fault);
            client.renew(session, None, ANYWAY).unwrap_err();
        };
        let with_life = |age_s, life_s| {
            let access_token = scene.save_with_life(client, session, age_s, life_s);
            let family = scene.server.families().pop().unwrap();
            (family.refresh_tokens[0].token.clone(), Some(access_token))
        };
        match state {
            Early => return with_life(850, 1000),
            Rejected => return with_life(0, 1000),
            Expired => return with_life(2000, 1000),
            _ => {}
        }
        let refresh_token = scene.saved(client, session);
        match state {
            Doubt | SpentDoubt => (0..FAILURES).for_each(|n| fails(down(n == 0 && state == SpentDoubt))),
            Ended => fails(FaultKind::Error {
                error: "invalid_grant".into(),
                description: "inactive user".into(),
                status: 400,
            }),
            BackOff => fails(FaultKind::Status { code: 429, body: None, retry_after: Some("600".into()) }),
            SignedOut => client.sign_out(session).unwrap(),
            Fresh | Early | Rejected | Expired => {}
        }
        (refresh_token, None)
    }

    fn arm(&self, fault: &FaultKind) {
        if effect(fault).0 == Reach::Nowhere {
            // It strikes new connections only.
            self.scene.server.close_connections(false);
            self.all_connections_are_closed();
        }
        self.scene.server.fault(Fault::from(fault.clone()));
    }

    fn all_connections_are_closed(&self) {
        eventually("all connections are closed", || self.scene.server.stats().connections_open == 0);
    }

    /// The end of a fault that lasts.
    fn disarm(&self, fault: &FaultKind) {
        self.scene.server.clear_faults();
        if let FaultKind::RefuseConnections { .. } = fault {
            self.scene.server.refuse_connections(Duration::ZERO);
            let address = self.scene.server.url().replace("http://", "");
            eventually("it listens", || TcpStream::connect(&address).is_ok());
        }
    }

    fn run(&self, fault: &FaultKind, state: State, n: usize) {
        let (Self { scene, server, .. }, what) = (self, format!("{fault:?}, {state:?}, {:?}", self.server));
        let client = if ends_by_time_out(fault) { &self.brisk } else { &self.patient };
        let session = &format!("{n} {} {state:?}", fault.name());
        let (refresh_token, access_token) = self.bring_about(client, state, session);
        let before = scene.requests();
        self.arm(fault);
        if state == SignedOut {
            let error = ask(client, state, session, None).unwrap_err();
            assert_eq!(class(&error), (Status::SignInRequired, Some("signed_out")), "{what}: {error}");
            client.renew(session, None, ANYWAY).unwrap_err();
            assert_eq!((scene.requests() - before, scene.server.presentations(&refresh_token)), (0, 0), "{what}");
            assert_eq!((record(client, session).state, client.outcomes(session)), ("signed_out", vec![]), "{what}");
            assert_eq!(client.tell(session)["to_revoke"], 0, "{what}");
            assert!(!scene.server.is_live(&refresh_token), "{what}");
            return self.disarm(fault);
        }
        if state == BackOff {
            // Without "anyway", the fault finds nobody to strike.
            let error = client.access_token(session, WAIT).unwrap_err();
            assert_eq!(class(&error), (Status::Unavailable, Some("server_unavailable")), "{what}: {error}");
            assert_eq!(scene.requests(), before, "{what}");
        }

        let outcomes = |more: &[Outcome]| -> Vec<&'static str> {
            state.outcomes().into_iter().chain(more.iter().map(|outcome| outcome.name())).collect()
        };
        let earlier = state.outcomes().len();
        let result = thread::scope(|scope| {
            let asking = scope.spawn(|| ask(client, state, session, access_token.as_deref()));
            if let FaultKind::RefuseConnections { .. } = fault {
                eventually("it was refused", || client.outcomes(session).len() > earlier);
                self.disarm(fault);
            }
            asking.join().unwrap()
        });
        eventually(&what, || client.outcomes(session).len() > earlier);
        let late = *fault == FaultKind::ResetOnAccept && client.outcomes(session)[earlier] == "not_sent";
        let effect = if late { BEFORE_THE_FIRST_BYTE } else { effect(fault) };
        let expected = Expected::of(fault, effect, state, *server);
        let so_far = outcomes(&expected.outcomes);
        eventually(&what, || client.outcomes(session).len() >= so_far.len());
        eventually(&what, || client.count()["open_exchanges"] == 0);
        assert_eq!(client.outcomes(session), so_far, "{what}");
        assert_eq!(scene.requests() - before, expected.requests, "{what}");
        assert_eq!(scene.server.presentations(&refresh_token), expected.presentations, "{what}");
        assert_eq!(record(client, session), expected.record, "{what}");
        match (&result, expected.error) {
            (Ok(_), None) => {}
            (Err(error), Some(error_expected)) => check(error, error_expected, &expected, session, &what),
            _ => panic!("{what}: {result:?} instead of {:?}", expected.error),
        }
        if let Some(wait_ms) = expected.wait_ms.filter(|wait_ms| *wait_ms > 8 * SOON_MS) {
            let told_ms = client.tell(session)["retry_after_ms"].as_u64();
            assert!(told_ms.is_some_and(|told_ms| told_ms <= wait_ms + 1000), "{what}: {told_ms:?} of {wait_ms}");
            client.renew(session, None, None).unwrap_err();
            assert_eq!(scene.requests() - before, expected.requests, "{what}: it does not wait");
        }

        // The server is well again.
        eventually(&what, || scene.server.stats().in_flight == 0);
        if let FaultKind::SilentClose { .. } = fault {
            self.all_connections_are_closed();
        }
        let before = scene.requests();
        let healed = client.renew(session, None, ANYWAY);
        assert_eq!(healed.is_ok(), expected.next == Some(Done), "{what}: {healed:?}");
        assert_eq!(scene.requests() - before, usize::from(expected.next.is_some()), "{what}");
        assert_eq!(record(client, session), expected.then, "{what}: then");
        let all: Vec<Outcome> = expected.outcomes.iter().copied().chain(expected.next).collect();
        assert_eq!(client.outcomes(session), outcomes(&all), "{what}: then");

        // Every presentation has a claim of its own in the record.
        let history = client.tell(session)["history"].as_array().unwrap().clone();
        assert!(history.iter().all(|entry| entry["refresh_token_fingerprint"].is_string()), "{what}: {history:?}");
        let kind = |outcome| match outcome {
            "done" => "renewed",
            "invalid_grant" => "ended",
            _ => "renewal_failed",
        };
        let told = events(client, session);
        let kinds: Vec<_> = told.iter().map(|event| (event["kind"].clone(), event["outcome"].clone())).collect();
        let all: Vec<_> = outcomes(&all).into_iter().map(|outcome| (json!(kind(outcome)), json!(outcome))).collect();
        assert_eq!(kinds, all, "{what}");
        let reason = match expected.outcomes[0] {
            Dead(_) if state.in_doubt() => Some("rotation_lost"),
            outcome => outcome.reason(),
        };
        assert_eq!(told[earlier]["reason"].as_str(), reason, "{what}: {told:?}");
        let mut texts = vec![client.describe(session).unwrap(), client.events(0, 0).unwrap()];
        texts.extend(
            [result, healed].iter().filter_map(|result| result.as_ref().err()).map(|error| shown(error).to_string()),
        );
        for secret in [Some(refresh_token.as_str()), access_token.as_deref(), Some(SECRET)].into_iter().flatten() {
            assert!(texts.iter().all(|text| !text.contains(secret)), "{what}: {texts:?}");
        }
        self.disarm(fault);
    }
}

/// What a caller asks in this state.
fn ask(client: &Client, state: State, session: &str, rejected: Option<&str>) -> Result<Secret> {
    match state {
        Fresh | Early | Expired | SignedOut => client.access_token(session, WAIT),
        Rejected => client.renew(session, rejected, WAIT),
        Doubt | SpentDoubt | Ended | BackOff => client.renew(session, None, ANYWAY),
    }
}

fn record(client: &Client, session: &str) -> RecordSays {
    let told = client.tell(session);
    let known = ["active", "in_doubt", "ended", "signed_out"];
    let sends = &told["attempt"]["sends"];
    let reasons = ["signed_out", "rotation_lost", "inactive_user", "expired_or_revoked", "used_elsewhere_or_revoked"];
    let one_of = |names: &[&'static str], value: &Value| {
        names.iter().find(|name| *value == **name).copied().or_else(|| {
            assert!(value.is_null(), "{value}");
            None
        })
    };
    RecordSays {
        state: one_of(&known, &told["state"]).unwrap(),
        reason: one_of(&reasons, &told["reason"]),
        generation: told["generation"].as_u64().unwrap(),
        sends: sends.as_u64().map(|sends| sends as u32),
    }
}

/// Those of the session's exchanges.
fn events(client: &Client, session: &str) -> Vec<Value> {
    let mut events = client.log();
    events.retain(|event| event["session"] == session && event["kind"] != "saved");
    events
}

fn check(
    error: &Error,
    (status, reason, outcome, words): (Status, &str, &str, &str),
    expected: &Expected,
    session: &str,
    what: &str,
) {
    assert_eq!(class(error), (status, Some(reason)), "{what}: {error}");
    // Who has waited for a replay that came later may find only what is left of the session.
    if expected.outcomes.len() == 1 || error.outcome.is_some() {
        assert_eq!(error.outcome, Some(outcome), "{what}: {error}");
    }
    assert!(error.message.contains(&format!("session {session:?}: ")), "{what}: {error}");
    assert!(error.message.contains(words), "{what}: {error}");
    assert_eq!(error.session.as_deref(), Some(session), "{what}");
    match (expected.wait_ms, error.retry_after_ms) {
        (None, None) => {}
        (Some(most_ms), Some(told_ms)) if expected.asked => {
            assert!((most_ms..=most_ms + 1000).contains(&told_ms), "{what}: {told_ms} of {most_ms}");
        }
        (Some(most_ms), Some(told_ms)) => {
            assert!((most_ms / 2..=most_ms).contains(&told_ms), "{what}: {told_ms} of {most_ms}");
        }
        waits => panic!("{what}: {waits:?}"),
    }
}

#[test]
fn every_fault_in_every_state() {
    let cells: Vec<_> = faults().into_iter().flat_map(|fault| STATES.map(|state| (fault.clone(), state))).collect();
    let servers = [Kind::Strict, Kind::Refuses, Kind::Grace, Kind::Keeps].map(|kind| (kind, AtomicUsize::new(0)));
    thread::scope(|scope| {
        for (server, next) in servers.iter().flat_map(|server| [server; WORKERS]) {
            let cells = &cells;
            scope.spawn(move || {
                let place = Place::new(*server);
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some((fault, state)) = cells.get(n) else { break };
                    place.run(fault, *state, n);
                }
                for stats in [place.patient.count(), place.brisk.count()] {
                    // Nobody else renews here.
                    assert_eq!((&stats["commit_retries"], &stats["adopted"]), (&json!(0), &json!(0)));
                }
            });
        }
    });
}

#[test]
fn no_fault_is_left_out() {
    let listed = |names: serde_json::Error| -> Vec<String> {
        let names = names.to_string();
        names.split('`').skip(3).step_by(2).map(str::to_owned).collect()
    };
    let kinds = listed(serde_json::from_value::<FaultKind>(json!({"fault": "?"})).unwrap_err());
    let variants = listed(serde_json::from_value::<WrongType>(json!("?")).unwrap_err());
    let faults: Vec<Value> = faults().iter().map(|fault| serde_json::to_value(fault).unwrap()).collect();
    assert!(kinds.len() > 25 && variants.len() > 12, "{kinds:?}, {variants:?}");
    for kind in kinds {
        assert!(faults.iter().any(|fault| fault["fault"] == *kind), "{kind}");
    }
    for variant in variants {
        assert!(faults.iter().any(|fault| fault["variant"] == *variant), "{variant}");
    }
}
