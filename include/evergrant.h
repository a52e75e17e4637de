/*
 * evergrant: sign in once, stay signed in. Keeps OAuth 2.0 sessions renewed.
 *
 * Conventions
 *
 *   Strings    UTF-8, ended by NUL, none inside. Inputs are copied, or only read during the call; at most 1 MiB.
 *   Ownership  "Owned": yours; free with the function that is named, never with free(). NULL is fine for every _free.
 *              "Borrowed until ...": not yours; do not free it, do not use it after that. "Static": borrowed for ever.
 *   Outputs    Every *_out may be NULL: not wanted. Failure leaves outputs as they were.
 *   Errors     A function that can fail returns an evergrant_status. Where it has an error_out, success stores NULL
 *              there, and failure an evergrant_error. Owned: free with evergrant_error_free(). A NULL or wrong argument
 *              is EVERGRANT_STATUS_INVALID_ARGUMENT, and the message names it. There is no "last error".
 *   Threads    Whatever is passed as const may be used by any number of threads at the same time. A function without
 *              const ends its object: no other call with it may be running or follow. The library never calls back.
 *   Units      The end of a name says it: _ms milliseconds, _s seconds. Times are Unix time.
 *   JSON       Members are added, never removed: ignore those that you do not know.
 *   ABI        Functions and status numbers are added, never changed, while EVERGRANT_ABI_VERSION stays. Treat a status
 *              that you do not know as EVERGRANT_STATUS_INTERNAL. The library cannot be unloaded: dlclose() keeps it.
 *
 * Made from the Rust source by `make header`: do not edit.
 */

#ifndef EVERGRANT_H
#define EVERGRANT_H

#include <stdint.h>

#define EVERGRANT_VERSION "0.1.0"
#define EVERGRANT_VERSION_MAJOR 0
#define EVERGRANT_VERSION_MINOR 1
#define EVERGRANT_VERSION_PATCH 0
#define EVERGRANT_ABI_VERSION 1

/* Windows only: define EVERGRANT_STATIC where the static library is linked. */
#if defined(_WIN32) && !defined(EVERGRANT_STATIC)
#define EVERGRANT_API __declspec(dllimport)
#else
#define EVERGRANT_API
#endif

/**
 * The answer of every fallible function.
 */
typedef enum evergrant_status {
    /**
     * Done.
     */
    EVERGRANT_STATUS_OK = 0,
    /**
     * An argument or a configuration key is wrong; the message names it. Nothing was done.
     */
    EVERGRANT_STATUS_INVALID_ARGUMENT = 1,
    /**
     * There is no such session, or it has ended; `reason` says why. Only a new sign-in helps.
     */
    EVERGRANT_STATUS_SIGN_IN_REQUIRED = 2,
    /**
     * The authorization server refuses this client or request: correct the configuration. The session is kept.
     */
    EVERGRANT_STATUS_REFUSED = 3,
    /**
     * The authorization server cannot answer now; try again after `retry_after_ms`. The session is kept.
     */
    EVERGRANT_STATUS_UNAVAILABLE = 4,
    /**
     * Your wait has ended; the renewal goes on without you.
     */
    EVERGRANT_STATUS_TIMED_OUT = 5,
    /**
     * The store cannot be used; the message says what to do. If it came before a renewal, no refresh token was spent.
     */
    EVERGRANT_STATUS_STORE = 6,
    /**
     * evergrant_session_peek() only: memory has no answer, ask evergrant_session_access_token().
     */
    EVERGRANT_STATUS_STALE = 7,
    /**
     * The client has been closed.
     */
    EVERGRANT_STATUS_CLOSED = 8,
    /**
     * A defect of this library.
     */
    EVERGRANT_STATUS_INTERNAL = 9,
} evergrant_status;

/**
 * One OAuth client registration at one authorization server (RFC 6749 section 2), with one store of sessions.
 *
 * All functions on a client may run at the same time, except evergrant_client_free().
 */
typedef struct evergrant_client evergrant_client;

/**
 * Why a call failed. Owned by the caller: free it with evergrant_error_free(). It contains no secrets and never changes.
 */
typedef struct evergrant_error evergrant_error;

/**
 * Calls that need no thread of the program: for event loops, and for waits that something else may end.
 *
 * A call is submitted, goes on by itself, and its result waits in the queue. Thousands may wait at one time, on a few
 * threads of the library. One queue serves any number of clients. A forked child opens a queue of its own: to use its
 * parent's is EVERGRANT_STATUS_CLOSED.
 */
typedef struct evergrant_queue evergrant_queue;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the loaded library, such as "0.1.0".
 *
 * @return  Static.
 */
EVERGRANT_API
const char *evergrant_version(void);

/**
 * The number of the loaded library's binary interface. It must equal EVERGRANT_ABI_VERSION of the header that the
 * program was built with; a program that loads the library at run time checks this first.
 */
EVERGRANT_API
uint32_t evergrant_abi_version(void);

/**
 * The name of a status without its prefix, such as "SIGN_IN_REQUIRED"; "UNKNOWN" for any other number.
 *
 * @return  Static.
 */
EVERGRANT_API
const char *evergrant_status_name(int32_t status);

/**
 * One top-level member of a JSON object as text, so that a C program needs no JSON parser to read `instance_url` out
 * of a token. A string gives its content, anything else its JSON.
 *
 * @param json       A JSON object.
 * @param name       The member's name. It is an INVALID_ARGUMENT if there is no such member.
 * @param value_out  Owned: free with evergrant_string_free().
 */
EVERGRANT_API
evergrant_status evergrant_json_member(const char *json,
                                       const char *name,
                                       char **value_out,
                                       evergrant_error **error_out);

/**
 * Whether a resource server's answer means "this access token is dead": a 401, except for bodies that are known never
 * to heal by renewing, and what Salesforce's APIs answer besides: 403 with Bad_OAuth_Token, 400 with InvalidSessionId
 * (Bulk), the SOAP fault INVALID_SESSION_ID. If so, call evergrant_session_renew() with the rejected token, and repeat
 * the request once (RFC 6750 section 3.1).
 *
 * @param http_status  The answer's HTTP status.
 * @param body         The answer's body; NULL if there is none.
 * @return             1 if it is dead, else 0.
 */
EVERGRANT_API
int32_t evergrant_is_rejection(int32_t http_status,
                               const char *body);

/**
 * The refresh-token flow itself, once (RFC 6749 section 6). Nothing is stored, and nothing keeps two callers from
 * spending the same refresh token: evergrant_session_token() does.
 *
 * @param request_json    A configuration as for evergrant_client_open(), plus `refresh_token`.
 * @param token_json_out  The token endpoint's answer, a rotated `refresh_token` included.
 *                        Owned: free with evergrant_string_free().
 */
EVERGRANT_API
evergrant_status evergrant_refresh(const char *request_json,
                                   char **token_json_out,
                                   evergrant_error **error_out);

/**
 * Wipes and frees a string that this library returned as *owned*; never use free() on it.
 *
 * @param string  NULL is allowed.
 */
EVERGRANT_API
void evergrant_string_free(char *string);

/**
 * The class of an error, the same as the failed call returned.
 *
 * @param error  NULL is allowed: EVERGRANT_STATUS_OK.
 */
EVERGRANT_API
evergrant_status evergrant_error_status(const evergrant_error *error);

/**
 * One line for people, complete by itself: what happened, what it means for the session, what to do next.
 *
 * @param error  NULL is allowed: the empty string.
 * @return       Borrowed until evergrant_error_free().
 */
EVERGRANT_API
const char *evergrant_error_message(const evergrant_error *error);

/**
 * The same in parts, for programs:
 *
 *     {"status": "SIGN_IN_REQUIRED", "message", "reason", "error", "error_description", "error_uri",
 *      "http_status", "retry_after_ms", "outcome", "session"}
 *
 * Only `status` and `message` are always there. `error`, `error_description` and `error_uri` are the server's own
 * words (RFC 6749 section 5.2). `outcome` is `not_sent`, `refused` or `unknown` wherever a request was tried.
 *
 * @param error  NULL is allowed: an empty object.
 * @return       Borrowed until evergrant_error_free().
 */
EVERGRANT_API
const char *evergrant_error_json(const evergrant_error *error);

/**
 * Frees an error.
 *
 * @param error  NULL is allowed.
 */
EVERGRANT_API
void evergrant_error_free(evergrant_error *error);

/**
 * Opens a client.
 *
 *     {"site_url": "https://example.my.site.com", "client_id": "...", "client_secret_env": "CLIENT_SECRET"}
 *
 * docs/configuration.md lists all keys. An unknown key is an error that names it.
 *
 * @param config_json  The configuration: a JSON object.
 * @param client_out   Owned: close with evergrant_client_close(), then free with evergrant_client_free().
 */
EVERGRANT_API
evergrant_status evergrant_client_open(const char *config_json,
                                       evergrant_client **client_out,
                                       evergrant_error **error_out);

/**
 * Counters since open: `hits`, `store_reads`, `adopted`, `waits`, `exchanges` by outcome, `replays`,
 * `commit_retries`, `cached_sessions`, `open_exchanges`.
 *
 * @param json_out  A JSON object. Owned: free with evergrant_string_free().
 */
EVERGRANT_API
evergrant_status evergrant_client_stats(const evergrant_client *client,
                                        char **json_out,
                                        evergrant_error **error_out);

/**
 * What happened since an event, oldest first:
 *
 *     {"events": [{"n": 7, "at_s", "kind", "session", "outcome", "reason", "duration_ms"}], "next": 7, "dropped": 0}
 *
 * `kind` is `renewed`, `adopted`, `renewal_failed`, `ended`, `saved`, `signed_out`, `commit_pending`,
 * `signature_mismatch`, `store_warning`, `forgotten`, `revocation_failed`, `moved`, `introspection_failed`, or one that a
 * later version adds. Only the latest events are kept; `dropped` says how many were missed.
 *
 * @param after        0 at first, then `next` of the previous answer.
 * @param max_wait_ms  How long to wait for the first event, in milliseconds; 0 only looks.
 * @param json_out     A JSON object. Owned: free with evergrant_string_free().
 */
EVERGRANT_API
evergrant_status evergrant_client_events(const evergrant_client *client,
                                         uint64_t after,
                                         uint32_t max_wait_ms,
                                         char **json_out,
                                         evergrant_error **error_out);

/**
 * Closes a client: lets renewals that are under way finish, and makes every waiting and later call return
 * EVERGRANT_STATUS_CLOSED. It may be called from any thread, and again.
 *
 * @param max_wait_ms  How long to wait for renewals under way, in milliseconds.
 * @return             EVERGRANT_STATUS_TIMED_OUT if one is still under way then. It is safe to go on and free the
 *                     client: a later run settles it.
 */
EVERGRANT_API
evergrant_status evergrant_client_close(const evergrant_client *client,
                                        uint32_t max_wait_ms);

/**
 * Frees a client, after evergrant_client_close(). This is the last call: no other may be running or follow, and what
 * was borrowed from the client ends. Calls of it that a queue has not finished end with EVERGRANT_STATUS_CLOSED.
 *
 * @param client  NULL is allowed.
 */
EVERGRANT_API
void evergrant_client_free(evergrant_client *client);

/**
 * Keeps a token endpoint's answer as the session's token, durably.
 *
 * Saving is idempotent: a program may save the refresh token from its secrets at every start. A refresh token that
 * was saved or spent before changes nothing; one never seen replaces the session, like a new sign-in.
 *
 * @param session     The session's name: 1 to 255 bytes of UTF-8 without control characters, chosen by you.
 * @param token_json  A token endpoint's answer (RFC 6749 section 5.1), or just `{"refresh_token": "..."}`. Copied.
 */
EVERGRANT_API
evergrant_status evergrant_session_save(const evergrant_client *client,
                                        const char *session,
                                        const char *token_json,
                                        evergrant_error **error_out);

/**
 * A token that is valid now; renews it if need be (RFC 6749 section 6).
 *
 * The answer has the server's own members (`access_token`, `token_type`, `instance_url`, ...) less `refresh_token`,
 * plus `expires_at_s` (Unix time or null), `expiry` (`known`, `assumed` or `unknown`), `generation`, `session`.
 *
 * @param session         The session's name.
 * @param options_json    `{"max_wait_ms": ..., "min_valid_s": ...}`: how long to wait for a renewal, and how long the
 *                        token must still be valid. NULL is allowed.
 * @param token_json_out  A JSON object. Owned: free with evergrant_string_free().
 */
EVERGRANT_API
evergrant_status evergrant_session_token(const evergrant_client *client,
                                         const char *session,
                                         const char *options_json,
                                         char **token_json_out,
                                         evergrant_error **error_out);

/**
 * The same as evergrant_session_token(), but only the access token, as a plain string for
 * `Authorization: Bearer ...` (RFC 6750 section 2.1).
 *
 * @param access_token_out  Owned: free with evergrant_string_free().
 */
EVERGRANT_API
evergrant_status evergrant_session_access_token(const evergrant_client *client,
                                                const char *session,
                                                const char *options_json,
                                                char **access_token_out,
                                                evergrant_error **error_out);

/**
 * A newer token, after a resource server has rejected one. If somebody has renewed since, that token is the answer,
 * and nothing is sent.
 *
 * @param session                The session's name.
 * @param rejected_access_token  The access token that was rejected. NULL renews unconditionally.
 * @param options_json           As for evergrant_session_token(). `{"anyway": true}` also tries once past an end or
 *                               a back-off: a user was repaired, a secret corrected. NULL is allowed.
 * @param token_json_out         A JSON object, as from evergrant_session_token().
 *                               Owned: free with evergrant_string_free().
 */
EVERGRANT_API
evergrant_status evergrant_session_renew(const evergrant_client *client,
                                         const char *session,
                                         const char *rejected_access_token,
                                         const char *options_json,
                                         char **token_json_out,
                                         evergrant_error **error_out);

/**
 * The access token in memory, if it is valid now: never blocks, no I/O, tens of nanoseconds.
 *
 * @param session             The session's name.
 * @param access_token_out    Owned: free with evergrant_string_free().
 * @param fresh_until_ms_out  Until when this answer stays good without asking again: Unix time in milliseconds.
 * @return                    EVERGRANT_STATUS_STALE: memory has no answer, ask evergrant_session_access_token().
 */
EVERGRANT_API
evergrant_status evergrant_session_peek(const evergrant_client *client,
                                        const char *session,
                                        char **access_token_out,
                                        int64_t *fresh_until_ms_out);

/**
 * A word in memory that changes whenever anything in this process changes what evergrant_session_peek() would answer.
 * A caller that keeps a token reads it (atomically, or as a volatile) before each use, next to its clock: while it has
 * not changed, and `fresh_until_ms_out` has not passed, the kept token is still the answer. Several sessions may share
 * a word, so a change only means "ask again".
 *
 * @param session    The session's name. It need not exist yet.
 * @param stamp_out  Borrowed until evergrant_client_free().
 */
EVERGRANT_API
evergrant_status evergrant_session_stamp(const evergrant_client *client,
                                         const char *session,
                                         const uint32_t **stamp_out,
                                         evergrant_error **error_out);

/**
 * Whether an HTTP client may send the session's access token to a URL, so that a token never leaves for another server.
 *
 * The URL's origin (RFC 6454) must be one of `origins` in the configuration; without that key, the origin of `site_url`
 * or of the current token's `instance_url`. Where there is neither, it must be that of `first_url`: the URL that the
 * caller used this session with first. Nothing but https is ever allowed, except http to a loopback address.
 *
 * @param session      The session's name.
 * @param url          Where the request is to go. Ask again for every redirect.
 * @param first_url    NULL if `url` is the first one.
 * @param allowed_out  1 or 0.
 */
EVERGRANT_API
evergrant_status evergrant_session_allows(const evergrant_client *client,
                                          const char *session,
                                          const char *url,
                                          const char *first_url,
                                          int32_t *allowed_out,
                                          evergrant_error **error_out);

/**
 * What the store knows of a session, without secrets: `state` (`active`, `in_doubt`, `ended`, `signed_out`,
 * `moving`, `moved`), `reason`, `version`, `generation`, `expires_at_s`, `expiry`, `renewed_at_s`, `attempt`,
 * `retry_after_ms`, and `history`, the latest 16 renewals.
 *
 * @param session   The session's name.
 * @param json_out  A JSON object. Owned: free with evergrant_string_free().
 */
EVERGRANT_API
evergrant_status evergrant_session_describe(const evergrant_client *client,
                                            const char *session,
                                            char **json_out,
                                            evergrant_error **error_out);

/**
 * One page of the sessions in the store, in bytewise order of their names:
 *
 *     {"sessions": [{"session", "state", "version", "expires_at_s"}], "next": "..."}
 *
 * @param after     NULL for the first page, then `next` of the previous one; it is null on the last.
 * @param limit     The most sessions to list.
 * @param json_out  A JSON object. Owned: free with evergrant_string_free().
 */
EVERGRANT_API
evergrant_status evergrant_session_list(const evergrant_client *client,
                                        const char *after,
                                        uint32_t limit,
                                        char **json_out,
                                        evergrant_error **error_out);

/**
 * Asks the authorization server about the session's access token (RFC 7662). A token that has ended is renewed first.
 *
 * Needs an introspection endpoint: that of `site_url` or `issuer`, or `introspection_endpoint`. The server must know this
 * client; most want a client that authenticates. REFUSED: it does not let this client ask; the session is kept.
 *
 * @param session   The session's name.
 * @param json_out  The server's answer, a JSON object. Owned: free with evergrant_string_free().
 */
EVERGRANT_API
evergrant_status evergrant_session_introspect(const evergrant_client *client,
                                              const char *session,
                                              char **json_out,
                                              evergrant_error **error_out);

/**
 * Ends a session here and at the server: marks it signed out, revokes its tokens (RFC 7009), erases them. A token that
 * the server could not be told of stays noted, and is revoked later.
 *
 * @param session  The session's name.
 */
EVERGRANT_API
evergrant_status evergrant_session_sign_out(const evergrant_client *client,
                                            const char *session,
                                            evergrant_error **error_out);

/**
 * Erases a session here only; the server is not told, and its tokens stay valid there.
 *
 * @param session  The session's name.
 */
EVERGRANT_API
evergrant_status evergrant_session_forget(const evergrant_client *client,
                                          const char *session,
                                          evergrant_error **error_out);

/**
 * Moves a session to another store, sealed anew there. Waits for an open renewal, at most `max_wait_ms` of the
 * configuration. At no moment do two stores both believe that they hold the session's refresh token; after a crash, or a
 * store that could not be reached, the same call goes on where it stopped, and the call the other way round takes it back.
 *
 * @param session  The session's name. It keeps it.
 * @param to_json  Where to: `store`, and where needed `encryption_key` (or `_file`, `_env`) and `namespace`, as in the
 *                 configuration. There must be no other active session of this name there.
 */
EVERGRANT_API
evergrant_status evergrant_session_move(const evergrant_client *client,
                                        const char *session,
                                        const char *to_json,
                                        evergrant_error **error_out);

/**
 * Starts a sign-in with an authorization code and PKCE (RFC 6749 section 4.1, RFC 7636). Send the user to
 * `authorization_url`; keep the whole answer, secretly, for evergrant_sign_in_finish(). Nothing is sent.
 *
 * @param request_json      `{"redirect_uri": "...", "scope": "...", "extra": {...}}`. `scope`: instead of the
 *                          configuration's; it must make the server give a refresh token. `extra`: further parameters,
 *                          instead of those of `authorize_parameters` of the same name. With `"listen": true` this
 *                          process waits for the user itself (RFC 8252 section 7.3), for `max_wait_ms`, 300000 if not
 *                          given: `redirect_uri` is then http://127.0.0.1/callback if not given; without a port, a free
 *                          one is taken.
 * @param sign_in_json_out  `{"authorization_url", "state", "code_verifier", "redirect_uri", ...}`.
 *                          Owned: free with evergrant_string_free().
 */
EVERGRANT_API
evergrant_status evergrant_sign_in_start(const evergrant_client *client,
                                         const char *request_json,
                                         char **sign_in_json_out,
                                         evergrant_error **error_out);

/**
 * Finishes a sign-in: checks `state`, and `iss` where the server is known (RFC 9207), exchanges the code (RFC 6749
 * section 4.1.3) and saves the session, in place of one of the same name. Waits for the exchange, which goes on to its end
 * whatever becomes of the caller. If it fails, the session is as it was: EVERGRANT_STATUS_SIGN_IN_REQUIRED means that the
 * user must sign in again, EVERGRANT_STATUS_UNAVAILABLE with the outcome `not_sent` that the same call may be made again.
 *
 * @param session         The session's name.
 * @param sign_in_json    The whole answer of evergrant_sign_in_start().
 * @param redirect_url    The URL that the user came back to, with its query. NULL if the sign-in was started with
 *                        `"listen": true` by this client: then it waits for the user, once.
 * @param token_json_out  A JSON object, as from evergrant_session_token().
 *                        Owned: free with evergrant_string_free().
 */
EVERGRANT_API
evergrant_status evergrant_sign_in_finish(const evergrant_client *client,
                                          const char *session,
                                          const char *sign_in_json,
                                          const char *redirect_url,
                                          char **token_json_out,
                                          evergrant_error **error_out);

/**
 * Signs a user in with a browser of this machine, and saves the session: for programs on a desk (RFC 8252). Opens the
 * browser ($BROWSER, or the system's own), waits for it on the loopback address, and finishes as evergrant_sign_in_finish()
 * does. evergrant_client_close() ends the wait. To show the URL instead: evergrant_sign_in_start() with `"listen": true`.
 *
 * @param session         The session's name.
 * @param request_json    `{"redirect_uri": "...", "scope": "...", "extra": {...}, "max_wait_ms": 300000}`, all optional: as
 *                        for evergrant_sign_in_start() with `"listen": true`.
 * @param token_json_out  A JSON object, as from evergrant_session_token().
 *                        Owned: free with evergrant_string_free().
 * @return                EVERGRANT_STATUS_TIMED_OUT: the user did not come back in time.
 */
EVERGRANT_API
evergrant_status evergrant_sign_in_with_browser(const evergrant_client *client,
                                                const char *session,
                                                const char *request_json,
                                                char **token_json_out,
                                                evergrant_error **error_out);

/**
 * Signs a user of a Salesforce Experience Cloud site in with a name and a password, without a browser (Authorization
 * Code and Credentials flow), and saves the session as evergrant_sign_in_finish() does. The configuration must have
 * `site_url`. The password is sent once, and wiped.
 *
 * @param session         The session's name.
 * @param request_json    `{"username": "...", "password": "...", "redirect_uri": "...", "scope": "..."}`; `redirect_uri` is
 *                        one that the app has, and is never called. With `"credentials_in": "body"` name and password
 *                        are sent as parameters, as some apps want it, instead of as HTTP Basic.
 * @param token_json_out  A JSON object, as from evergrant_session_token().
 *                        Owned: free with evergrant_string_free().
 */
EVERGRANT_API
evergrant_status evergrant_sign_in_with_password(const evergrant_client *client,
                                                 const char *session,
                                                 const char *request_json,
                                                 char **token_json_out,
                                                 evergrant_error **error_out);

/**
 * Opens a queue.
 *
 * @param queue_out  Owned: free with evergrant_queue_free().
 * @param fd_out     A descriptor that can be read while results wait in the queue: for poll() and event loops. Its bytes
 *                   mean nothing and may be read. Owned: close it with close(), before or after the queue. -1 where the
 *                   system has none.
 */
EVERGRANT_API
evergrant_status evergrant_queue_open(evergrant_queue **queue_out,
                                      int32_t *fd_out,
                                      evergrant_error **error_out);

/**
 * Starts a call and returns at once, without any I/O.
 *
 *     {"call": "session_token", "session": "alice", "options": {"max_wait_ms": 5000}}
 *
 * `call` is the name of a function less `evergrant_`; the other members are its arguments, less client and outputs.
 * What the function takes as JSON text is JSON here: `options`, `token`, `request`, `sign_in` for its `options_json`,
 * `token_json` and so on. A null member counts as absent; without `max_wait_ms`, client_close waits for `exit_wait_ms`
 * of the configuration. There are session_save, session_token, session_access_token, session_renew, session_describe,
 * session_list, session_introspect, session_sign_out, session_forget, client_stats, client_events, client_close,
 * sign_in_start, sign_in_finish, sign_in_with_browser, sign_in_with_password and, without a client, refresh.
 *
 * @param client     NULL for `refresh` only. It may be closed and freed while the call is under way.
 * @param tag        Comes back with the result. Keep it below 2^53 if a JSON parser reads numbers as double.
 * @param call_json  A JSON object. What is wrong with its shape is an error here; every other one is the call's result.
 */
EVERGRANT_API
evergrant_status evergrant_queue_submit(const evergrant_queue *queue,
                                        const evergrant_client *client,
                                        uint64_t tag,
                                        const char *call_json,
                                        evergrant_error **error_out);

/**
 * Takes all results, in the order in which the calls finished:
 *
 *     [{"tag": 7, "status": "OK", "value": {...}}, {"tag": 8, "status": "TIMED_OUT", "error": {...}}]
 *
 * `value` is what the function puts into its output, null if it has none; `error` is as from evergrant_error_json().
 * The queue's descriptor cannot be read then, until the next result.
 *
 * @param max_wait_ms  How long to wait for the first result, in milliseconds; 0 only looks.
 * @param json_out     A JSON array, empty if no call has finished. Owned: free with evergrant_string_free(). If it is
 *                     NULL, nothing is taken.
 */
EVERGRANT_API
evergrant_status evergrant_queue_take(const evergrant_queue *queue,
                                      uint32_t max_wait_ms,
                                      char **json_out,
                                      evergrant_error **error_out);

/**
 * Frees a queue: no other call with it may be running or follow. Calls under way go on, and their results are dropped.
 *
 * @param queue  NULL is allowed.
 */
EVERGRANT_API
void evergrant_queue_free(evergrant_queue *queue);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* EVERGRANT_H */
