"""Fixtures for what meets other packages."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import evergrant
import pytest
from origin import Origin

RECIPES = Path(__file__).parents[2] / "recipes"
sys.path.insert(0, str(RECIPES))


class Server:
    """The project's test server: an authorization server, and resources that want its tokens."""

    def __init__(self, **options: Any) -> None:
        program = os.environ["EVERGRANT_TEST_SERVER_PROGRAM"]
        settings = json.dumps({"rotation": "strict", **options})
        self.process = subprocess.Popen(
            [program, "--options", settings, "--exit-with-stdin"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout
        ready = json.loads(self.process.stdout.readline())
        self.url: str = ready["url"]
        self.control_url: str = ready["control_url"]
        self.token_endpoint: str = ready["token_endpoint"]

    def control(self, name: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.control_url}/{name}", data, timeout=30) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")

    def log(self, endpoint: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.control(f"log?endpoint={endpoint}")
        return entries

    def rotations(self) -> int:
        stats = self.control("stats")
        assert stats["reuses"] == 0
        rotations: int = stats["rotations"]
        return rotations

    def sign_in(self) -> dict[str, Any]:
        token: dict[str, Any] = self.control("sign_in", {})
        return token

    def expire(self) -> None:
        """All access tokens end; the refresh tokens stay good."""
        self.control("expire", {})

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(30)


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    with ExitStack() as stack:

        def start(**options: Any) -> Server:
            server = Server(**options)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server()


@pytest.fixture
def open_client(server: Server, tmp_path: Path) -> Iterator[Callable[..., evergrant.Client]]:
    with ExitStack() as stack:

        def open_one(**configuration: Any) -> evergrant.Client:
            known = {"site_url": server.url} if server.token_endpoint.endswith("/services/oauth2/token") else {}
            configuration = {
                **(known or {"token_endpoint": server.token_endpoint}),
                "client_id": "client",
                "client_secret": "secret",
                "store": f"sqlite:{tmp_path}/sessions.db",
                **configuration,
            }
            return stack.enter_context(evergrant.Client(**configuration))

        yield open_one


@pytest.fixture
def signed_in(server: Server, open_client: Callable[..., evergrant.Client]) -> Callable[..., evergrant.Session]:
    """Opens a client, and saves what a sign-in has brought as its session "alice"."""

    def sign_in(**configuration: Any) -> evergrant.Session:
        session = open_client(**configuration).session("alice")
        session.save(server.sign_in())
        return session

    return sign_in


@pytest.fixture
def session(signed_in: Callable[..., evergrant.Session]) -> evergrant.Session:
    return signed_in()


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


# ---- one face for five HTTP clients ----


class Http:
    """A client of one of the packages, with a session's auth."""

    concurrent_limit = 64

    def __init__(self, package: str, session: evergrant.Session) -> None:
        self.package = package
        if package == "requests":
            import requests

            self.client: Any = requests.Session()
            self.client.auth = session.requests_auth()
            self.client.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=self.concurrent_limit))
            return
        if package.startswith("httpx2"):
            import httpx2 as module

            auth: Any = session.httpx2_auth()
        else:
            import httpx as module  # type: ignore[no-redef]

            auth = session.httpx_auth()
        kind = module.AsyncClient if self.is_async else module.Client
        self.client = kind(auth=auth, timeout=30, follow_redirects=True)
        if self.is_async:
            self.runner = asyncio.Runner()

    @property
    def is_async(self) -> bool:
        return self.package.endswith("-async")

    def request(self, method: str, url: str, **options: Any) -> Any:
        """The answer. `content` is bytes, a file or an iterator, `json` and `data` as usual."""
        if self.is_async:
            return self.runner.run(self.arequest(method, url, **options))
        return self._request(method, url, **options)

    async def arequest(self, method: str, url: str, **options: Any) -> Any:
        return await self._request(method, url, **options)

    def _request(self, method: str, url: str, **options: Any) -> Any:
        if self.package == "requests":
            options = {"data" if name == "content" else name: value for name, value in options.items()}
            options.setdefault("timeout", 30)
        return self.client.request(method, url, **options)

    def get(self, url: str) -> Any:
        return self.request("GET", url)

    def stream(self, url: str) -> tuple[int, bytes]:
        """Status and body, read in pieces."""
        if self.package == "requests":
            with self.client.get(url, stream=True, timeout=30) as answer:
                return answer.status_code, b"".join(answer.iter_content(3))
        if not self.is_async:
            with self.client.stream("GET", url) as answer:
                return answer.status_code, b"".join(answer.iter_bytes(3))

        async def astream() -> tuple[int, bytes]:
            async with self.client.stream("GET", url) as answer:
                return answer.status_code, b"".join([piece async for piece in answer.aiter_bytes(3)])

        return self.runner.run(astream())

    def close(self) -> None:
        if self.is_async:
            self.runner.run(self.client.aclose())
            self.runner.close()
        else:
            self.client.close()


PACKAGES = ["requests", "httpx", "httpx2", "httpx-async", "httpx2-async"]


@pytest.fixture(params=PACKAGES)
def http_for(request: pytest.FixtureRequest) -> Iterator[Callable[[evergrant.Session], Http]]:
    with ExitStack() as stack:

        def make(session: evergrant.Session) -> Http:
            http = Http(request.param, session)
            stack.callback(http.close)
            return http

        yield make


@pytest.fixture
def http(http_for: Callable[[evergrant.Session], Http], session: evergrant.Session) -> Http:
    return http_for(session)
