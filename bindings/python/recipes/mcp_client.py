"""The official MCP client, signed in as a session of evergrant, over the streamable HTTP transport.

    async with connect(client.session("alice"), "https://mcp.example.com/mcp") as mcp:
        await mcp.call_tool("add", {"a": 1, "b": 2})

An MCP session outlives its access tokens: each HTTP request that it makes carries the one that is valid then.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import mcp
from mcp.client.streamable_http import streamable_http_client

import evergrant


@asynccontextmanager
async def connect(session: evergrant.Session, url: str, **options: Any) -> AsyncIterator[mcp.Client]:
    """A connected client. `options`: those of `mcp.Client`."""
    # A server may keep a stream open without a word for minutes.
    timeout = httpx2.Timeout(30, read=300)
    async with (
        httpx2.AsyncClient(auth=session.httpx2_auth(), timeout=timeout) as http,
        mcp.Client(streamable_http_client(url, http_client=http), **options) as client,
    ):
        yield client
