//! `evergrant_error_*`

use std::ffi::{CStr, CString, c_char};

use super::guard::catch;
use crate::error::{Error, Status as evergrant_status};

/// Why a call failed. Owned by the caller: free it with evergrant_error_free(). It contains no secrets and never changes.
pub struct evergrant_error {
    status: evergrant_status,
    message: CString,
    json: CString,
}

impl From<Error> for evergrant_error {
    fn from(error: Error) -> Self {
        let json = serde_json::to_string(&error).unwrap_or_else(|_| "{}".to_owned());
        Self { status: error.status, message: c_text(error.message.clone()), json: c_text(json) }
    }
}

/// A server may put anything into its texts, NUL included.
fn c_text(text: String) -> CString {
    CString::new(text).unwrap_or_else(|error| {
        let text = String::from_utf8_lossy(&error.into_vec()).replace('\0', "\u{fffd}");
        CString::new(text).unwrap_or_default()
    })
}

/// The class of an error, the same as the failed call returned.
///
/// @param error  NULL is allowed: EVERGRANT_STATUS_OK.
#[unsafe(no_mangle)]
pub extern "C" fn evergrant_error_status(error: Option<&evergrant_error>) -> evergrant_status {
    error.map_or(evergrant_status::Ok, |error| error.status)
}

/// One line for people, complete by itself: what happened, what it means for the session, what to do next.
///
/// @param error  NULL is allowed: the empty string.
/// @return       Borrowed until evergrant_error_free().
#[unsafe(no_mangle)]
pub extern "C" fn evergrant_error_message(error: Option<&evergrant_error>) -> *const c_char {
    error.map_or(c"", |error| &error.message as &CStr).as_ptr()
}

/// The same in parts, for programs:
///
///     {"status": "SIGN_IN_REQUIRED", "message", "reason", "error", "error_description", "error_uri",
///      "http_status", "retry_after_ms", "outcome", "session"}
///
/// Only `status` and `message` are always there. `error`, `error_description` and `error_uri` are the server's own
/// words (RFC 6749 section 5.2). `outcome` is `not_sent`, `refused` or `unknown` wherever a request was tried.
///
/// @param error  NULL is allowed: an empty object.
/// @return       Borrowed until evergrant_error_free().
#[unsafe(no_mangle)]
pub extern "C" fn evergrant_error_json(error: Option<&evergrant_error>) -> *const c_char {
    error.map_or(c"{}", |error| &error.json as &CStr).as_ptr()
}

/// Frees an error.
///
/// @param error  NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_error_free(error: *mut evergrant_error) {
    if !error.is_null() {
        // SAFETY: `guard` made this error with `Box::into_raw`, and this is its last use.
        catch(|| drop(unsafe { Box::from_raw(error) }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nul_in_a_servers_text_is_replaced() {
        let error = evergrant_error::from(Error::invalid("a\0b"));
        assert_eq!(error.message.to_str(), Ok("a\u{fffd}b"));
        assert!(error.json.to_str().unwrap().contains(r"a\u0000b"));
    }
}
