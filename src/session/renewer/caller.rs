//! What callers run, on their own threads or carried by the library's: serve from memory, look into the store, start or
//! join a job, wait.

use std::sync::Arc;
use std::time::Duration;

use super::Renewer;
use super::job::Loaded;
use super::words::{refused, unspent};
use crate::config::EarlyRenewal;
use crate::error::{Error, Result, Status};
use crate::session::cache::{Failed, Held, Reading, Slot, Waited};
use crate::session::events::count;
use crate::session::protocol::{Decision, Want};
use crate::session::record::{Id, State};
use crate::sync::Instant;

/// Callers with time left wait for a renewal that goes on by itself within this time.
const SOON: Duration = Duration::from_secs(2);
/// For so long a valid token is served from memory after its store could not be asked.
const TRUST_MS: i64 = 2000;
/// With a valid token nobody waits longer for a store that is silent.
const GLANCE: Duration = Duration::from_secs(1);
/// The first and the longest wait between two looks at another party's attempt.
const POLL: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));
/// The longest one where the store tells of its end.
const POLL_TOLD: Duration = Duration::from_millis(250);

impl Renewer {
    /// What a caller wants, from memory, from the store, or from a renewal that it starts or joins.
    pub async fn obtain(&self, slot: &Arc<Slot>, mut want: Want, until: Instant) -> Result<Arc<Held>> {
        if let Want::Newer { than: than @ None, .. } = &mut want {
            let held = slot.held().clone();
            *than = match held {
                Some(held) => Some((held.record.grant, held.record.generation)),
                None => self.load(slot)?.0.map(|record| (record.grant, record.generation)),
            };
        }
        let mut interval = POLL.0;
        let mut found = None;
        let mut looked_aside = false;
        let mut watch = None;
        loop {
            self.check_open(&slot.key.session)?;
            if let Some(held) = self.in_memory(slot, &want) {
                self.stats.hit(0);
                return Ok(held);
            }
            if let Some(held) = renewed_since(slot, found) {
                return Ok(held);
            }
            if let Some(job) = slot.running_job() {
                match self.join(slot, job, &want, until).await? {
                    Some(held) => return Ok(held),
                    None => continue,
                }
            }
            let looked = match self.still_valid(slot, &want) {
                Some(_) => self.load_soon(slot, GLANCE),
                None => self.load_at(slot),
            };
            let loaded = match looked {
                Ok(loaded) => loaded,
                Err(error) => match self.after_failure(slot, unspent(error).into(), &want, until).await? {
                    Some(held) => {
                        held.trust_for(Reading::now(), self.recheck_ms, TRUST_MS);
                        return Ok(held);
                    }
                    None => continue,
                },
            };
            found = found.or_else(|| loaded.record.as_ref().map(|record| (record.grant, record.generation)));
            match self.decide(slot, loaded.record.as_deref(), &loaded.now, &want) {
                Decision::Serve { early } => {
                    let Some(held) = slot.held().clone() else { continue };
                    match early {
                        None => held.quiet_for(Reading::now(), 1000),
                        Some(_) => self.renew_early(slot, &want, loaded, until).await,
                    }
                    return Ok(self.still_valid(slot, &want).unwrap_or(held));
                }
                Decision::Adopt => {
                    if let Some(held) = slot.held().clone() {
                        return Ok(held);
                    }
                }
                Decision::Wait => {
                    if interval == POLL.0 {
                        count(&self.stats.waits);
                    }
                    if Instant::now() >= until {
                        return self.out_of_time(slot, &want);
                    }
                    if let (None, Some(record)) = (&watch, &loaded.record) {
                        let slot = Arc::downgrade(slot);
                        let wake = move || _ = slot.upgrade().inspect(|slot| slot.wake());
                        watch = self.vault.store.watch(record.grant, Arc::new(wake));
                    }
                    slot.time_to_poll(interval, until, || self.is_closing()).await;
                    let told = watch.as_ref().is_some_and(|watch| watch.hears());
                    interval = (interval * 3 / 2).min(if told { POLL_TOLD } else { POLL.1 });
                }
                Decision::Refuse(refusal) => {
                    // An answer that was set aside revives an end.
                    let ended = loaded.record.is_some_and(|record| record.state == State::Ended);
                    if ended
                        && !std::mem::replace(&mut looked_aside, true)
                        && let Some(job) = self.start_settling(slot)
                    {
                        self.join(slot, job, &want, until).await?;
                        continue;
                    }
                    let failed = refused(&slot.key.session, &refusal);
                    if let Some(held) = self.after_failure(slot, failed, &want, until).await? {
                        return Ok(held);
                    }
                }
                Decision::Claim { .. } | Decision::Write(..) => {
                    let job = self.start(slot, want.clone(), Some(loaded));
                    if let Some(held) = self.join(slot, job, &want, until).await? {
                        return Ok(held);
                    }
                    if let Want::Newer { anyway, .. } = &mut want {
                        *anyway = false; // Once: from here on it waits like everybody else.
                    }
                }
            }
        }
    }

    /// Waits for a job. `None`: look again.
    async fn join(&self, slot: &Slot, job: u64, want: &Want, until: Instant) -> Result<Option<Arc<Held>>> {
        match slot.job_ended(job, until, || self.is_closing()).await {
            Waited::Finished => Ok(None),
            Waited::TimedOut => self.out_of_time(slot, want).map(Some),
            Waited::Failed(failed) => self.after_failure(slot, failed, want, until).await,
        }
    }

    /// A token that is still valid makes up for a failure; a renewal that goes on by itself soon is waited for.
    async fn after_failure(
        &self,
        slot: &Slot,
        failed: Failed,
        want: &Want,
        until: Instant,
    ) -> Result<Option<Arc<Held>>> {
        if let Some(held) = self.still_valid(slot, want) {
            return Ok(Some(held));
        }
        match failed.goes_on_after {
            Some(wait) if wait <= SOON && Instant::now() + wait < until => {
                slot.changed(wait, || self.is_closing()).await;
                Ok(None)
            }
            _ => Err(failed.error),
        }
    }

    fn out_of_time(&self, slot: &Slot, want: &Want) -> Result<Arc<Held>> {
        self.still_valid(slot, want).ok_or_else(|| {
            let session = &slot.key.session;
            let what = if self.config.renews {
                "your wait ended before the renewal did; it goes on without you, ask again"
            } else {
                "your wait ended before another party renewed it; this client has renews: false"
            };
            Error::new(Status::TimedOut, format!("session {session:?}: {what}")).about(session)
        })
    }

    async fn renew_early(&self, slot: &Arc<Slot>, want: &Want, found: Loaded, until: Instant) {
        let job = self.start(slot, want.clone(), Some(found));
        if self.config.early_renewal == EarlyRenewal::Wait {
            // Its failure is an event: the token is still valid.
            slot.job_ended(job, until, || self.is_closing()).await;
        }
    }
}

/// A token that is newer than what a caller found. The server has no better one, even if it is shorter than was wanted,
/// or the rejected one once more: to ask again would be to ask for ever.
fn renewed_since(slot: &Slot, found: Option<(Id, u64)>) -> Option<Arc<Held>> {
    let (grant, generation) = found?;
    let newer = |held: &Held| held.record.grant == grant && held.record.generation > generation;
    slot.held().clone().filter(|held| newer(held) && held.is_valid(Reading::now(), 0))
}
