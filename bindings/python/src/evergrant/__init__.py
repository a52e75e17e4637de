"""Sign in once, stay signed in: keeps OAuth 2.0 sessions renewed.

>>> import evergrant
>>> client = evergrant.Client(site_url=SITE, client_id="client", client_secret="secret", store="memory:")
>>> alice = client.session("alice")
>>> alice.save({"refresh_token": REFRESH_TOKEN})
>>> access_token = alice.access_token()

The documentation of the library, of its configuration and of what it guarantees is in the project's ``docs``.
"""

from __future__ import annotations

from . import _process as _process
from ._client import Client
from ._errors import (
    Closed,
    EvergrantError,
    InternalError,
    InvalidArgument,
    Refused,
    SignInRequired,
    StoreError,
    TimedOut,
    Unavailable,
)
from ._flow import arefresh, is_rejection, refresh
from ._native import library
from ._session import Session
from ._token import Token

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._configuration import Configuration

__version__: str = library.evergrant_version().decode()

__all__ = [
    "Client",
    "Closed",
    "Configuration",
    "EvergrantError",
    "InternalError",
    "InvalidArgument",
    "Refused",
    "Session",
    "SignInRequired",
    "StoreError",
    "TimedOut",
    "Token",
    "Unavailable",
    "__version__",
    "arefresh",
    "is_rejection",
    "refresh",
]


def __getattr__(name: str) -> object:
    # It needs `typing`, which nobody needs to get a token.
    if name == "Configuration":
        from ._configuration import Configuration

        return Configuration
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
