"""What can go wrong, as exceptions: one class for each status of the library."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class EvergrantError(Exception):
    """Any failure that the library reports.

    The text of the exception is complete by itself: what happened, what it means for the session, what to do next.
    Neither it nor any attribute holds a secret.
    """

    status: str = "INTERNAL"
    """The library's status, such as ``"SIGN_IN_REQUIRED"``."""
    reason: str | None = None
    """Why, as one word of an open set: ``expired_or_revoked``, ``network``, ... (docs/guarantees.md lists them)."""
    error: str | None = None
    """The server's ``error`` (RFC 6749 section 5.2)."""
    error_description: str | None = None
    """The server's ``error_description``."""
    error_uri: str | None = None
    """The server's ``error_uri``."""
    http_status: int | None = None
    """The status of the server's answer."""
    retry_after: float | None = None
    """After how many seconds it makes sense to try again."""
    outcome: str | None = None
    """What became of the request, where one was tried: ``not_sent``, ``refused`` or ``unknown``."""
    session: str | None = None
    """The session's name."""


class InvalidArgument(EvergrantError, ValueError):
    """An argument or a configuration key is wrong; the message names it. Nothing was done."""

    status = "INVALID_ARGUMENT"


class SignInRequired(EvergrantError):
    """There is no such session, or it has ended; ``reason`` says why. Only a new sign-in helps."""

    status = "SIGN_IN_REQUIRED"


class Refused(EvergrantError):
    """The authorization server refuses this client or request: correct the configuration. The session is kept."""

    status = "REFUSED"


class Unavailable(EvergrantError):
    """The authorization server cannot answer now; try again after ``retry_after`` seconds. The session is kept."""

    status = "UNAVAILABLE"


class TimedOut(EvergrantError, TimeoutError):
    """Your wait has ended; the renewal goes on without you."""

    status = "TIMED_OUT"


class StoreError(EvergrantError):
    """The store cannot be used; the message says what to do.

    If it came before a renewal, no refresh token was spent.
    """

    status = "STORE"


class Closed(EvergrantError):
    """The client has been closed."""

    status = "CLOSED"


class InternalError(EvergrantError):
    """A defect of the library, or a status that this version of the package does not know."""


_BY_STATUS = {
    cls.status: cls for cls in (InvalidArgument, SignInRequired, Refused, Unavailable, TimedOut, StoreError, Closed)
}
_AS_IT_IS = ("status", "reason", "error", "error_description", "error_uri", "http_status", "outcome", "session")


def error_of(details: Mapping[str, Any]) -> EvergrantError:
    """The exception for an error of the library, given as the object of ``evergrant_error_json()``."""
    error = _BY_STATUS.get(details["status"], InternalError)(details["message"])
    for name in _AS_IT_IS:
        if details.get(name) is not None:
            setattr(error, name, details[name])
    if details.get("retry_after_ms") is not None:
        error.retry_after = details["retry_after_ms"] / 1000
    return error
