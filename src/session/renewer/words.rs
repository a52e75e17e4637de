//! What callers are told when there is no token: what happened, what it means for the session, what to do next.

use std::time::Duration;

use crate::error::{Error, Status};
use crate::oauth::Outcome;
use crate::session::cache::Failed;
use crate::session::ends::why_ended;
use crate::session::protocol::Refusal;
use crate::session::record::{Binds, Place, Record, State};

pub(super) fn defect() -> Error {
    Error::new(Status::Internal, "the renewal ended by a defect of this library; please report it. The session is kept")
}

pub(super) fn refused(session: &str, refusal: &Refusal) -> Failed {
    match refusal {
        Refusal::SignIn { reason } => {
            Error::new(Status::SignInRequired, format!("session {session:?}: {}", why_ended(reason)))
                .because(reason)
                .about(session)
                .into()
        }
        Refusal::BackOff { retry_after_ms, cause, reason, binds, doubt } => {
            let status = match binds {
                Binds::Configuration(_) => Status::Refused,
                Binds::All | Binds::Host(_) => Status::Unavailable,
            };
            let wait = Duration::from_millis(retry_after_ms.unsigned_abs());
            let message =
                format!("session {session:?}: {cause}; it is kept, the next try is in {:.1} s", wait.as_secs_f32());
            let mut error = Error::new(status, message).because(reason).about(session);
            error.retry_after_ms = Some(retry_after_ms.unsigned_abs());
            Failed { error, goes_on_after: doubt.then_some(wait) }
        }
        Refusal::Away { arrived, place } => away(session, *arrived, place.as_ref()).into(),
    }
}

/// A session that another store has, or is to have.
pub(super) fn away(session: &str, arrived: bool, place: Option<&Place>) -> Error {
    let there = place.map_or("another store", |place| &place.store);
    let (status, reason, text) = if arrived {
        (Status::Store, "moved", format!("it was moved to {there}: set store to that"))
    } else {
        let text = format!("it is being moved to {there}; if that was interrupted, run the move again");
        (Status::Unavailable, "moving", text)
    };
    Error::new(status, format!("session {session:?}: {text}")).because(reason).about(session)
}

/// The error of an exchange, with what it means for the session.
pub(super) fn failed(session: &str, outcome: &Outcome, record: &Record) -> Error {
    let meaning = match outcome {
        Outcome::InvalidGrant(_) => "the session has ended, the user must sign in again",
        Outcome::NotSent(_) | Outcome::Refused(_) if record.state == State::Ended => {
            "the session is still ended, try once more later with anyway: true"
        }
        Outcome::Refused(_) => "the session is kept",
        Outcome::NotSent(_) => "the session is kept, try again later",
        _ => "the session is kept, and the renewal is tried again until there is an answer",
    };
    let mut error = outcome.error(|failure| format!("session {session:?}: {}; {meaning}", failure.message));
    if matches!(outcome, Outcome::InvalidGrant(_)) && record.state == State::Ended {
        error.reason.clone_from(&record.reason);
    }
    error.about(session)
}

pub(super) fn unusable(session: &str, why: &str) -> Error {
    let message = format!(
        "session {session:?}: the server renewed it, but its answer has no access token that can be used ({why}); the new refresh token is kept"
    );
    let mut error = Error::new(Status::Refused, message).because("bad_answer").about(session);
    error.outcome = Some("refused");
    error
}

/// A sign-in that failed, with what it means for the session.
pub(super) fn not_signed_in(session: &str, mut error: Error) -> Error {
    error.message = format!("session {session:?}: {}; the session, if there was one, is as it was", error.message);
    error.about(session)
}

/// A store's error that came before anything was sent.
pub fn unspent(mut error: Error) -> Error {
    error.message.push_str(" Nothing was sent: the refresh token was not spent.");
    error
}
