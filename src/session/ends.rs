//! The ends of a session, in words (docs/signed-out.md).

/// Why there is no session, and what to do: every reason with which one can end.
pub const ENDS: &[(&str, &str)] = &[
    ("no_session", "there is none of this name: sign the user in, or save a token first"),
    (
        "no_refresh_token",
        "its token has expired and there is no refresh token to renew it: the user must sign in again, with a scope that \
         gives a refresh token",
    ),
    ("signed_out", "the user has signed out: only a new sign-in helps"),
    (
        "rotation_lost",
        "the answer to a renewal was lost and the server refuses the old refresh token: the user must sign in again",
    ),
    (
        "inactive_user",
        "the server says that the user is inactive: after an administrator has repaired that, renew it with anyway: true",
    ),
    (
        "expired_or_revoked",
        "the server refuses its refresh token, which has expired or was revoked: the user must sign in again",
    ),
    (
        "used_elsewhere_or_revoked",
        "the server refuses its refresh token, although nobody who shares this store has used it: it was used elsewhere, \
         was revoked, or has expired; look for a second copy of it, and have the user sign in again",
    ),
];

/// In words.
pub fn why_ended(reason: &str) -> &'static str {
    let known = ENDS.iter().find(|(known, _)| *known == reason);
    known.map_or("it has ended: the user must sign in again", |(_, why)| why)
}
