//! `evergrant_queue_*`

use std::ffi::c_char;
use std::mem::MaybeUninit;

use super::argument::{self, Text};
use super::client::evergrant_client;
use super::error::evergrant_error;
use super::guard::{catch, guard, store};
use super::string::give;
use crate::error::Status as evergrant_status;
use crate::queue::Queue;

/// Calls that need no thread of the program: for event loops, and for waits that something else may end.
///
/// A call is submitted, goes on by itself, and its result waits in the queue. Thousands may wait at one time, on a few
/// threads of the library. One queue serves any number of clients. A forked child opens a queue of its own: to use its
/// parent's is EVERGRANT_STATUS_CLOSED.
pub struct evergrant_queue {
    queue: Queue,
}

/// Opens a queue.
///
/// @param queue_out  Owned: free with evergrant_queue_free().
/// @param fd_out     A descriptor that can be read while results wait in the queue: for poll() and event loops. Its bytes
///                   mean nothing and may be read. Owned: close it with close(), before or after the queue. -1 where the
///                   system has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_queue_open(
    queue_out: Option<&mut MaybeUninit<*mut evergrant_queue>>,
    fd_out: Option<&mut MaybeUninit<i32>>,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    guard(error_out, || {
        let queue = Queue::open()?;
        if fd_out.is_some() {
            store(fd_out, queue.descriptor()?);
        }
        if queue_out.is_some() {
            store(queue_out, Box::into_raw(Box::new(evergrant_queue { queue })));
        }
        Ok(())
    })
}

/// Starts a call and returns at once, without any I/O.
///
///     {"call": "session_token", "session": "alice", "options": {"max_wait_ms": 5000}}
///
/// `call` is the name of a function less `evergrant_`; the other members are its arguments, less client and outputs.
/// What the function takes as JSON text is JSON here: `options`, `token`, `request`, `sign_in` for its `options_json`,
/// `token_json` and so on. A null member counts as absent; without `max_wait_ms`, client_close waits for `exit_wait_ms`
/// of the configuration. There are session_save, session_token, session_access_token, session_renew, session_describe,
/// session_list, session_introspect, session_sign_out, session_forget, client_stats, client_events, client_close,
/// sign_in_start, sign_in_finish, sign_in_with_browser, sign_in_with_password and, without a client, refresh.
///
/// @param client     NULL for `refresh` only. It may be closed and freed while the call is under way.
/// @param tag        Comes back with the result. Keep it below 2^53 if a JSON parser reads numbers as double.
/// @param call_json  A JSON object. What is wrong with its shape is an error here; every other one is the call's result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_queue_submit(
    queue: Option<&evergrant_queue>,
    client: Option<&evergrant_client>,
    tag: u64,
    call_json: *const c_char,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    // SAFETY: a C string or NULL.
    let call = unsafe { Text::new("call_json", call_json) };
    guard(error_out, || {
        let queue = &queue.ok_or_else(|| argument::null("queue"))?.queue;
        queue.submit(client.map(|handle| &handle.client), tag, call.required()?)
    })
}

/// Takes all results, in the order in which the calls finished:
///
///     [{"tag": 7, "status": "OK", "value": {...}}, {"tag": 8, "status": "TIMED_OUT", "error": {...}}]
///
/// `value` is what the function puts into its output, null if it has none; `error` is as from evergrant_error_json().
/// The queue's descriptor cannot be read then, until the next result.
///
/// @param max_wait_ms  How long to wait for the first result, in milliseconds; 0 only looks.
/// @param json_out     A JSON array, empty if no call has finished. Owned: free with evergrant_string_free(). If it is
///                     NULL, nothing is taken.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_queue_take(
    queue: Option<&evergrant_queue>,
    max_wait_ms: u32,
    json_out: Option<&mut MaybeUninit<*mut c_char>>,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    guard(error_out, || {
        let queue = &queue.ok_or_else(|| argument::null("queue"))?.queue;
        if json_out.is_none() {
            return Ok(());
        }
        give(json_out, queue.take(max_wait_ms)?.expose())
    })
}

/// Frees a queue: no other call with it may be running or follow. Calls under way go on, and their results are dropped.
///
/// @param queue  NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_queue_free(queue: *mut evergrant_queue) {
    if !queue.is_null() {
        // SAFETY: `evergrant_queue_open` made this queue with `Box::into_raw`, and this is its last use.
        catch(|| drop(unsafe { Box::from_raw(queue) }));
    }
}
