//! What the server says of an access token (RFC 7662): for a caller, and to learn when a token ends.

use std::sync::Arc;

use super::Renewer;
use crate::error::{Error, Result, Status};
use crate::oauth::introspect::{self, Introspection, NO_INTROSPECTION_ENDPOINT};
use crate::oauth::{Deadline, Failure};
use crate::process::lock;
use crate::secret::Secret;
use crate::session::cache::{Reading, Slot};
use crate::session::events::Event;
use crate::session::protocol::{self, Want};
use crate::session::record::{Record, State};
use crate::sync::{Instant, Mutex};
use crate::token::{Age, Expiry};

impl Renewer {
    /// Asks the server about the access token that a caller would get now.
    pub async fn introspect(&self, slot: &Arc<Slot>, until: Instant) -> Result<Secret> {
        let session = &slot.key.session;
        self.check_open(session)?;
        if !self.config.registration.has_introspection() {
            let problem = "it is missing, and the server's is not known otherwise: there is nobody to ask";
            return Err(Error::invalid(format!("configuration key \"introspection_endpoint\": {problem}")));
        }
        let token = self.obtain(slot, Want::Token { min_valid_ms: 0 }, until).await?.access_token().clone();
        let answer = Arc::new(Mutex::new(None));
        let (to, caller) = (Arc::clone(&answer), Arc::clone(slot));
        self.start_beside(move |renewer| {
            let told = renewer.ask_about(&token);
            *lock(&to) = Some(told);
            caller.wake();
        });
        loop {
            if let Some(told) = lock(&answer).take() {
                return told.map(|told| told.json).map_err(|failure| refused(session, &failure));
            }
            self.check_open(session)?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let message =
                    format!("session {session:?}: your wait ended before the server's answer came; ask again");
                return Err(Error::new(Status::TimedOut, message).about(session));
            }
            slot.changed(left, || self.is_closing() || lock(&answer).is_some()).await;
        }
    }

    fn ask_about(&self, access_token: &Secret) -> std::result::Result<Introspection, Failure> {
        let registration = &self.config.registration;
        introspect::introspect(&self.http, registration, access_token, Deadline::from_now(registration))
    }

    /// Has the server asked when an access token ends that came without that, where `expiry_from_introspection` says so.
    /// The token is committed and served before; what comes of this is a write of its own.
    pub(super) fn find_expiry(&self, slot: &Slot, record: &Record, age: Age) {
        let unknown = record.life.filter(|life| record.state == State::Active && life.expiry != Expiry::Known);
        let (Some(life), Some(token), true) =
            (unknown, record.secrets.access_token.clone(), self.config.expiry_from_introspection)
        else {
            return;
        };
        let slot = self.vault.slot(&slot.key);
        self.start_beside(move |renewer| {
            let failed = |reason: Option<&str>, message: String| Event {
                reason: reason.map(str::to_owned),
                message: Some(message),
                ..Event::new("introspection_failed", &slot.key.session)
            };
            let life_s = match renewer.ask_about(&token) {
                Ok(told) => told.life_s(life.from_ms as f64 / 1000.0, age),
                Err(failure) => return renewer.events.push(failed(Some(failure.reason), failure.message)),
            };
            let Some(life_s) = life_s else {
                let message = "the server did not say when the access token ends: only a rejection renews it";
                return renewer.events.push(failed(Some("bad_answer"), message.to_owned()));
            };
            let until_ms = life.from_ms.saturating_add(life_s.saturating_mul(1000));
            if let Err(error) = renewer.write_expiry(&slot, &token, until_ms) {
                renewer.events.push(failed(error.reason.as_deref(), error.message.clone()));
            }
        });
    }

    fn write_expiry(&self, slot: &Slot, access_token: &Secret, until_ms: i64) -> Result<()> {
        loop {
            let (found, _) = self.vault.store.load(&slot.key)?;
            let Some(next) = protocol::expires(found.as_ref(), access_token, until_ms) else { return Ok(()) };
            if self.vault.store.compare_and_swap(&slot.key, found.map(|record| record.version), &next)? {
                slot.publish(Some(&Arc::new(next)), Reading::now());
                return Ok(());
            }
        }
    }
}

fn refused(session: &str, failure: &Failure) -> Error {
    let status = match failure.reason {
        NO_INTROSPECTION_ENDPOINT => Status::InvalidArgument,
        "client_refused" => Status::Refused,
        _ => Status::Unavailable,
    };
    failure.error(status, format!("session {session:?}: {}; the session is kept", failure.message)).about(session)
}
