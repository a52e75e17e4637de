"""Fixtures for what meets other packages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import evergrant
from http_clients import PACKAGES, Http
from origin import Origin
from server import Server

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))


@pytest.fixture
def sign_in(server: Server, open_client: Callable[..., evergrant.Client]) -> Callable[..., evergrant.Session]:
    """Opens a client with other keys laid over its configuration, and signs its session "alice" in."""

    def sign_in(**configuration: Any) -> evergrant.Session:
        session = open_client(**configuration).session("alice")
        session.save(server.sign_in())
        return session

    return sign_in


@pytest.fixture
def start_origin() -> Iterator[Callable[[], Origin]]:
    with ExitStack() as stack:

        def start() -> Origin:
            origin = Origin()
            stack.callback(origin.close)
            return origin

        yield start


@pytest.fixture
def origin(start_origin: Callable[[], Origin]) -> Origin:
    return start_origin()


@pytest.fixture(params=PACKAGES)
def http_for(request: pytest.FixtureRequest) -> Iterator[Callable[[evergrant.Session], Http]]:
    """Makes an HTTP client with a session's auth: each test runs with all packages."""
    with ExitStack() as stack:

        def make(session: evergrant.Session) -> Http:
            http = Http(request.param, session)
            stack.callback(http.close)
            return http

        yield make


@pytest.fixture
def http(http_for: Callable[[evergrant.Session], Http], alice: evergrant.Session) -> Http:
    return http_for(alice)


@pytest.fixture(autouse=True)
def _no_token_is_used_twice(server: Server) -> Iterator[None]:
    yield
    assert server.stats()["reuses"] == 0
