"""How programs use the package, for the type checkers (`test.sh --check`): each line must mean what it says here.

An unused "type: ignore" is an error too, so what is wrong stays wrong.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

import evergrant


def configured(configuration: evergrant.Configuration) -> evergrant.Client:
    evergrant.Client(client_id="x", early_renewal="sometimes")  # type: ignore[arg-type]
    evergrant.Client(client_id=7)  # type: ignore[arg-type]
    evergrant.Client(client_idd="x")  # type: ignore[call-arg]
    evergrant.Client("https://example.com")  # type: ignore[call-arg]
    assert_type(evergrant.refresh(client_id="x", refresh_token="y"), evergrant.Token)
    evergrant.refresh(client_id="x", refresh_token=None)  # type: ignore[arg-type]
    evergrant.refresh(client_id="x")  # type: ignore[call-arg]
    return evergrant.Client(**configuration)


def blocking(client: evergrant.Client) -> None:
    with client as entered:
        assert_type(entered, evergrant.Client)
    session = client.session("alice")
    assert_type(session, evergrant.Session)
    assert_type(session.access_token(), str)
    token = session.token(min_valid_s=60)
    assert_type(token, evergrant.Token)
    assert_type(token.access_token, str)
    assert_type(token.instance_url, str | None)
    assert_type(token["issued_at"], Any)
    assert_type(session.renew(rejected=token.access_token, anyway=True), evergrant.Token)
    assert_type(session.allows("https://example.com"), bool)
    assert_type(client.sessions(), Iterator[dict[str, Any]])
    assert_type(client.close(), bool)
    session.save({"refresh_token": "x"})
    session.save("x")  # type: ignore[arg-type]
    token.access_token = "x"  # type: ignore[misc]


async def in_asyncio(client: evergrant.Client) -> None:
    async with client as entered:
        assert_type(entered, evergrant.Client)
    session = client.session("alice")
    assert_type(await session.aaccess_token(), str)
    assert_type(await session.atoken(), evergrant.Token)
    assert_type(client.aevents(), AsyncIterator[dict[str, Any]])


def failures(error: evergrant.EvergrantError) -> None:
    assert_type(error.retry_after, float | None)
    assert_type(error.reason, str | None)
    builtin: ValueError = evergrant.InvalidArgument("x")
    timeout: TimeoutError = evergrant.TimedOut("x")
    del builtin, timeout
