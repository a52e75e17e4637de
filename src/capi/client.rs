//! `evergrant_client_*`

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::sync::Arc;

use super::argument::{self, Text};
use super::error::evergrant_error;
use super::guard::{catch, guard, store};
use super::string::give;
use crate::client::Client;
use crate::error::Status as evergrant_status;

/// One OAuth client registration at one authorization server (RFC 6749 section 2), with one store of sessions.
///
/// All functions on a client may run at the same time, except evergrant_client_free().
pub struct evergrant_client {
    pub(super) client: Arc<Client>,
}

/// Opens a client.
///
///     {"site_url": "https://example.my.site.com", "client_id": "...", "client_secret_env": "CLIENT_SECRET"}
///
/// docs/configuration.md lists all keys. An unknown key is an error that names it.
///
/// @param config_json  The configuration: a JSON object.
/// @param client_out   Owned: close with evergrant_client_close(), then free with evergrant_client_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_client_open(
    config_json: *const c_char,
    client_out: Option<&mut MaybeUninit<*mut evergrant_client>>,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    // SAFETY: a C string or NULL.
    let config = unsafe { Text::new("config_json", config_json) };
    guard(error_out, || {
        let client = Client::open(config.required()?)?;
        // Not wanted: the configuration and the store were tried, and the client closes again.
        if client_out.is_some() {
            store(client_out, Box::into_raw(Box::new(evergrant_client { client: Arc::new(client) })));
        }
        Ok(())
    })
}

/// Counters since open: `hits`, `store_reads`, `adopted`, `waits`, `exchanges` by outcome, `replays`,
/// `commit_retries`, `cached_sessions`, `open_exchanges`.
///
/// @param json_out  A JSON object. Owned: free with evergrant_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_client_stats(
    client: Option<&evergrant_client>,
    json_out: Option<&mut MaybeUninit<*mut c_char>>,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    guard(error_out, || give(json_out, &argument::client(client)?.stats()?))
}

/// What happened since an event, oldest first:
///
///     {"events": [{"n": 7, "at_s", "kind", "session", "outcome", "reason", "duration_ms"}], "next": 7, "dropped": 0}
///
/// `kind` is `renewed`, `adopted`, `renewal_failed`, `ended`, `saved`, `signed_out`, `commit_pending`,
/// `signature_mismatch`, `store_warning`, `forgotten`, `revocation_failed`, `moved`, `introspection_failed`, or one that a
/// later version adds. Only the latest events are kept; `dropped` says how many were missed.
///
/// @param after        0 at first, then `next` of the previous answer.
/// @param max_wait_ms  How long to wait for the first event, in milliseconds; 0 only looks.
/// @param json_out     A JSON object. Owned: free with evergrant_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_client_events(
    client: Option<&evergrant_client>,
    after: u64,
    max_wait_ms: u32,
    json_out: Option<&mut MaybeUninit<*mut c_char>>,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    guard(error_out, || give(json_out, &argument::client(client)?.events(after, max_wait_ms)?))
}

/// Closes a client: lets renewals that are under way finish, and makes every waiting and later call return
/// EVERGRANT_STATUS_CLOSED. It may be called from any thread, and again.
///
/// @param max_wait_ms  How long to wait for renewals under way, in milliseconds.
/// @return             EVERGRANT_STATUS_TIMED_OUT if one is still under way then. It is safe to go on and free the
///                     client: a later run settles it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_client_close(
    client: Option<&evergrant_client>,
    max_wait_ms: u32,
) -> evergrant_status {
    let Some(handle) = client else { return evergrant_status::InvalidArgument };
    catch(|| handle.client.close(max_wait_ms)).unwrap_or(evergrant_status::Internal)
}

/// Frees a client, after evergrant_client_close(). This is the last call: no other may be running or follow, and what
/// was borrowed from the client ends. Calls of it that a queue has not finished end with EVERGRANT_STATUS_CLOSED.
///
/// @param client  NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_client_free(client: *mut evergrant_client) {
    if !client.is_null() {
        // SAFETY: `evergrant_client_open` made this client with `Box::into_raw`, and this is its last use.
        catch(|| unsafe { Box::from_raw(client) }.client.end());
    }
}
