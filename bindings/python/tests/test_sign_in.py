"""Sign-in in each of its ways, each blocking and for asyncio; a small program stands for the browser."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import evergrant
from server import LIMIT_S, Server

BROWSER = f"{sys.executable} {Path(__file__).resolve().parents[3] / 'tests' / 'browser.py'}"
SCOPE = "api refresh_token"
OpenClient = Callable[..., evergrant.Client]


def visit(sign_in: dict[str, Any]) -> str:
    """Where the browser ends that opens the sign-in's URL."""
    command = [*BROWSER.split(), sign_in["authorization_url"]]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT_S).stdout.strip()


def begins(token: evergrant.Token, session: evergrant.Session) -> None:
    """A new session that renews."""
    assert token.generation == 1
    assert "refresh_token" not in token
    assert session.access_token() == token.access_token
    assert session.renew(token.access_token).generation == 2


def call(client: evergrant.Client, name: str, way: str, *args: Any, **options: Any) -> Any:
    """A method of the client, or its counterpart for asyncio."""
    if way == "blocking":
        return getattr(client, name)(*args, **options)

    async def main() -> Any:
        return await getattr(client, "a" + name)(*args, **options)

    return asyncio.run(main())


ways = pytest.mark.parametrize("way", ["blocking", "asyncio"])


@ways
def test_by_redirect(client: evergrant.Client, server: Server, way: str) -> None:
    echo = f"{server.url}/services/oauth2/echo"
    sign_in = call(client, "sign_in_start", way, redirect_uri=echo, scope=SCOPE, extra={"login_hint": "alice"})
    url = visit(sign_in)
    begins(call(client, "sign_in_finish", way, "alice", sign_in, url), client.session("alice"))
    with pytest.raises(evergrant.SignInRequired) as refused:
        call(client, "sign_in_finish", way, "alice", sign_in, url)
    assert (refused.value.reason, refused.value.outcome) == ("code_refused", "refused")
    with pytest.raises(evergrant.InvalidArgument, match="redirect_url") as mismatch:
        call(client, "sign_in_finish", way, "alice", sign_in, url.replace("state=", "state=x"))
    assert mismatch.value.reason == "state_mismatch"
    assert client.session("alice").token().generation == 2


@ways
def test_with_a_browser(client: evergrant.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str) -> None:
    monkeypatch.setenv("BROWSER", BROWSER)
    begins(call(client, "sign_in", way, "alice", scope=SCOPE), client.session("alice"))
    monkeypatch.setenv("BROWSER", str(tmp_path / "none"))
    with pytest.raises(evergrant.InvalidArgument, match="BROWSER"):
        call(client, "sign_in", way, "alice")
    monkeypatch.setenv("BROWSER", "true")
    with pytest.raises(evergrant.TimedOut):
        call(client, "sign_in", way, "alice", max_wait_ms=50)


@ways
def test_without_opening_it(client: evergrant.Client, way: str) -> None:
    sign_in = call(client, "sign_in_start", way, scope=SCOPE, listen=True, max_wait_ms=LIMIT_S * 1000)
    browser = threading.Thread(target=visit, args=[sign_in])
    browser.start()
    begins(call(client, "sign_in_finish", way, "alice", sign_in), client.session("alice"))
    browser.join()


@ways
def test_by_password(client: evergrant.Client, server: Server, way: str) -> None:
    user = {"username": "user@example.com", "redirect_uri": f"{server.url}/services/oauth2/echo"}
    token = call(client, "sign_in_with_password", way, "alice", password="password", scope=SCOPE, **user)
    begins(token, client.session("alice"))
    token = call(client, "sign_in_with_password", way, "bob", password="password", credentials_in="body", **user)
    begins(token, client.session("bob"))
    with pytest.raises(evergrant.SignInRequired, match="authentication failure") as refused:
        call(client, "sign_in_with_password", way, "alice", password="wrong", **user)
    assert refused.value.reason == "access_denied"
    assert not server.log("echo")


def test_a_request_that_is_wrong_is_named(client: evergrant.Client) -> None:
    with pytest.raises(evergrant.InvalidArgument, match="redirect_uri"):
        client.sign_in_start()
    with pytest.raises(evergrant.InvalidArgument, match="redirect_uri"):
        client.sign_in("alice", redirect_uri="https://app.example/")
    with pytest.raises(evergrant.InvalidArgument, match="sign_in_json"):
        client.sign_in_finish("alice", {}, "https://app.example/")
    with pytest.raises(evergrant.InvalidArgument, match="redirect_url"):
        client.sign_in_finish("alice", {})


def test_to_give_up_a_wait_does_not_hold_up_the_loop(client: evergrant.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER", "true")

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.asign_in("alice"), 0.1)

    asyncio.run(main())


def test_closing_ends_the_wait(open_client: OpenClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER", "true")
    client = open_client()
    closing = threading.Timer(0.2, client.close)
    closing.start()
    with pytest.raises(evergrant.Closed):
        client.sign_in("alice")
    closing.join()


PROGRAM = """
import evergrant, os, sys
with evergrant.Client(site_url=sys.argv[1], client_id="client", store="memory:") as client:
    try:
        print("waiting", flush=True)
        client.sign_in("alice")
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_ctrl_c_ends_the_wait(server: Server) -> None:
    environment = {**os.environ, "BROWSER": "true"}
    command = [sys.executable, "-c", PROGRAM, server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as program:
        assert program.stdout
        assert program.stdout.readline() == "waiting\n"
        time.sleep(0.3)
        program.send_signal(signal.SIGINT)
        assert program.stdout.read() == "interrupted\n"
        assert program.wait(LIMIT_S) == 0
