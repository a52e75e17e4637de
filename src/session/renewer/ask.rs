//! What the server is asked beside a renewal: about an access token (RFC 7662), for a caller or to learn when it ends, and
//! where its endpoints are.

use std::borrow::Cow;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::Renewer;
use super::words::defect;
use crate::config::Registration;
use crate::error::{Error, Result, Status};
use crate::oauth::discovery::{self, Endpoint};
use crate::oauth::introspect::{self, Introspection, NO_INTROSPECTION_ENDPOINT};
use crate::oauth::{Deadline, Failure, Outcome};
use crate::process::tasks::{promise, wake_at};
use crate::secret::Secret;
use crate::session::cache::{Reading, Slot};
use crate::session::events::Event;
use crate::session::protocol::{self, Want};
use crate::session::record::{Record, State};
use crate::sync::Instant;
use crate::token::{Age, Expiry};

/// How often a wait looks whether the client is being closed.
const LOOK: Duration = Duration::from_millis(50);

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
        let told = self.beside(until, move |renewer| renewer.ask_about(&token)).await;
        let told = told.map_err(|error| error.about(session))?;
        told.map(|told| told.json).map_err(|failure| refused(session, &failure))
    }

    /// The registration with the endpoint that users are sent to, for which a server that is named by its issuer is asked.
    pub async fn signs_in_at(&self) -> Result<Cow<'_, Registration>> {
        const NEEDED: &[Endpoint] = &[Endpoint::Authorization];
        let registration = &self.config.registration;
        if registration.issuer.is_none() {
            return Ok(Cow::Borrowed(registration));
        }
        let resolve = |renewer: &Self| {
            let registration = &renewer.config.registration;
            let deadline = Deadline::from_now(registration);
            discovery::resolve(&renewer.http, registration, NEEDED, deadline).map(Cow::into_owned)
        };
        match self.beside(Instant::now() + self.config.max_wait, resolve).await? {
            Ok(resolved) => Ok(Cow::Owned(resolved)),
            Err(failure) => Err(Outcome::NotSent(failure).error(|failure| failure.message.clone())),
        }
    }

    /// Has a thread of the library ask the server something, and waits for that until then.
    async fn beside<T: Send + 'static>(
        &self,
        until: Instant,
        ask: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T> {
        let (promise, promised) = promise();
        self.start_beside(move |renewer| promise.keep(ask(renewer)));
        poll_fn(|context| match promised.poll(context) {
            Poll::Ready(Ok(told)) => Poll::Ready(Ok(told)),
            _ if self.is_closing() => Poll::Ready(self.check_open("").and(Err(defect()))),
            Poll::Ready(Err(())) => Poll::Ready(Err(defect())),
            Poll::Pending if Instant::now() >= until => {
                let message = "your wait ended before the server's answer came; ask again";
                Poll::Ready(Err(Error::new(Status::TimedOut, message)))
            }
            Poll::Pending => {
                wake_at(until.min(Instant::now() + LOOK));
                Poll::Pending
            }
        })
        .await
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
