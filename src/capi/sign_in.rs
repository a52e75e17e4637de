//! `evergrant_sign_in_*`

use std::ffi::c_char;
use std::mem::MaybeUninit;

use super::argument::{self, Text};
use super::client::evergrant_client;
use super::error::evergrant_error;
use super::guard::guard;
use super::string::give;
use crate::error::Status as evergrant_status;

/// Starts a sign-in with an authorization code and PKCE (RFC 6749 section 4.1, RFC 7636). Send the user to
/// `authorization_url`; keep the whole answer, secretly, for evergrant_sign_in_finish().
///
/// @param request_json      `{"redirect_uri": "...", "scope": "...", "extra": {...}}`
/// @param sign_in_json_out  `{"authorization_url", "state", "code_verifier", "redirect_uri", ...}`.
///                          Owned: free with evergrant_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_sign_in_start(
    client: Option<&evergrant_client>,
    request_json: *const c_char,
    sign_in_json_out: Option<&mut MaybeUninit<*mut c_char>>,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    // SAFETY: a C string or NULL.
    let request = unsafe { Text::new("request_json", request_json) };
    guard(error_out, || {
        let sign_in = argument::client(client)?.sign_in_start(request.required()?)?;
        give(sign_in_json_out, sign_in.expose())
    })
}

/// Finishes a sign-in: checks `state`, exchanges the code (RFC 6749 section 4.1.3) and saves the session.
///
/// @param session         The session's name.
/// @param sign_in_json    The whole answer of evergrant_sign_in_start().
/// @param redirect_url    The URL that the user came back to, with its query.
/// @param token_json_out  A JSON object, as from evergrant_session_token().
///                        Owned: free with evergrant_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_sign_in_finish(
    client: Option<&evergrant_client>,
    session: *const c_char,
    sign_in_json: *const c_char,
    redirect_url: *const c_char,
    token_json_out: Option<&mut MaybeUninit<*mut c_char>>,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    // SAFETY: C strings or NULL.
    let (session, sign_in, redirect_url) = unsafe {
        (
            Text::new("session", session),
            Text::new("sign_in_json", sign_in_json),
            Text::new("redirect_url", redirect_url),
        )
    };
    guard(error_out, || {
        let client = argument::client(client)?;
        let token = client.sign_in_finish(session.required()?, sign_in.required()?, redirect_url.required()?)?;
        give(token_json_out, token.expose())
    })
}

/// Signs a user of a Salesforce Experience Cloud site in with a name and a password, without a browser (Authorization
/// Code and Credentials flow), and saves the session.
///
/// @param session         The session's name.
/// @param request_json    `{"username": "...", "password": "...", "redirect_uri": "...", "scope": "..."}`
/// @param token_json_out  A JSON object, as from evergrant_session_token().
///                        Owned: free with evergrant_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_sign_in_with_password(
    client: Option<&evergrant_client>,
    session: *const c_char,
    request_json: *const c_char,
    token_json_out: Option<&mut MaybeUninit<*mut c_char>>,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    // SAFETY: C strings or NULL.
    let (session, request) = unsafe { (Text::new("session", session), Text::new("request_json", request_json)) };
    guard(error_out, || {
        let token = argument::client(client)?.sign_in_with_password(session.required()?, request.required()?)?;
        give(token_json_out, token.expose())
    })
}
