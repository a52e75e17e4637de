"""What :meth:`evergrant.Session.httpx_auth` and :meth:`evergrant.Session.httpx2_auth` return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._flow import is_rejection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    import httpx
    import httpx2

    from ._session import Session


class _Flow:
    """Sends a session's access token (RFC 6750 section 2.1), to the session's origins only.

    It holds no state of a request: any number of threads, tasks and HTTP clients may share it. Both packages give the
    flow the last answer of a chain of redirects.
    """

    # Of a body that can be sent again: the package's own class.
    _replayable: type

    def __init__(self, session: Session) -> None:
        self._session = session

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        session = self._session
        if not session.allows(str(request.url)):
            yield request
            return
        _put(request, session.access_token())
        response = yield request
        # Only errors: an answer that is streamed is not read here. To read it to its end frees the connection.
        if response.status_code < 400 or not is_rejection(response.status_code, response.read()):
            return
        sent = _sent(response.request)
        token = session.renew(rejected=sent).access_token if sent else session.access_token()
        if self._may_replay(response.request):
            _put(response.request, token)
            yield response.request

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        session = self._session
        # In this order: once there is a token, allows() needs memory only.
        token = await session.aaccess_token()
        if not session.allows(str(request.url)):
            yield request
            return
        _put(request, token)
        response = yield request
        if response.status_code < 400 or not is_rejection(response.status_code, await response.aread()):
            return
        sent = _sent(response.request)
        token = (await session.arenew(rejected=sent)).access_token if sent else await session.aaccess_token()
        if self._may_replay(response.request):
            _put(response.request, token)
            yield response.request

    def _may_replay(self, request: Any) -> bool:
        # Its origin is asked about again, because the new token may be for another instance.
        return isinstance(request.stream, self._replayable) and self._session.allows(str(request.url))


def _put(request: Any, token: str) -> None:
    request.headers["Authorization"] = f"Bearer {token}"


def _sent(request: Any) -> str:
    # The packages drop the header where a redirect leaves the origin: then no token was rejected, it was missing.
    header: str = request.headers.get("Authorization", "")
    return header.removeprefix("Bearer ")


def httpx_auth(session: Session) -> httpx.Auth:
    import httpx

    class HttpxAuth(_Flow, httpx.Auth):
        _replayable = httpx.ByteStream

    return HttpxAuth(session)


def httpx2_auth(session: Session) -> httpx2.Auth:
    import httpx2

    class Httpx2Auth(_Flow, httpx2.Auth):
        _replayable = httpx2.ByteStream

    return Httpx2Auth(session)
