//! `evergrant_session_*`

use std::ffi::c_char;
use std::mem::MaybeUninit;

use super::argument::{self, Text};
use super::client::evergrant_client;
use super::error::evergrant_error;
use super::guard::{catch, guard, store};
use super::string::{copy, give};
use crate::error::Status as evergrant_status;

/// Keeps a token endpoint's answer as the session's token, durably.
///
/// Saving is idempotent: a program may save the refresh token from its secrets at every start. A refresh token that
/// was saved or spent before changes nothing; one never seen replaces the session, like a new sign-in.
///
/// @param session     The session's name: 1 to 255 bytes of UTF-8 without control characters, chosen by you.
/// @param token_json  A token endpoint's answer (RFC 6749 section 5.1), or just `{"refresh_token": "..."}`. Copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_session_save(
    client: Option<&evergrant_client>,
    session: *const c_char,
    token_json: *const c_char,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    // SAFETY: C strings or NULL.
    let (session, token) = unsafe { (Text::new("session", session), Text::new("token_json", token_json)) };
    guard(error_out, || argument::client(client)?.save(session.required()?, token.required()?))
}

/// A token that is valid now; renews it if need be (RFC 6749 section 6).
///
/// The answer has the server's own members (`access_token`, `token_type`, `instance_url`, ...) less `refresh_token`,
/// plus `expires_at_s` (Unix time or null), `expiry` (`known`, `assumed` or `unknown`), `generation`, `session`.
///
/// @param session         The session's name.
/// @param options_json    `{"max_wait_ms": ..., "min_valid_s": ...}`: how long to wait for a renewal, and how long the
///                        token must still be valid. NULL is allowed.
/// @param token_json_out  A JSON object. Owned: free with evergrant_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_session_token(
    client: Option<&evergrant_client>,
    session: *const c_char,
    options_json: *const c_char,
    token_json_out: Option<&mut MaybeUninit<*mut c_char>>,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    // SAFETY: C strings or NULL.
    let (session, options) = unsafe { (Text::new("session", session), Text::new("options_json", options_json)) };
    guard(error_out, || {
        let token = argument::client(client)?.token(session.required()?, options.optional()?)?;
        give(token_json_out, token.expose())
    })
}

/// The same as evergrant_session_token(), but only the access token, as a plain string for
/// `Authorization: Bearer ...` (RFC 6750 section 2.1).
///
/// @param access_token_out  Owned: free with evergrant_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_session_access_token(
    client: Option<&evergrant_client>,
    session: *const c_char,
    options_json: *const c_char,
    access_token_out: Option<&mut MaybeUninit<*mut c_char>>,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    // SAFETY: C strings or NULL.
    let (session, options) = unsafe { (Text::new("session", session), Text::new("options_json", options_json)) };
    guard(error_out, || {
        let token = argument::client(client)?.access_token(session.required()?, options.optional()?)?;
        give(access_token_out, token.expose())
    })
}

/// A newer token, after a resource server has rejected one. If somebody has renewed since, that token is the answer,
/// and nothing is sent.
///
/// @param session                The session's name.
/// @param rejected_access_token  The access token that was rejected. NULL renews unconditionally.
/// @param options_json           As for evergrant_session_token(). `{"anyway": true}` also tries once past an end or
///                               a back-off: a user was repaired, a secret corrected. NULL is allowed.
/// @param token_json_out         A JSON object, as from evergrant_session_token().
///                               Owned: free with evergrant_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_session_renew(
    client: Option<&evergrant_client>,
    session: *const c_char,
    rejected_access_token: *const c_char,
    options_json: *const c_char,
    token_json_out: Option<&mut MaybeUninit<*mut c_char>>,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    // SAFETY: C strings or NULL.
    let (session, rejected, options) = unsafe {
        (
            Text::new("session", session),
            Text::new("rejected_access_token", rejected_access_token),
            Text::new("options_json", options_json),
        )
    };
    guard(error_out, || {
        let client = argument::client(client)?;
        let token = client.renew(session.required()?, rejected.optional()?, options.optional()?)?;
        give(token_json_out, token.expose())
    })
}

/// The access token in memory, if it is valid now: never blocks, no I/O, tens of nanoseconds.
///
/// @param session             The session's name.
/// @param access_token_out    Owned: free with evergrant_string_free().
/// @param fresh_until_ms_out  Until when this answer stays good without asking again: Unix time in milliseconds.
/// @return                    EVERGRANT_STATUS_STALE: memory has no answer, ask evergrant_session_access_token().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_session_peek(
    client: Option<&evergrant_client>,
    session: *const c_char,
    access_token_out: Option<&mut MaybeUninit<*mut c_char>>,
    fresh_until_ms_out: Option<&mut MaybeUninit<i64>>,
) -> evergrant_status {
    // SAFETY: a C string or NULL.
    let session = unsafe { Text::new("session", session) };
    let answer = catch(|| {
        let (Some(handle), Some(name)) = (client, session.bytes()) else {
            return Err(evergrant_status::InvalidArgument);
        };
        // No scan for NUL here: the core keeps no access token that contains one.
        let found = handle.client.peek(name, |token| access_token_out.map(|out| (out, copy(token))));
        // A name that is known is UTF-8.
        found.map_err(|status| if session.is_utf8() { status } else { evergrant_status::InvalidArgument })
    });
    match answer.unwrap_or(Err(evergrant_status::Internal)) {
        Ok((token, fresh_until_ms)) => {
            if let Some((out, token)) = token {
                out.write(token);
            }
            store(fresh_until_ms_out, fresh_until_ms);
            evergrant_status::Ok
        }
        Err(status) => status,
    }
}

/// A word in memory that changes whenever anything in this process changes what evergrant_session_peek() would answer.
/// A caller that keeps a token reads it (atomically, or as a volatile) before each use, next to its clock: while it has
/// not changed, and `fresh_until_ms_out` has not passed, the kept token is still the answer. Several sessions may share
/// a word, so a change only means "ask again".
///
/// @param session    The session's name. It need not exist yet.
/// @param stamp_out  Borrowed until evergrant_client_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_session_stamp(
    client: Option<&evergrant_client>,
    session: *const c_char,
    stamp_out: Option<&mut MaybeUninit<*const u32>>,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    // SAFETY: a C string or NULL.
    let session = unsafe { Text::new("session", session) };
    guard(error_out, || {
        let stamp = argument::client(client)?.stamp(session.required()?)?;
        store(stamp_out, stamp.as_ptr().cast_const());
        Ok(())
    })
}

/// Whether an HTTP client may send the session's access token to a URL, so that a token never leaves for another server.
///
/// The URL's origin (RFC 6454) must be one of `origins` in the configuration; without that key, the origin of `site_url`
/// or of the current token's `instance_url`. Where there is neither, it must be that of `first_url`: the URL that the
/// caller used this session with first. Nothing but https is ever allowed, except http to a loopback address.
///
/// @param session      The session's name.
/// @param url          Where the request is to go. Ask again for every redirect.
/// @param first_url    NULL if `url` is the first one.
/// @param allowed_out  1 or 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_session_allows(
    client: Option<&evergrant_client>,
    session: *const c_char,
    url: *const c_char,
    first_url: *const c_char,
    allowed_out: Option<&mut MaybeUninit<i32>>,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    // SAFETY: C strings or NULL.
    let (session, url, first_url) =
        unsafe { (Text::new("session", session), Text::new("url", url), Text::new("first_url", first_url)) };
    guard(error_out, || {
        let client = argument::client(client)?;
        let allowed = client.allows(session.required()?, url.required()?, first_url.optional()?)?;
        store(allowed_out, allowed.into());
        Ok(())
    })
}

/// What the store knows of a session, without secrets: `state` (`active`, `in_doubt`, `ended`, `signed_out`,
/// `moving`, `moved`), `reason`, `version`, `generation`, `expires_at_s`, `expiry`, `renewed_at_s`, `attempt`,
/// `retry_after_ms`, and `history`, the latest 16 renewals.
///
/// @param session   The session's name.
/// @param json_out  A JSON object. Owned: free with evergrant_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_session_describe(
    client: Option<&evergrant_client>,
    session: *const c_char,
    json_out: Option<&mut MaybeUninit<*mut c_char>>,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    // SAFETY: a C string or NULL.
    let session = unsafe { Text::new("session", session) };
    guard(error_out, || give(json_out, &argument::client(client)?.describe(session.required()?)?))
}

/// One page of the sessions in the store, in bytewise order of their names:
///
///     {"sessions": [{"session", "state", "version", "expires_at_s"}], "next": "..."}
///
/// @param after     NULL for the first page, then `next` of the previous one; it is null on the last.
/// @param limit     The most sessions to list.
/// @param json_out  A JSON object. Owned: free with evergrant_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_session_list(
    client: Option<&evergrant_client>,
    after: *const c_char,
    limit: u32,
    json_out: Option<&mut MaybeUninit<*mut c_char>>,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    // SAFETY: a C string or NULL.
    let after = unsafe { Text::new("after", after) };
    guard(error_out, || give(json_out, &argument::client(client)?.list(after.optional()?, limit)?))
}

/// Asks the authorization server about the session's access token (RFC 7662). A token that has ended is renewed first.
///
/// Needs an introspection endpoint: that of `site_url` or `issuer`, or `introspection_endpoint`. The server must know this
/// client; most want a client that authenticates. REFUSED: it does not let this client ask; the session is kept.
///
/// @param session   The session's name.
/// @param json_out  The server's answer, a JSON object. Owned: free with evergrant_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_session_introspect(
    client: Option<&evergrant_client>,
    session: *const c_char,
    json_out: Option<&mut MaybeUninit<*mut c_char>>,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    // SAFETY: a C string or NULL.
    let session = unsafe { Text::new("session", session) };
    guard(error_out, || give(json_out, argument::client(client)?.introspect(session.required()?)?.expose()))
}

/// Ends a session here and at the server: marks it signed out, revokes its tokens (RFC 7009), erases them. A token that
/// the server could not be told of stays noted, and is revoked later.
///
/// @param session  The session's name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_session_sign_out(
    client: Option<&evergrant_client>,
    session: *const c_char,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    // SAFETY: a C string or NULL.
    let session = unsafe { Text::new("session", session) };
    guard(error_out, || argument::client(client)?.sign_out(session.required()?))
}

/// Erases a session here only; the server is not told, and its tokens stay valid there.
///
/// @param session  The session's name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_session_forget(
    client: Option<&evergrant_client>,
    session: *const c_char,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    // SAFETY: a C string or NULL.
    let session = unsafe { Text::new("session", session) };
    guard(error_out, || argument::client(client)?.forget(session.required()?))
}

/// Moves a session to another store, sealed anew there. Waits for an open renewal, at most `max_wait_ms` of the
/// configuration. At no moment do two stores both believe that they hold the session's refresh token; after a crash, or a
/// store that could not be reached, the same call goes on where it stopped, and the call the other way round takes it back.
///
/// @param session  The session's name. It keeps it.
/// @param to_json  Where to: `store`, and where needed `encryption_key` (or `_file`, `_env`) and `namespace`, as in the
///                 configuration. There must be no other active session of this name there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_session_move(
    client: Option<&evergrant_client>,
    session: *const c_char,
    to_json: *const c_char,
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
) -> evergrant_status {
    // SAFETY: C strings or NULL.
    let (session, to) = unsafe { (Text::new("session", session), Text::new("to_json", to_json)) };
    guard(error_out, || argument::client(client)?.move_session(session.required()?, to.required()?))
}
