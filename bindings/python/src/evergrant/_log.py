"""Events of the library, as records of the logger ``evergrant``."""

from __future__ import annotations

import json
import logging
from ctypes import byref, c_void_p

from ._native import library, text

logger = logging.getLogger("evergrant")
logger.addHandler(logging.NullHandler())

_LEVELS = {
    "adopted": logging.DEBUG,
    "renewal_failed": logging.WARNING,
    "commit_pending": logging.WARNING,
    "signature_mismatch": logging.WARNING,
    "store_warning": logging.WARNING,
    "revocation_failed": logging.WARNING,
    "introspection_failed": logging.WARNING,
    "ended": logging.ERROR,
}
_DETAILS = ("outcome", "reason", "duration_ms", "message")


def log_events(client: c_void_p, after: int) -> int:
    """Logs the client's events behind that number; each record has its event as ``record.event``."""
    if not logger.isEnabledFor(logging.ERROR):
        return after
    page, error = c_void_p(), c_void_p()
    if library.evergrant_client_events(client, after, 0, byref(page), byref(error)):
        library.evergrant_error_free(error)
        return after
    found = json.loads(text(page))
    for event in found["events"]:
        level = _LEVELS.get(event["kind"], logging.INFO)
        if logger.isEnabledFor(level):
            details = "".join(f"; {name}: {event[name]}" for name in _DETAILS if name in event)
            logger.log(level, "session %r %s%s", event.get("session"), event["kind"], details, extra={"event": event})
    following: int = found["next"]
    return following
