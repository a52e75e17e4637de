"""The recipe for MCP: the official client and the official server, over HTTP, with tokens that end."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import mcp
import pytest
import uvicorn
from mcp.server import MCPServer
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import Context
from pydantic import AnyHttpUrl

import evergrant
import mcp_client
from server import Server

SignIn = Callable[..., evergrant.Session]


class Introspection:
    """Asks the authorization server about each token (RFC 7662)."""

    def __init__(self, server: Server) -> None:
        self.url = server.token_endpoint.replace("/token", "/introspect")
        self.headers = {"Authorization": f"Basic {base64.b64encode(b'client:secret').decode()}"}
        self.taken: list[str] = []
        self.rejected: list[str] = []

    async def verify_token(self, token: str) -> AccessToken | None:
        async with httpx2.AsyncClient(headers=self.headers, verify=False) as http:
            answer = (await http.post(self.url, data={"token": token})).json()
        if not answer["active"]:
            self.rejected.append(token)
            return None
        self.taken.append(token)
        return AccessToken(token=token, client_id=answer["client_id"], scopes=answer["scope"].split())


class Tools:
    """An MCP server behind token checks, served from the moment it is made until `close()`."""

    def __init__(self, server: Server) -> None:
        self.tokens = Introspection(server)
        url = AnyHttpUrl(server.url)
        auth = AuthSettings(issuer_url=url, resource_server_url=url, validate_token_resource=False)
        tools = MCPServer("tools", auth=auth, token_verifier=self.tokens)

        @tools.tool()
        def add(a: int, b: int) -> int:
            return a + b

        @tools.tool()
        async def slow(seconds: float, context: Context) -> str:
            for step in range(4):
                await context.report_progress(step, 4)
                await asyncio.sleep(seconds / 4)
            return "done"

        @tools.tool()
        async def announce(context: Context) -> str:
            await context.session.send_tool_list_changed()
            return "announced"

        config = uvicorn.Config(tools.streamable_http_app(), port=0, log_level="error", timeout_graceful_shutdown=1)
        self.uvicorn = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.uvicorn.run)
        self.thread.start()
        while not self.uvicorn.started:
            assert self.thread.is_alive()
            time.sleep(0.01)
        host, port = self.uvicorn.servers[0].sockets[0].getsockname()
        self.url = f"http://{host}:{port}/mcp"

    def close(self) -> None:
        self.uvicorn.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server(mode="generic", access_token_life_ms=4000)


@pytest.fixture
def site(server: Server, tmp_path: Path) -> dict[str, Any]:
    return {
        "token_endpoint": server.token_endpoint,
        "client_id": "client",
        "client_secret": "secret",
        "store": f"sqlite:{tmp_path}/sessions.db",
    }


@pytest.fixture
def tools(server: Server) -> Iterator[Tools]:
    tools = Tools(server)
    yield tools
    tools.close()


# A handshake and a session id, as until 2025, or requests that stand alone, as since 2026.
@pytest.fixture(params=["legacy", "auto"])
def mode(request: pytest.FixtureRequest) -> str:
    mode: str = request.param
    return mode


def number(result: Any) -> int:
    assert not result.is_error
    return int(result.content[0].text)


def test_one_mcp_session_lives_through_many_tokens(tools: Tools, server: Server, sign_in: SignIn, mode: str) -> None:
    session = sign_in(renew_before_s=2)

    async def use() -> None:
        async with mcp_client.connect(session, tools.url, mode=mode) as client:
            while len(set(tools.tokens.taken)) < 3:
                assert number(await client.call_tool("add", {"a": 1, "b": 2})) == 3
                await asyncio.sleep(0.05)

    asyncio.run(use())
    assert server.renewals() == 2
    assert tools.tokens.rejected == []


def test_one_mcp_session_lives_through_a_rejection(tools: Tools, server: Server, sign_in: SignIn, mode: str) -> None:
    server.set(access_token_life_ms=3_600_000)
    session = sign_in()

    async def use() -> None:
        async with mcp_client.connect(session, tools.url, mode=mode) as client:
            assert number(await client.call_tool("add", {"a": 1, "b": 2})) == 3
            for rotations in (1, 2):
                server.expire()
                assert number(await client.call_tool("add", {"a": 3, "b": 4})) == 7
                assert server.renewals() == rotations

    asyncio.run(use())
    assert len(tools.tokens.rejected) == 2


def test_many_calls_with_a_dead_token_are_one_renewal(tools: Tools, server: Server, sign_in: SignIn, mode: str) -> None:
    server.set(access_token_life_ms=3_600_000)
    session = sign_in()

    async def use() -> None:
        async with mcp_client.connect(session, tools.url, mode=mode) as client:
            assert number(await client.call_tool("add", {"a": 1, "b": 2})) == 3
            server.expire()
            results = await asyncio.gather(*(client.call_tool("add", {"a": n, "b": n}) for n in range(16)))
            assert [number(result) for result in results] == [2 * n for n in range(16)]

    asyncio.run(use())
    assert server.renewals() == 1


def test_a_call_may_last_longer_than_its_token(tools: Tools, server: Server, sign_in: SignIn, mode: str) -> None:
    server.set(access_token_life_ms=2000)
    session = sign_in()
    steps: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        assert (total, message) == (4, None)
        steps.append(progress)

    async def use() -> None:
        async with mcp_client.connect(session, tools.url, mode=mode) as client:
            result = await client.call_tool("slow", {"seconds": 3}, progress_callback=note)
            assert not result.is_error
            assert number(await client.call_tool("add", {"a": 1, "b": 1})) == 2

    asyncio.run(use())
    assert steps == [0, 1, 2, 3]
    assert server.renewals() >= 1


def test_the_stream_of_a_session_outlives_its_token(tools: Tools, server: Server, sign_in: SignIn) -> None:
    server.set(access_token_life_ms=3_600_000)
    session = sign_in()

    async def use() -> None:
        heard = asyncio.Event()

        async def hear(message: object) -> None:
            if isinstance(message, mcp.types.ToolListChangedNotification):
                heard.set()

        async with mcp_client.connect(session, tools.url, mode="legacy", message_handler=hear) as client:
            server.expire()
            assert not (await client.call_tool("announce", {})).is_error
            await asyncio.wait_for(heard.wait(), 30)

    asyncio.run(use())
    assert server.renewals() == 1


def test_a_session_that_has_ended_says_so(tools: Tools, server: Server, sign_in: SignIn) -> None:
    server.set(access_token_life_ms=3_600_000)
    session = sign_in()

    async def use() -> None:
        async with mcp_client.connect(session, tools.url) as client:
            server.control("revoke", {"family": 0})
            await client.call_tool("add", {"a": 1, "b": 1})

    with pytest.raises(BaseException) as raised:  # noqa: PT011
        asyncio.run(use())
    assert "SignInRequired" in repr(raised.value)
