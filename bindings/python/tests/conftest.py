"""What all tests share: servers, configurations, clients."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import evergrant
from server import Server
from stores import Postgres

# Whoever starts the tests in the background may have it ignored, and the programs that they start inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """Starts servers with options of the test's choice."""
    with ExitStack() as stack:

        def start(**options: Any) -> Server:
            server = Server(**options)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    """A Salesforce site with strict rotation."""
    return start_server()


@pytest.fixture
def site(server: Server, tmp_path: Path) -> dict[str, Any]:
    """A client of that site, with a store of its own on disk."""
    return {
        "site_url": server.url,
        "client_id": "client",
        "client_secret": "secret",
        "store": f"sqlite:{tmp_path}/sessions.db",
        "session_lifetime_s": 3600,
    }


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """A server of a shared store."""
    with ExitStack() as stack:
        server = Postgres()
        stack.callback(server.stop)
        yield server


@pytest.fixture
def on_postgres(site: dict[str, Any], postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    """Has that client keep its sessions in PostgreSQL, sealed with the key in a file."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    key = tmp_path / "evergrant.key"
    key.write_bytes(base64.b64encode(os.urandom(32)))
    site.update(store=postgres.url, encryption_key_file=str(key))
    return postgres


@pytest.fixture
def open_client(site: dict[str, Any]) -> Iterator[Callable[..., evergrant.Client]]:
    """Opens clients of that site, with other keys laid over its configuration."""
    with ExitStack() as stack:

        def open_client(**configuration: Any) -> evergrant.Client:
            return stack.enter_context(evergrant.Client(**{**site, **configuration}))

        yield open_client


@pytest.fixture
def client(open_client: Callable[..., evergrant.Client]) -> evergrant.Client:
    """A client of that site."""
    return open_client()


@pytest.fixture
def alice(client: evergrant.Client, server: Server) -> evergrant.Session:
    """A session of that client, signed in."""
    session = client.session("alice")
    session.save(server.sign_in())
    return session
