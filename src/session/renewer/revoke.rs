//! What a sign-out leaves to do: the tokens that the server has yet to confirm revoked.

use std::sync::Arc;
use std::time::Duration;

use super::Renewer;
use crate::error::Result;
use crate::oauth::revoke::NO_REVOCATION_ENDPOINT;
use crate::oauth::{self, Deadline};
use crate::session::cache::{Failed, Reading, Slot};
use crate::session::events::Event;
use crate::session::protocol;
use crate::sync::Instant;

impl Renewer {
    /// Has what is left of a sign-out revoked, at most once in this long.
    pub(super) fn start_sweep(&self, slot: &Slot, at_most_every: Duration) -> Option<u64> {
        if !slot.may_sweep(at_most_every) {
            return None;
        }
        // Through the vault, since a load knows its slot only by reference.
        let slot = self.vault.slot(&slot.key);
        Some(self.start_job(&slot, |renewer, slot| renewer.revoke(slot).map_err(Failed::from)))
    }

    /// RFC 7009, for every token that waits for it. Each confirmed one is removed. What a server says of one token says
    /// nothing of the others; one that cannot be asked now is asked for none of them.
    pub(super) fn revoke(&self, slot: &Slot) -> Result<()> {
        slot.may_sweep(Duration::ZERO); // This is one.
        let registration = &self.config.registration;
        let (Some(record), _) = self.vault.store.load(&slot.key)? else { return Ok(()) };
        for token in &record.secrets.to_revoke {
            let deadline = Deadline::from_now(registration);
            match oauth::revoke::revoke(&self.http, registration, token, "", deadline) {
                Ok(()) => {}
                // The server says so itself: there will be nobody to tell.
                Err(failure) if failure.reason == NO_REVOCATION_ENDPOINT && registration.issuer.is_some() => {}
                Err(failure) => {
                    let wait = failure.retry_after_ms.map(Duration::from_millis);
                    slot.sweep_not_before(Instant::now() + wait.unwrap_or_default());
                    self.events.push(Event {
                        reason: Some(failure.reason.to_owned()),
                        message: Some(failure.message),
                        ..Event::new("revocation_failed", &slot.key.session)
                    });
                    match failure.reason {
                        "network" | "server_unavailable" | "no_private_key" | NO_REVOCATION_ENDPOINT => return Ok(()),
                        _ => continue,
                    }
                }
            }
            loop {
                let (found, _) = self.vault.store.load(&slot.key)?;
                let Some(next) = protocol::revoked(found.as_ref(), token) else { break };
                if self.vault.store.compare_and_swap(&slot.key, found.map(|record| record.version), &next)? {
                    slot.publish(Some(&Arc::new(next)), Reading::now());
                    break;
                }
            }
        }
        Ok(())
    }
}
