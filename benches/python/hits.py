"""A token that memory has, for Python: CPU time of one call. Argument: the directory of prepare.py."""

import asyncio
import ctypes
import os
import sys
import time
import timeit
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from time import time as wall
from types import SimpleNamespace
from typing import Any

import evergrant
import google.auth.transport.requests
import google.oauth2.credentials
import msal
import requests_oauth2client
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.integrations.requests_client import OAuth2Session
from offline import SCOPES, application
from prepare import token_answer
from rounds import in_turn, row

ENDPOINT = "https://login.example.com/token"
ANSWER = token_answer()
EXPIRES_AT = int(wall()) + ANSWER["expires_in"]


def ours() -> evergrant.Session:
    client = evergrant.Client(token_endpoint=ENDPOINT, client_id="c", store="memory:")
    session = client.session("bench")
    session.save(ANSWER)
    return session


def google_auth() -> google.oauth2.credentials.Credentials:
    return google.oauth2.credentials.Credentials(
        ANSWER["access_token"],
        refresh_token=ANSWER["refresh_token"],
        token_uri=ENDPOINT,
        client_id="c",
        client_secret="s",
        expiry=datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=ANSWER["expires_in"]),
    )


class ByHand:
    """The least that is right: has anything changed, and is it over by one of both clocks?"""

    def __init__(self) -> None:
        self.word = ctypes.c_uint32(7)
        self.stamp = ctypes.c_uint32.from_address(ctypes.addressof(self.word))
        self.seen = 7
        self.until = wall() + 3600
        self.until_monotonic = monotonic() + 3600
        self.token = ANSWER["access_token"]

    def access_token(self) -> str:
        if self.stamp.value == self.seen and wall() < self.until and monotonic() < self.until_monotonic:
            return self.token
        raise AssertionError


def borrowed_string() -> Callable[[], bytes]:
    version = ctypes.CDLL(os.environ["BENCH_LIBRARY"]).evergrant_version
    version.argtypes, version.restype = [], ctypes.c_char_p
    return version


def owned_string() -> Callable[[], bytes]:
    """A string that has to be freed; ctypes takes three calls for that."""
    library = ctypes.CDLL(os.environ["BENCH_LIBRARY"])
    member, free = library.evergrant_json_member, library.evergrant_string_free
    member.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p]
    free.argtypes, free.restype = [ctypes.c_void_p], None
    out = ctypes.c_void_p()
    reference = ctypes.byref(out)

    def call() -> bytes:
        member(b'{"a":"b"}', b"a", reference, None)
        try:
            return ctypes.string_at(out.value or 0)
        finally:
            free(out)

    return call


def measure(statement: str, **names: Any) -> Callable[[], float]:
    """So many calls that it takes some milliseconds, and no lambda around them."""
    timer = timeit.Timer(statement, timer=time.thread_time, globals=names)
    number = max(timer.autorange()[0] // 20, 1)
    return lambda: timer.timeit(number) / number * 1e9


def ameasure(statement: str, **names: Any) -> Callable[[], float]:
    body = f"async def run(number, clock):\n b = clock()\n for _ in number: await {statement}\n return clock() - b"
    exec(body, names)
    number = 50_000
    return lambda: asyncio.run(names["run"](range(number), time.thread_time_ns)) / number


def table(what: str, target: str, ours: Callable[[], float], peers: dict[str, Callable[[], float]]) -> None:
    figures, *others = in_turn(ours, *peers.values())
    for number, (peer, theirs) in enumerate(zip(peers, others, strict=True)):
        name = f"{what}; peer: {peer}" if number == 0 else f"  peer: {peer}"
        row(name, "ns", "" if number else target, figures, theirs)


def main() -> None:
    session = ours()
    assert session.access_token() == ANSWER["access_token"]
    credentials = google_auth()
    assert credentials.valid
    cache = msal.SerializableTokenCache()
    cache.deserialize(Path(sys.argv[1], "msal.json").read_text())
    app = application(cache)
    authlib = {"access_token": ANSWER["access_token"], "refresh_token": "r", "expires_at": EXPIRES_AT}
    oauth = OAuth2Session("c", "s", token=authlib, token_endpoint=ENDPOINT)
    aoauth = AsyncOAuth2Client("c", "s", token=authlib, token_endpoint=ENDPOINT)
    roc = requests_oauth2client.OAuth2AccessTokenAuth(
        requests_oauth2client.OAuth2Client(ENDPOINT, client_id="c", client_secret="s"),
        requests_oauth2client.BearerToken(ANSWER["access_token"], expires_in=86400, refresh_token="r"),
    )
    request = SimpleNamespace(headers={})

    table(
        "Python: access_token()",
        "<= 140 ns",
        measure("session.access_token()", session=session),
        {
            "google-auth, if valid: token": measure("credentials.valid and credentials.token", credentials=credentials),
            "google-auth, before_request()": measure(
                "credentials.before_request(request, 'GET', url, {})",
                credentials=credentials,
                request=google.auth.transport.requests.Request(),
                url="https://api.example.com/",
            ),
            "msal, acquire_token_silent()": measure(
                "app.acquire_token_silent(scopes, account)", app=app, scopes=SCOPES, account=app.get_accounts()[0]
            ),
            "authlib, ensure_active_token()": measure(
                "oauth.ensure_active_token(oauth.token) and oauth.token['access_token']", oauth=oauth
            ),
            "requests-oauth2client, auth(request)": measure("auth(request)", auth=roc, request=request),
            "a word and two clocks, by hand": measure("by_hand.access_token()", by_hand=ByHand()),
            "ctypes, a call that lends a string": measure("call()", call=borrowed_string()),
            "ctypes, a call that gives a string": measure("call()", call=owned_string()),
        },
    )

    async def nothing() -> str:
        return "token"

    table(
        "Python: await aaccess_token()",
        "",
        ameasure("session.aaccess_token()", session=session),
        {
            "authlib, await ensure_active_token()": ameasure("oauth.ensure_active_token(oauth.token)", oauth=aoauth),
            "a coroutine that returns a string": ameasure("nothing()", nothing=nothing),
        },
    )


main()
