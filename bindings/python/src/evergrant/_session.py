"""One session of a client."""

from __future__ import annotations

from ctypes import byref, c_int32, c_int64, c_uint32, c_void_p
from time import monotonic, time

from ._native import c_text, check, library, text
from ._token import Token

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NoReturn

    from httpx import Auth
    from httpx2 import Auth as Auth2
    from requests.auth import AuthBase

    from ._client import Client

# What a session keeps to answer at once: the word of its stamp, until when the token is fresh by the wall clock and by
# the one that is never set, and the token. No stamp has this word.
_Kept = tuple[int, float, float, str]
_NOTHING: _Kept = (-1, 0.0, 0.0, "")


class Session:
    """One user's grant, under a name that you choose. Made by :meth:`Client.session`.

    All methods may be called from any thread. Those that may wait come twice: ``token()`` blocks the calling thread
    only, and Ctrl-C ends it at once; ``atoken()`` is for asyncio, and cancelling it ends the wait only. Neither ends a
    renewal. All raise :class:`EvergrantError`; waits are in milliseconds, ``max_wait_ms`` of the configuration if not
    given.
    """

    __slots__ = ("__weakref__", "_bytes", "_first_url", "_kept", "_stamp", "client", "name")

    client: Client
    """The client that it belongs to."""
    name: str
    """Its name."""

    def __init__(self, client: Client, name: str) -> None:
        self.client, self.name, self._bytes = client, name, c_text("session", name)
        self._first_url: bytes | None = None
        self._kept = _NOTHING
        stamp, error = c_void_p(), c_void_p()
        check(library.evergrant_session_stamp(client._handle, self._bytes, byref(stamp), byref(error)), error)
        assert stamp.value
        self._stamp = memoryview(c_uint32.from_address(stamp.value)).cast("B").cast("I")

    def __repr__(self) -> str:
        return f"<evergrant.Session {self.name!r}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a session cannot be pickled; open a client where it is needed, on the same store")

    # A hit: nothing in this process has changed what the library would answer, and the token is fresh by both clocks.
    # Spelled out twice, because a call costs; not keyword-only, because CPython calls that faster; and the word is read
    # through a memoryview, which is the fastest way to it.

    def access_token(self, min_valid_s: int | None = None, max_wait_ms: int | None = None) -> str:
        """An access token that is valid now, from memory if it can be; renews it if need be.

        ``min_valid_s``: for how many seconds it must still be valid.
        """
        word, fresh_until, fresh_until_monotonic, token = self._kept
        if (
            self._stamp[0] == word
            and time() < fresh_until
            and monotonic() < fresh_until_monotonic
            and min_valid_s is None
        ):
            return token
        found = None if min_valid_s is not None else self._look()
        if found is None:
            options = _options(min_valid_s=min_valid_s, max_wait_ms=max_wait_ms)
            found = self._call("session_access_token", options=options)
            self._look()
        return found

    async def aaccess_token(self, min_valid_s: int | None = None, max_wait_ms: int | None = None) -> str:
        """The same for asyncio. From memory it answers without suspending the task."""
        word, fresh_until, fresh_until_monotonic, token = self._kept
        if (
            self._stamp[0] == word
            and time() < fresh_until
            and monotonic() < fresh_until_monotonic
            and min_valid_s is None
        ):
            return token
        found = None if min_valid_s is not None else self._look()
        if found is None:
            options = _options(min_valid_s=min_valid_s, max_wait_ms=max_wait_ms)
            found = await self._acall("session_access_token", options=options)
            self._look()
        return found

    def _look(self) -> str | None:
        """The token in the library's memory, kept for the next call; ``None`` if the library has to be asked."""
        # The word first: what changes it from here on then ends what is kept.
        word = self._stamp[0]
        token, fresh_until_ms = c_void_p(), c_int64()
        if library.evergrant_session_peek(self.client._handle, self._bytes, byref(token), byref(fresh_until_ms)):
            return None
        found, fresh_until = text(token), fresh_until_ms.value / 1000
        self._kept = (word, fresh_until, monotonic() + fresh_until - time(), found)
        return found

    def _drop_kept(self) -> None:
        self._kept = _NOTHING

    def token(self, *, min_valid_s: int | None = None, max_wait_ms: int | None = None) -> Token:
        """A token that is valid now, with all its members; renews it if need be.

        ``min_valid_s``: for how many seconds it must still be valid.
        """
        options = _options(min_valid_s=min_valid_s, max_wait_ms=max_wait_ms)
        return Token(self._call("session_token", options=options))

    async def atoken(self, *, min_valid_s: int | None = None, max_wait_ms: int | None = None) -> Token:
        """The same for asyncio."""
        options = _options(min_valid_s=min_valid_s, max_wait_ms=max_wait_ms)
        return Token(await self._acall("session_token", options=options))

    def renew(self, rejected: str | None = None, *, anyway: bool = False, max_wait_ms: int | None = None) -> Token:
        """A newer token, after a resource server has rejected one.

        ``rejected``: the access token that was rejected. If somebody has renewed since, that token is the answer, and
        nothing is sent. Without it, renews in any case.

        ``anyway``: try once past an end or a back-off, because a user was repaired or a secret corrected.
        """
        options = _options(anyway=anyway or None, max_wait_ms=max_wait_ms)
        return Token(self._call("session_renew", rejected_access_token=rejected, options=options))

    async def arenew(
        self, rejected: str | None = None, *, anyway: bool = False, max_wait_ms: int | None = None
    ) -> Token:
        """The same for asyncio."""
        options = _options(anyway=anyway or None, max_wait_ms=max_wait_ms)
        return Token(await self._acall("session_renew", rejected_access_token=rejected, options=options))

    def save(self, token: Mapping[str, Any]) -> None:
        """Keeps a token endpoint's answer (RFC 6749 section 5.1), or just ``{"refresh_token": ...}``, durably.

        A program may save the refresh token from its secrets at every start: one that was saved or spent before
        changes nothing. One never seen replaces the session, like a new sign-in.
        """
        self._call("session_save", token=token)

    async def asave(self, token: Mapping[str, Any]) -> None:
        """The same for asyncio."""
        await self._acall("session_save", token=token)

    def describe(self) -> dict[str, Any]:
        """What the store knows of the session, without secrets: ``state``, ``reason``, ``history``, ..."""
        description: dict[str, Any] = self._call("session_describe")
        return description

    async def adescribe(self) -> dict[str, Any]:
        """The same for asyncio."""
        description: dict[str, Any] = await self._acall("session_describe")
        return description

    def introspect(self) -> dict[str, Any]:
        """What the authorization server says of the access token (RFC 7662). One that has ended is renewed first."""
        answer: dict[str, Any] = self._call("session_introspect")
        return answer

    async def aintrospect(self) -> dict[str, Any]:
        """The same for asyncio."""
        answer: dict[str, Any] = await self._acall("session_introspect")
        return answer

    def sign_out(self) -> None:
        """Ends the session here and at the server: erases its tokens and has them revoked (RFC 7009)."""
        self._call("session_sign_out")

    async def asign_out(self) -> None:
        """The same for asyncio."""
        await self._acall("session_sign_out")

    def forget(self) -> None:
        """Erases the session here only; the server is not told, and its tokens stay valid there."""
        self._call("session_forget")

    async def aforget(self) -> None:
        """The same for asyncio."""
        await self._acall("session_forget")

    def move(
        self,
        store: str,
        *,
        namespace: str | None = None,
        encryption_key: str | Sequence[str] | None = None,
        encryption_key_file: str | None = None,
        encryption_key_env: str | None = None,
    ) -> None:
        """Moves the session to another store, named as in the configuration.

        At no moment do two stores both believe that they hold its refresh token. After a crash the same call goes on
        where it stopped; the call the other way round takes it back.
        """
        to = {name: value for name, value in locals().items() if name != "self" and value is not None}
        self._call("session_move", to=to)

    async def amove(
        self,
        store: str,
        *,
        namespace: str | None = None,
        encryption_key: str | Sequence[str] | None = None,
        encryption_key_file: str | None = None,
        encryption_key_env: str | None = None,
    ) -> None:
        """The same for asyncio."""
        to = {name: value for name, value in locals().items() if name != "self" and value is not None}
        await self._acall("session_move", to=to)

    def allows(self, url: str) -> bool:
        """Whether the session's access token may be sent to this URL.

        Its origin must be one of the configuration's ``origins``; without that key, that of ``site_url`` or of the
        token's ``instance_url``; if there is neither, that of the first URL that this object was asked about.
        """
        encoded, allowed, error = c_text("url", url), c_int32(), c_void_p()
        status = library.evergrant_session_allows(
            self.client._handle, self._bytes, encoded, self._first_url, byref(allowed), byref(error)
        )
        check(status, error)
        if allowed.value and self._first_url is None:
            self._first_url = encoded
        return bool(allowed.value)

    def requests_auth(self) -> AuthBase:
        """An ``auth`` for ``requests``.

        It sends the access token to the session's origins only, and if it is rejected renews and repeats once.
        """
        from ._requests import RequestsAuth

        return RequestsAuth(self)

    def httpx_auth(self) -> Auth:
        """The same for ``httpx``, for its ``Client`` and its ``AsyncClient``."""
        from ._httpx import httpx_auth

        return httpx_auth(self)

    def httpx2_auth(self) -> Auth2:
        """The same for ``httpx2``."""
        from ._httpx import httpx2_auth

        return httpx2_auth(self)

    def _call(self, name: str, **members: Any) -> Any:
        return self.client._call(name, session=self.name, **members)

    async def _acall(self, name: str, **members: Any) -> Any:
        return await self.client._acall(name, session=self.name, **members)


def _options(**options: Any) -> dict[str, Any] | None:
    return {name: value for name, value in options.items() if value is not None} or None
