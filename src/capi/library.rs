//! What needs no client.

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;

use super::argument::Text;
use super::error::evergrant_error;
use super::guard::{catch, guard};
use super::string::give;
use crate::client;
use crate::error::{Error, Status as evergrant_status};

/// The number of the binary interface, from build.rs: in the soname, the header and `evergrant_abi_version()`.
pub const ABI_VERSION: u32 = match u32::from_str_radix(env!("EVERGRANT_ABI_VERSION"), 10) {
    Ok(number) => number,
    Err(_) => panic!("EVERGRANT_ABI_VERSION is not a number"),
};

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => panic!("the version contains a NUL"),
};

/// The version of the loaded library, such as "0.1.0".
///
/// @return  Static.
#[unsafe(no_mangle)]
pub extern "C" fn evergrant_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The number of the loaded library's binary interface. It must equal EVERGRANT_ABI_VERSION of the header that the
/// program was built with; a program that loads the library at run time checks this first.
#[unsafe(no_mangle)]
pub extern "C" fn evergrant_abi_version() -> u32 {
    ABI_VERSION
}

/// The name of a status without its prefix, such as "SIGN_IN_REQUIRED"; "UNKNOWN" for any other number.
///
/// @return  Static.
#[unsafe(no_mangle)]
pub extern "C" fn evergrant_status_name(status: i32) -> *const c_char {
    let known = usize::try_from(status).ok().and_then(|number| evergrant_status::ALL.get(number));
    known.map_or(c"UNKNOWN", |status| status.c_name()).as_ptr()
}

/// One top-level member of a JSON object as text, so that a C program needs no JSON parser to read `instance_url` out
/// of a token. A string gives its content, anything else its JSON.
///
/// @param json       A JSON object.
/// @param name       The member's name. It is an INVALID_ARGUMENT if there is no such member.
/// @param value_out  Owned: free with evergrant_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_json_member(
    json: *const c_char,
    name: *const c_char,
    value_out: Option<&mut MaybeUninit<*mut c_char>>,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    // SAFETY: C strings or NULL.
    let (json, name) = unsafe { (Text::new("json", json), Text::new("name", name)) };
    guard(error_out, || {
        let value = client::json_member(json.required()?, name.required()?)?;
        give(value_out, value.expose()).map_err(|error| Error::invalid(format!("json: {}", error.message)))
    })
}

/// Whether a resource server's answer means "this access token is dead": a 401, except for bodies that are known never
/// to heal by renewing, and what Salesforce's APIs answer besides: 403 with Bad_OAuth_Token, 400 with InvalidSessionId
/// (Bulk), the SOAP fault INVALID_SESSION_ID. If so, call evergrant_session_renew() with the rejected token, and repeat
/// the request once (RFC 6750 section 3.1).
///
/// @param http_status  The answer's HTTP status.
/// @param body         The answer's body; NULL if there is none.
/// @return             1 if it is dead, else 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_is_rejection(http_status: i32, body: *const c_char) -> i32 {
    // SAFETY: a C string or NULL.
    let body = unsafe { Text::new("body", body) };
    catch(|| client::is_rejection(http_status, body.lossy().as_deref())).unwrap_or_default().into()
}

/// The refresh-token flow itself, once (RFC 6749 section 6). Nothing is stored, and nothing keeps two callers from
/// spending the same refresh token: evergrant_session_token() does.
///
/// @param request_json    A configuration as for evergrant_client_open(), plus `refresh_token`.
/// @param token_json_out  The token endpoint's answer, a rotated `refresh_token` included.
///                        Owned: free with evergrant_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_refresh(
    request_json: *const c_char,
    token_json_out: Option<&mut MaybeUninit<*mut c_char>>,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    // SAFETY: a C string or NULL.
    let request = unsafe { Text::new("request_json", request_json) };
    guard(error_out, || give(token_json_out, client::refresh(request.required()?)?.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_name() {
        let name = |status| unsafe { CStr::from_ptr(evergrant_status_name(status)) };
        assert_eq!(name(0), c"OK");
        assert_eq!(name(9), c"INTERNAL");
        for unknown in [-1, 10, i32::MIN, i32::MAX] {
            assert_eq!(name(unknown), c"UNKNOWN");
        }
    }
}
