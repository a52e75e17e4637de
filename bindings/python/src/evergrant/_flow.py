"""What needs no client."""

from __future__ import annotations

from . import _native
from ._token import Token

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._configuration import RefreshRequest


def is_rejection(status: int, body: str | bytes | None = None) -> bool:
    """Whether a resource server's answer means "this access token is dead".

    Then call :meth:`Session.renew` with the rejected token, and repeat the request once (RFC 6750 section 3.1).

    >>> is_rejection(401), is_rejection(403, '[{"errorCode": "INSUFFICIENT_ACCESS"}]')
    (True, False)
    """
    if isinstance(body, str):
        body = body.encode(errors="replace")
    if not isinstance(status, int) or not isinstance(body, bytes | None):
        raise TypeError("is_rejection takes a status as an int, and a body as a str or bytes")
    return bool(_native.library.evergrant_is_rejection(status, body))


def refresh(**request: Unpack[RefreshRequest]) -> Token:
    """The refresh-token flow itself, once (RFC 6749 section 6): a client's configuration plus ``refresh_token``.

    The answer is the token endpoint's, a rotated ``refresh_token`` included. Nothing is stored, and nothing keeps two
    callers from spending the same refresh token: :meth:`Session.token` does.
    """
    return Token(_native.call(None, _request(request)))


async def arefresh(**request: Unpack[RefreshRequest]) -> Token:
    """The same for asyncio."""
    from ._aio import call

    return Token(await call(None, _request(request)))


def _request(request: RefreshRequest) -> str:
    return _native.to_json({"call": "refresh", "request": {k: v for k, v in request.items() if v is not None}})
