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
/// `authorization_url`; keep the whole answer, secretly, for evergrant_sign_in_finish(). Nothing is sent.
///
/// @param request_json      `{"redirect_uri": "...", "scope": "...", "extra": {...}}`. `scope`: instead of the
///                          configuration's; it must make the server give a refresh token. `extra`: further parameters,
///                          instead of those of `authorize_parameters` of the same name. With `"listen": true` this
///                          process waits for the user itself (RFC 8252 section 7.3), for `max_wait_ms`, 300000 if not
///                          given: `redirect_uri` is then http://127.0.0.1/callback if not given; without a port, a free
///                          one is taken.
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

/// Finishes a sign-in: checks `state`, and `iss` where the server is known (RFC 9207), exchanges the code (RFC 6749
/// section 4.1.3) and saves the session, in place of one of the same name. Waits for the exchange, which goes on to its end
/// whatever becomes of the caller. If it fails, the session is as it was: EVERGRANT_STATUS_SIGN_IN_REQUIRED means that the
/// user must sign in again, EVERGRANT_STATUS_UNAVAILABLE with the outcome `not_sent` that the same call may be made again.
///
/// @param session         The session's name.
/// @param sign_in_json    The whole answer of evergrant_sign_in_start().
/// @param redirect_url    The URL that the user came back to, with its query. NULL if the sign-in was started with
///                        `"listen": true` by this client: then it waits for the user, once.
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
        let token = client.sign_in_finish(session.required()?, sign_in.required()?, redirect_url.optional()?)?;
        give(token_json_out, token.expose())
    })
}

/// Signs a user in with a browser of this machine, and saves the session: for programs on a desk (RFC 8252). Opens the
/// browser ($BROWSER, or the system's own), waits for it on the loopback address, and finishes as evergrant_sign_in_finish()
/// does. evergrant_client_close() ends the wait. To show the URL instead: evergrant_sign_in_start() with `"listen": true`.
///
/// @param session         The session's name.
/// @param request_json    `{"redirect_uri": "...", "scope": "...", "extra": {...}, "max_wait_ms": 300000}`, all optional: as
///                        for evergrant_sign_in_start() with `"listen": true`.
/// @param token_json_out  A JSON object, as from evergrant_session_token().
///                        Owned: free with evergrant_string_free().
/// @return                EVERGRANT_STATUS_TIMED_OUT: the user did not come back in time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_sign_in_with_browser(
    client: Option<&evergrant_client>,
    session: *const c_char,
    request_json: *const c_char,
    token_json_out: Option<&mut MaybeUninit<*mut c_char>>,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    // SAFETY: C strings or NULL.
    let (session, request) = unsafe { (Text::new("session", session), Text::new("request_json", request_json)) };
    guard(error_out, || {
        let token = argument::client(client)?.sign_in_with_browser(session.required()?, request.required()?)?;
        give(token_json_out, token.expose())
    })
}

/// Signs a user of a Salesforce Experience Cloud site in with a name and a password, without a browser (Authorization
/// Code and Credentials flow), and saves the session as evergrant_sign_in_finish() does. The configuration must have
/// `site_url`. The password is sent once, and wiped.
///
/// @param session         The session's name.
/// @param request_json    `{"username": "...", "password": "...", "redirect_uri": "...", "scope": "..."}`; `redirect_uri` is
///                        one that the app has, and is never called. With `"credentials_in": "body"` name and password
///                        are sent as parameters, as some apps want it, instead of as HTTP Basic.
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
