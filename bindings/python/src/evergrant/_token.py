"""A token endpoint's answer."""

from __future__ import annotations

from collections.abc import Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

_SHOWN = ("session", "generation", "instance_url", "expires_at_s", "expiry", "uncommitted")


class Token(Mapping[str, "Any"]):
    """A token, as the library hands it out. It never changes.

    It is a mapping of all members that the server sent, less ``refresh_token``, and of those that the library adds;
    the usual ones are attributes too, ``None`` where there is no such member. Its repr shows no secret. It can be
    pickled, access token and all: treat the bytes like a password.
    """

    __slots__ = ("_members",)
    _members: Mapping[str, Any]

    def __init__(self, members: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_members", dict(members))

    def __getitem__(self, name: str) -> Any:
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a token cannot be changed: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a token cannot be changed: {name}")

    def __repr__(self) -> str:
        shown = [f"{name}={self._members[name]!r}" for name in _SHOWN if name in self._members]
        return f"Token({', '.join([*shown, '...'])})"

    def __reduce__(self) -> tuple[type[Token], tuple[dict[str, Any]]]:
        return type(self), (dict(self._members),)

    @property
    def access_token(self) -> str:
        """The access token, for ``Authorization: Bearer ...`` (RFC 6750 section 2.1)."""
        value: str = self._members["access_token"]
        return value

    @property
    def token_type(self) -> str | None:
        """``"Bearer"``, in the server's spelling."""
        return self._members.get("token_type")

    @property
    def scope(self) -> str | None:
        """What the token is for (RFC 6749 section 3.3), if the server says it."""
        return self._members.get("scope")

    @property
    def instance_url(self) -> str | None:
        """Salesforce: the base URL of the org's instance."""
        return self._members.get("instance_url")

    @property
    def id(self) -> str | None:
        """Salesforce: the identity URL of the user."""
        return self._members.get("id")

    @property
    def expires_in(self) -> int | None:
        """For how many seconds the token was valid when it was handed out; ``None`` if nobody knows."""
        return self._members.get("expires_in")

    @property
    def expires_at_s(self) -> int | None:
        """Until when it is valid, in Unix time; ``None`` if nobody knows."""
        return self._members.get("expires_at_s")

    @property
    def expiry(self) -> str | None:
        """How ``expires_at_s`` is known: ``"known"``, ``"assumed"`` or ``"unknown"``."""
        return self._members.get("expiry")

    @property
    def generation(self) -> int | None:
        """How often the session was renewed, plus one."""
        return self._members.get("generation")

    @property
    def session(self) -> str | None:
        """The session's name."""
        return self._members.get("session")

    @property
    def uncommitted(self) -> bool:
        """Whether it could not yet be written to the store. It is good nevertheless."""
        return bool(self._members.get("uncommitted"))
