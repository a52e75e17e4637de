//! A new session from the server itself: one exchange on a thread of the library, and the durable step of `save`.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use super::job::Open;
use super::words::{defect, not_signed_in, unusable};
use super::{Renewer, check_here, fresh};
use crate::config::Registration;
use crate::error::{Error, Result, Status};
use crate::oauth::{self, Deadline, Http};
use crate::process::lock;
use crate::process::tasks::{block_on, promise, wake_at};
use crate::secret::Secret;
use crate::session::cache::{Held, Reading, Slot};
use crate::session::events::Event;
use crate::session::protocol;
use crate::session::record::{Record, State};
use crate::session::report;
use crate::sync::Instant;
use crate::token::{Age, Answer, Life};

/// For so long a sign-in waits for what an earlier sign-out has left to revoke; then that goes on beside it.
const SWEEP_FIRST: Duration = Duration::from_secs(5);
/// The first wait before a save is tried again, and for how long it is.
const SAVE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));
/// How often a wait looks whether the client is being closed.
const LOOK: Duration = Duration::from_millis(50);

/// Asked right before each request leaves.
type Gate<'a> = &'a dyn Fn() -> std::result::Result<(), String>;

impl Renewer {
    /// Has `exchange` bring the server's answer, and keeps it as the session's token. Returns that token. It goes on to
    /// its end whether anybody still waits for it or not.
    pub async fn sign_in(
        &self,
        slot: &Arc<Slot>,
        exchange: impl FnOnce(&Http, &Registration, Gate) -> Result<Box<Answer>> + Send + 'static,
    ) -> Result<Secret> {
        let Some(renewer) = self.me.upgrade() else { return Err(defect()) };
        let open = {
            // Closing looks at the open jobs: none begins behind its back.
            let mut jobs = lock(&self.jobs);
            self.check_open(&slot.key.session)?;
            jobs.open += 1;
            Open(renewer)
        };
        let (promise, promised) = promise();
        let kept = Arc::clone(slot);
        let job = Box::new(move || {
            promise.keep(open.0.sign_in_here(&kept, exchange));
            drop(open);
        });
        if let Err(job) = self.runtime.workers.run(self.config.max_exchanges, job) {
            job(); // No thread can be started: the caller's does it.
        }
        poll_fn(|context| match promised.poll(context) {
            Poll::Ready(result) => Poll::Ready(result.unwrap_or_else(|()| Err(defect()))),
            Poll::Pending if self.is_closing() => Poll::Ready(self.check_open(&slot.key.session).and(Err(defect()))),
            Poll::Pending => {
                wake_at(Instant::now() + LOOK);
                Poll::Pending
            }
        })
        .await
    }

    fn sign_in_here(
        &self,
        slot: &Arc<Slot>,
        exchange: impl FnOnce(&Http, &Registration, Gate) -> Result<Box<Answer>>,
    ) -> Result<Secret> {
        let session = &slot.key.session;
        // A store that cannot be read would not keep the answer either.
        let (record, _) = self.load(slot).map_err(|mut error| {
            error.message.push_str(" Nothing was sent: finish this sign-in again soon.");
            error
        })?;
        check_here(session, record.as_deref(), true)?;
        self.sweep_first(slot, record.as_deref());
        let gate = || match self.is_closing() {
            true => Err("the client is being closed".to_owned()),
            false => Ok(()),
        };
        let sent_at = Reading::now();
        let answer =
            exchange(&self.http, &self.config.registration, &gate).map_err(|error| not_signed_in(session, error))?;
        if answer.signature_mismatch {
            self.events.push(Event::new("signature_mismatch", session));
        }
        let life = self.life(&answer, sent_at.wall_ms);
        let record = self.keep(slot, &answer, life).inspect_err(|_| self.give_back(&answer))?;
        self.find_expiry(slot, &record, Age::New);
        match Held::new(record, false, Reading::now()) {
            Some(held) => report::token(session, &held),
            None => Err(unusable(session, answer.unusable.as_deref().unwrap_or("there is none"))),
        }
    }

    /// What an earlier sign-out has left counts against the user at some servers.
    fn sweep_first(&self, slot: &Arc<Slot>, record: Option<&Record>) {
        if record.is_none_or(|record| record.secrets.to_revoke.is_empty()) {
            return;
        }
        if let Some(job) = slot.running_job().or_else(|| self.start_sweep(slot, Duration::ZERO)) {
            block_on(slot.job_ended(job, Instant::now() + SWEEP_FIRST, || self.is_closing()));
        }
    }

    /// The durable step. A store that fails for a moment only does not cost the user another sign-in.
    fn keep(&self, slot: &Slot, answer: &Answer, life: Option<Life>) -> Result<Arc<Record>> {
        let session = &slot.key.session;
        let (mut retry_after, until) = (SAVE.0, Instant::now() + SAVE.1);
        loop {
            let event = Event {
                reason: answer.refresh_token.is_none().then(|| "no_refresh_token".to_owned()),
                ..Event::new("saved", session)
            };
            let result = self.rewrite(slot, event, |record, moment| {
                check_here(session, record, true)?;
                check_renewable(session, record, answer)?;
                Ok(protocol::sign_in(record, answer, fresh()?, life, moment))
            });
            match result {
                Ok(Some(record)) => return Ok(record),
                Ok(None) => return Err(defect()),
                Err(error) => {
                    let gives_up = self.abandoned.load(Ordering::Acquire) || Instant::now() >= until;
                    if error.status != Status::Store || gives_up {
                        return Err(not_saved(session, error));
                    }
                }
            }
            block_on(slot.changed(retry_after, || self.abandoned.load(Ordering::Acquire)));
            retry_after *= 2;
        }
    }

    /// Has what cannot be kept revoked, as far as the server can be told now.
    fn give_back(&self, answer: &Answer) {
        let registration = &self.config.registration;
        let now = Instant::now();
        let deadline = Deadline {
            first_byte: now + registration.connect_timeout,
            answer: now + registration.connect_timeout + registration.exchange_timeout,
        };
        for token in answer.refresh_token.iter().chain(&answer.access_token) {
            let _ = oauth::revoke::revoke(&self.http, registration, token, "", deadline);
        }
    }
}

/// A session that can be renewed is not given up for one that cannot.
fn check_renewable(session: &str, record: Option<&Record>, answer: &Answer) -> Result<()> {
    let renewable = |record: &Record| record.state == State::Active && record.secrets.refresh_token.is_some();
    if answer.refresh_token.is_some() || !record.is_some_and(renewable) {
        return Ok(());
    }
    let message = "the server gave no refresh token: ask for one in scope (\"offline_access\", at Salesforce \
                   \"refresh_token\") or in authorize_parameters, as the server wants it";
    let mut error = Error::new(Status::Refused, message).because("no_refresh_token");
    error.outcome = Some("refused");
    Err(not_signed_in(session, error))
}

fn not_saved(session: &str, mut error: Error) -> Error {
    if error.status == Status::Store {
        error.message.push_str(" The user was signed in, but that could not be saved: the user must sign in again.");
    }
    error.about(session)
}
