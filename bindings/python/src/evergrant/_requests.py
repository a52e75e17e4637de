"""What :meth:`evergrant.Session.requests_auth` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from requests.auth import AuthBase
from requests.exceptions import UnrewindableBodyError
from requests.utils import rewind_body

from ._flow import is_rejection

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

    from ._session import Session


class RequestsAuth(AuthBase):
    """Sends a session's access token (RFC 6750 section 2.1), to the session's origins only.

    It holds no state of a request: any number of threads and of ``requests`` sessions may share it.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Called by ``requests`` when it prepares a request."""
        if self._session.allows(request.url or ""):
            _put(request, self._session.access_token())
            request.register_hook("response", self._heal)  # type: ignore[no-untyped-call]
        return request

    def _heal(self, response: Response, **options: Any) -> Response:
        """Called with every answer of a chain of redirects, but not with that of the replay."""
        request, session = response.request, self._session
        # Only errors: an answer that is streamed is not read here.
        if response.status_code < 400 or not is_rejection(response.status_code, response.content):
            return response
        # requests drops the header where a redirect leaves the origin: then no token was rejected, it was missing.
        sent = request.headers.get("Authorization", "").removeprefix("Bearer ")
        token = session.renew(rejected=sent).access_token if sent else session.access_token()
        # Asked only now, because the new token may be for another instance.
        if not session.allows(request.url or "") or not _rewound(request):
            return response
        _put(request, token)
        response.close()
        answer: Response = response.connection.send(request, **options)
        answer.history.append(response)
        answer.request = request
        return answer


def _put(request: PreparedRequest, token: str) -> None:
    request.headers["Authorization"] = f"Bearer {token}"


def _rewound(request: PreparedRequest) -> bool:
    # Also a file or an iterator, whatever its annotation says.
    body = cast("object", request.body)
    if body is None or isinstance(body, (bytes, str)):
        return True
    try:
        rewind_body(request)
    except UnrewindableBodyError:
        return False
    return True
