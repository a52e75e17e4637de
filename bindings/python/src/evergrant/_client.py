"""A client: one OAuth client registration with its store of sessions."""

from __future__ import annotations

import sys
from _thread import allocate_lock
from ctypes import byref, c_void_p
from weakref import WeakValueDictionary, finalize

from . import _native
from ._errors import TimedOut
from ._session import Session
from ._token import Token

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Literal, NoReturn

    from typing_extensions import Self

_PAGE = 1000
# One call's wait; then it is made again.
_EVENTS_WAIT_MS = 3_600_000


class Client:
    """One OAuth client registration at one authorization server (RFC 6749 section 2), with one store of sessions.

    Its arguments are the keys of ``docs/configuration.md``. The usual ones:

    >>> client = Client(site_url=SITE, client_id="client", client_secret="secret", store="memory:")
    >>> client.close()
    True

    Sessions live in a SQLite file of this user unless ``store`` says otherwise. Several machines share them through
    ``"postgres://..."`` or ``"redis://..."``, with the same ``encryption_key_file`` on each; :meth:`Session.move` takes
    a session to another store.

    All methods may be called from any thread, and in forked children. Those that may wait come twice: ``close()``
    blocks the calling thread only, ``aclose()`` is for asyncio. All raise :class:`EvergrantError`. A client that is
    used in a ``with`` or ``async with`` statement is closed at its end.
    """

    def __init__(
        self,
        *,
        config_file: str | None = None,
        site_url: str | None = None,
        issuer: str | None = None,
        token_endpoint: str | None = None,
        authorization_endpoint: str | None = None,
        introspection_endpoint: str | None = None,
        revocation_endpoint: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        client_secret_file: str | None = None,
        client_secret_env: str | None = None,
        private_key_file: str | None = None,
        key_id: str | None = None,
        assertion_algorithm: Literal["RS256", "PS256", "ES256"] | None = None,
        assertion_audience: str | None = None,
        client_auth: Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "none"] | None = None,
        basic_encoding: Literal["raw", "form"] | None = None,
        scope: str | None = None,
        refresh_parameters: Mapping[str, str] | None = None,
        authorize_parameters: Mapping[str, str] | None = None,
        parameters_in: Literal["body", "headers"] | None = None,
        store: str | None = None,
        namespace: str | None = None,
        encryption_key: str | Sequence[str] | None = None,
        encryption_key_file: str | None = None,
        encryption_key_env: str | None = None,
        session_lifetime_s: int | None = None,
        expiry_from_introspection: bool | None = None,
        renew_before_s: int | None = None,
        early_renewal: Literal["background", "wait", "off"] | None = None,
        recheck_s: int | None = None,
        renews: bool | None = None,
        lost_reply: Literal["replay", "sign_in"] | None = None,
        reuse_window_s: int | None = None,
        newest_wins: bool | None = None,
        connect_timeout_ms: int | None = None,
        exchange_timeout_ms: int | None = None,
        max_wait_ms: int | None = None,
        exit_wait_ms: int | None = None,
        max_exchanges: int | None = None,
        max_cached_sessions: int | None = None,
        origins: Sequence[str] | None = None,
        ca_file: str | None = None,
        client_certificate_file: str | None = None,
        client_key_file: str | None = None,
        proxy: str | None = None,
        user_agent: str | None = None,
    ) -> None:
        # Before there is any other local name.
        configuration = {name: value for name, value in locals().items() if name != "self"}
        self._handle, error = c_void_p(), c_void_p()
        status = _native.library.evergrant_client_open(
            _native.to_json(configuration).encode(), byref(self._handle), byref(error)
        )
        _native.check(status, error)
        # Not at exit: the library lets renewals under way settle then.
        finalize(self, _free, self._handle).atexit = False
        self._closed = False
        self._sessions: WeakValueDictionary[int, Session] = WeakValueDictionary()
        self._forget_parent()
        clients[id(self)] = self

    def _forget_parent(self) -> None:
        """What a forked child starts anew."""
        self._logged, self._log_lock = 0, allocate_lock()
        self._drop_kept()

    def _end(self) -> None:
        self._closed = True
        self._drop_kept()

    def _drop_kept(self) -> None:
        # A list of weak references is made at once, whatever other threads do meanwhile.
        for session in filter(None, (known() for known in self._sessions.valuerefs())):
            session._drop_kept()

    def __repr__(self) -> str:
        return f"<evergrant.Client at {id(self):#x}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client cannot be pickled; open one where it is needed, on the same store")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def session(self, name: str) -> Session:
        """The session of this name: 1 to 255 bytes of UTF-8 without control characters. It need not exist yet.

        Keep the object where it is used often: it keeps the access token at hand.
        """
        session = Session(self, name)
        self._sessions[id(session)] = session
        return session

    def sessions(self, *, after: str | None = None) -> Iterator[dict[str, Any]]:
        """The sessions in the store, in bytewise order of their names, read page by page as they are asked for.

        Each is ``{"session", "state", "version", "expires_at_s"}``. ``after``: begin behind this name.
        """
        while True:
            page = self._call("session_list", after=after, limit=_PAGE)
            yield from page["sessions"]
            after = page["next"]
            if after is None:
                return

    async def asessions(self, *, after: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """The same for asyncio."""
        while True:
            page = await self._acall("session_list", after=after, limit=_PAGE)
            for row in page["sessions"]:
                yield row
            after = page["next"]
            if after is None:
                return

    def stats(self) -> dict[str, Any]:
        """Counters since the client was opened: ``hits``, ``store_reads``, ``adopted``, ``exchanges``, ..."""
        stats: dict[str, Any] = self._call("client_stats")
        return stats

    async def astats(self) -> dict[str, Any]:
        """The same for asyncio."""
        stats: dict[str, Any] = await self._acall("client_stats")
        return stats

    def events(self, *, after: int = 0, max_wait_ms: int | None = None) -> Iterator[dict[str, Any]]:
        """What has happened and happens, oldest first: ``{"n", "at_s", "kind", "session", "outcome", "reason", ...}``.

        It ends when the client is closed, or when there was none for ``max_wait_ms`` (0: no waiting). ``after``: begin
        behind the event of this number. Only the latest events are kept: a gap in ``n`` says how many were missed.
        """
        while True:
            page = self._call("client_events", after=after, max_wait_ms=_events_wait(max_wait_ms))
            yield from page["events"]
            after = page["next"]
            if not page["events"] and (max_wait_ms is not None or self._closed):
                return

    async def aevents(self, *, after: int = 0, max_wait_ms: int | None = None) -> AsyncIterator[dict[str, Any]]:
        """The same for asyncio."""
        while True:
            page = await self._acall("client_events", after=after, max_wait_ms=_events_wait(max_wait_ms))
            for event in page["events"]:
                yield event
            after = page["next"]
            if not page["events"] and (max_wait_ms is not None or self._closed):
                return

    def sign_in(
        self,
        session: str,
        *,
        scope: str | None = None,
        redirect_uri: str | None = None,
        extra: Mapping[str, str] | None = None,
        max_wait_ms: int | None = None,
    ) -> Token:
        """Signs a user in with a browser of this machine (RFC 8252), and saves the session in place of an earlier one.

        Opens the browser (``$BROWSER``, or the system's own) and waits until the user comes back, for five minutes
        unless ``max_wait_ms`` says otherwise: then :class:`TimedOut` is raised. Ctrl-C ends the wait at once.

        ``scope``: it must make the server give a refresh token. ``redirect_uri``: by default
        ``http://127.0.0.1/callback``, with a free port; one with a port listens there. ``extra``: further parameters of
        the authorization request. If it fails, the session is as it was.
        """
        request = _request(redirect_uri, scope, extra=extra, max_wait_ms=max_wait_ms)
        return Token(self._call("sign_in_with_browser", session=session, request=request))

    async def asign_in(
        self,
        session: str,
        *,
        scope: str | None = None,
        redirect_uri: str | None = None,
        extra: Mapping[str, str] | None = None,
        max_wait_ms: int | None = None,
    ) -> Token:
        """The same for asyncio."""
        request = _request(redirect_uri, scope, extra=extra, max_wait_ms=max_wait_ms)
        return Token(await self._acall("sign_in_with_browser", session=session, request=request))

    def sign_in_start(
        self,
        *,
        redirect_uri: str | None = None,
        scope: str | None = None,
        extra: Mapping[str, str] | None = None,
        listen: bool = False,
        max_wait_ms: int | None = None,
    ) -> dict[str, Any]:
        """Starts a sign-in with an authorization code and PKCE (RFC 6749 section 4.1, RFC 7636). Nothing is sent.

        Send the user to ``authorization_url`` of the answer. Keep the whole answer, secretly, for ``sign_in_finish``.

        ``redirect_uri``: where your program gets the answer. ``listen``: this process waits for it itself, as for
        ``sign_in``, for ``max_wait_ms``.
        """
        request = _request(redirect_uri, scope, extra=extra, listen=listen or None, max_wait_ms=max_wait_ms)
        answer: dict[str, Any] = self._call("sign_in_start", request=request)
        return answer

    async def asign_in_start(
        self,
        *,
        redirect_uri: str | None = None,
        scope: str | None = None,
        extra: Mapping[str, str] | None = None,
        listen: bool = False,
        max_wait_ms: int | None = None,
    ) -> dict[str, Any]:
        """The same for asyncio."""
        request = _request(redirect_uri, scope, extra=extra, listen=listen or None, max_wait_ms=max_wait_ms)
        answer: dict[str, Any] = await self._acall("sign_in_start", request=request)
        return answer

    def sign_in_finish(self, session: str, sign_in: Mapping[str, Any], redirect_url: str | None = None) -> Token:
        """Finishes a sign-in: checks ``state``, exchanges the code (RFC 6749 section 4.1.3), saves the session.

        ``sign_in``: the whole answer of ``sign_in_start``. ``redirect_url``: the URL that the user came back to; not
        given, it waits for the user, if the sign-in was started with ``listen``.

        If it fails, the session is as it was. :class:`SignInRequired` means that the user must sign in again,
        :class:`Unavailable` with the outcome ``not_sent`` that the same call may be made again.
        """
        return Token(self._call("sign_in_finish", session=session, sign_in=sign_in, redirect_url=redirect_url))

    async def asign_in_finish(self, session: str, sign_in: Mapping[str, Any], redirect_url: str | None = None) -> Token:
        """The same for asyncio."""
        return Token(await self._acall("sign_in_finish", session=session, sign_in=sign_in, redirect_url=redirect_url))

    def sign_in_with_password(
        self,
        session: str,
        *,
        username: str,
        password: str,
        redirect_uri: str,
        scope: str | None = None,
        credentials_in: Literal["header", "body"] | None = None,
    ) -> Token:
        """Signs a user of a Salesforce Experience Cloud site in without a browser, and saves the session.

        This is the Authorization Code and Credentials flow. ``redirect_uri`` is one that the app has; it is never
        called. ``credentials_in="body"``: as some apps want it.
        """
        request = _request(redirect_uri, scope, username=username, password=password, credentials_in=credentials_in)
        return Token(self._call("sign_in_with_password", session=session, request=request))

    async def asign_in_with_password(
        self,
        session: str,
        *,
        username: str,
        password: str,
        redirect_uri: str,
        scope: str | None = None,
        credentials_in: Literal["header", "body"] | None = None,
    ) -> Token:
        """The same for asyncio."""
        request = _request(redirect_uri, scope, username=username, password=password, credentials_in=credentials_in)
        return Token(await self._acall("sign_in_with_password", session=session, request=request))

    def close(self, max_wait_ms: int | None = None) -> bool:
        """Lets renewals under way finish, for at most ``max_wait_ms``; every waiting and later call raises ``Closed``.

        Returns whether all have finished: if not, a later run settles what is left. The default is ``exit_wait_ms`` of
        the configuration. It may be called from any thread, and again.
        """
        self._end()
        try:
            self._call("client_close", max_wait_ms=max_wait_ms)
        except TimedOut:
            return False
        return True

    async def aclose(self, max_wait_ms: int | None = None) -> bool:
        """The same for asyncio."""
        self._end()
        try:
            await self._acall("client_close", max_wait_ms=max_wait_ms)
        except TimedOut:
            return False
        return True

    def _call(self, name: str, **members: Any) -> Any:
        try:
            return _native.call(self._handle, _native.to_json({"call": name, **members}))
        finally:
            self._log()

    async def _acall(self, name: str, **members: Any) -> Any:
        from ._aio import call

        try:
            return await call(self._handle, _native.to_json({"call": name, **members}))
        finally:
            self._log()

    def _log(self) -> None:
        """Logs what has happened since the last time, unless nobody can be listening."""
        if "logging" in sys.modules and self._log_lock.acquire(blocking=False):
            try:
                from ._log import log_events

                self._logged = log_events(self._handle, self._logged)
            finally:
                self._log_lock.release()


def _events_wait(max_wait_ms: int | None) -> int:
    return _EVENTS_WAIT_MS if max_wait_ms is None else max_wait_ms


def _request(redirect_uri: str | None, scope: str | None, **members: Any) -> dict[str, Any]:
    request = {"redirect_uri": redirect_uri, "scope": scope, **members}
    return {name: value for name, value in request.items() if value is not None}


def _free(handle: c_void_p) -> None:
    """Ends a client that nobody holds any more, if no renewal of it is under way; else the next one's end does."""
    ending = [handle, *unsettled]
    unsettled.clear()
    for one in ending:
        if _native.library.evergrant_client_close(one, 0):
            unsettled.append(one)
        else:
            _native.library.evergrant_client_free(one)


unsettled: list[c_void_p] = []
"""Clients that nobody holds, but that have a renewal under way."""

clients: WeakValueDictionary[int, Client] = WeakValueDictionary()
"""All clients of this process."""
