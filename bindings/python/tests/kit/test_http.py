"""The adapters, with the real packages: requests, httpx and httpx2, blocking and asynchronous."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import evergrant
from http_clients import Http
from origin import Origin
from server import Server

PATH = "/services/data/v59.0/limits"
SignIn = Callable[..., evergrant.Session]
HttpFor = Callable[[evergrant.Session], Http]


def test_sends_the_token(http: Http, server: Server, alice: evergrant.Session) -> None:
    assert http.get(server.url + PATH).status_code == 200
    assert [entry["token"] for entry in server.log("resource")] == [alice.access_token()]


def test_heals_a_rejection_on_the_same_connection(http: Http, server: Server, alice: evergrant.Session) -> None:
    rejected = alice.access_token()
    before = server.renewals()
    server.expire()
    assert http.get(server.url + PATH).json()["path"] == PATH
    assert server.renewals() == before + 1
    first, second = server.log("resource")
    assert (first["token"], first["status"]) == (rejected, 401)
    assert (second["token"], second["status"]) == (alice.access_token(), 200)
    assert first["connection"] == second["connection"]


def test_heals_once(http_for: HttpFor, server: Server, sign_in: SignIn, origin: Origin) -> None:
    alice = sign_in(origins=[origin.url])
    http = http_for(alice)
    origin.then = (401, {}, b"no")
    assert http.get(origin.url).status_code == 401
    assert server.renewals() == 1
    assert len(origin.received) == 2
    assert origin.received[0].authorization != origin.received[1].authorization


@pytest.mark.parametrize(
    ("status", "body", "rejections"),
    [
        (403, b"Bad_OAuth_Token", 1),
        (401, b"", 1),
        (401, b"\xff\xfe\x00", 1),
        (401, b'{"error": "insufficient_scope"}', 0),
        (403, b"Forbidden", 0),
        (404, b"", 0),
        (503, b"", 0),
    ],
)
def test_the_library_says_what_a_rejection_is(
    http_for: HttpFor, server: Server, sign_in: SignIn, origin: Origin, status: int, body: bytes, rejections: int
) -> None:
    http = http_for(sign_in(origins=[origin.url]))
    origin.answers = [(status, {}, body)]
    answer = http.get(origin.url)
    assert (answer.status_code, answer.content) == ((200, b"ok") if rejections else (status, body))
    assert server.renewals() == rejections


@pytest.mark.parametrize("options", [{"content": b"bytes"}, {"json": {"a": [1]}}, {"data": {"form": "x y"}}, {}])
def test_replays_the_body(
    http_for: HttpFor, server: Server, sign_in: SignIn, origin: Origin, options: dict[str, Any]
) -> None:
    http = http_for(sign_in(origins=[origin.url]))
    origin.reject()
    assert http.request("POST", origin.url, **options).status_code == 200
    first, second = origin.received
    assert (first.method, first.body) == (second.method, second.body)
    assert bool(first.body) == bool(options)
    assert first.connection == second.connection
    assert server.renewals() == 1


def test_replays_a_file_that_can_be_rewound(server: Server, sign_in: SignIn, origin: Origin, tmp_path: Path) -> None:
    http = Http("requests", sign_in(origins=[origin.url]))
    (tmp_path / "file").write_bytes(b"skipped, sent")
    with (tmp_path / "file").open("rb") as file:
        file.read(9)
        origin.reject()
        assert http.request("PUT", origin.url, content=file).status_code == 200
    assert [received.body for received in origin.received] == [b"sent", b"sent"]
    assert server.renewals() == 1
    http.close()


def test_a_body_that_cannot_be_replayed_gets_its_answer_and_the_next_a_new_token(
    http_for: HttpFor, server: Server, sign_in: SignIn, origin: Origin
) -> None:
    http = http_for(sign_in(origins=[origin.url]))

    def pieces() -> Iterator[bytes]:
        yield from (b"one", b"two")

    async def apieces() -> AsyncIterator[bytes]:
        for piece in pieces():
            yield piece

    origin.reject()
    answer = http.request("POST", origin.url, content=apieces() if http.is_async else pieces())
    assert (answer.status_code, answer.json()) == (401, {"error": "invalid_token"})
    assert server.renewals() == 1
    assert http.request("POST", origin.url, content=apieces() if http.is_async else pieces()).status_code == 200
    assert [received.body for received in origin.received] == [b"onetwo", b"onetwo"]
    assert server.renewals() == 1


def test_heals_a_streamed_answer(http: Http, server: Server, alice: evergrant.Session) -> None:
    alice.access_token()
    server.expire()
    status, body = http.stream(server.url + PATH)
    assert (status, PATH.encode() in body) == (200, True)
    first, second = server.log("resource")
    assert first["connection"] == second["connection"]


def test_a_redirect_within_the_origin_keeps_the_token(
    http_for: HttpFor, server: Server, sign_in: SignIn, origin: Origin
) -> None:
    alice = sign_in(origins=[origin.url])
    http = http_for(alice)
    origin.redirect("/elsewhere")
    assert http.get(origin.url).status_code == 200
    assert [received.authorization for received in origin.received] == [f"Bearer {alice.access_token()}"] * 2


def test_a_redirect_to_another_origin_loses_the_token_and_renews_nothing(
    http_for: HttpFor, server: Server, sign_in: SignIn, start_origin: Callable[[], Origin]
) -> None:
    here, there = start_origin(), start_origin()
    http = http_for(sign_in(origins=[here.url]))
    there.then = (401, {}, b"who are you?")
    here.redirect(f"{there.url}/taken")
    answer = http.get(here.url)
    assert (answer.status_code, answer.content) == (401, b"who are you?")
    assert [(received.path, received.authorization) for received in there.received] == [("/taken", None)]
    assert server.renewals() == 0


def test_a_redirect_to_another_origin_of_the_session_gets_the_token_when_it_asks_for_it(
    http_for: HttpFor, server: Server, sign_in: SignIn, start_origin: Callable[[], Origin]
) -> None:
    here, there = start_origin(), start_origin()
    alice = sign_in(origins=[here.url, there.url])
    http = http_for(alice)
    there.reject()
    here.redirect(f"{there.url}/taken")
    answer = http.request("POST", here.url, content=b"body")
    assert answer.status_code == 200
    assert [(received.authorization, received.body) for received in there.received] == [
        (None, b"body"),
        (f"Bearer {alice.access_token()}", b"body"),
    ]
    assert (len(here.received), server.renewals()) == (1, 0)


def test_a_rejection_behind_a_redirect_repeats_what_was_rejected_only(
    http_for: HttpFor, server: Server, sign_in: SignIn, origin: Origin
) -> None:
    http = http_for(sign_in(origins=[origin.url]))
    origin.redirect("/result", status=303)
    origin.reject()
    assert http.request("POST", f"{origin.url}/order", content=b"one piece").status_code == 200
    assert [(received.method, received.path) for received in origin.received] == [
        ("POST", "/order"),
        ("GET", "/result"),
        ("GET", "/result"),
    ]
    assert server.renewals() == 1


def test_a_healed_request_is_redirected_with_the_new_token(
    http_for: HttpFor, server: Server, sign_in: SignIn, origin: Origin
) -> None:
    alice = sign_in(origins=[origin.url])
    http = http_for(alice)
    origin.reject()
    origin.redirect("/moved")
    assert http.get(origin.url).status_code == 200
    assert origin.received[2].authorization == f"Bearer {alice.access_token()}"
    assert server.renewals() == 1


def test_a_foreign_origin_sees_no_token(
    http_for: HttpFor, server: Server, alice: evergrant.Session, origin: Origin
) -> None:
    http = http_for(alice)
    origin.then = (401, {}, b"no")
    assert http.get(origin.url).status_code == 401
    assert [received.authorization for received in origin.received] == [None]
    assert server.renewals() == 0


def test_the_token_follows_the_instance(
    http_for: HttpFor, server: Server, sign_in: SignIn, start_origin: Callable[[], Origin]
) -> None:
    old, new = start_origin(), start_origin()
    server.set(instance_url=old.url)
    alice = sign_in()
    http = http_for(alice)
    assert http.get(alice.token()["instance_url"]).status_code == 200
    server.set(instance_url=new.url)
    old.then = (401, {}, b"moved")
    # The token that this brings is for the new instance: the old one does not get it.
    assert http.get(old.url).status_code == 401
    assert server.renewals() == 1
    assert alice.token()["instance_url"] == new.url
    assert http.get(alice.token()["instance_url"]).status_code == 200
    assert http.get(old.url).status_code == 401
    assert server.renewals() == 1
    fresh = f"Bearer {alice.access_token()}"
    assert [received.authorization for received in new.received] == [fresh]
    assert fresh not in [received.authorization for received in old.received]


def test_many_rejections_at_one_time_are_one_renewal(http: Http, server: Server, alice: evergrant.Session) -> None:
    alice.access_token()
    server.set(latency_ms=100)
    server.expire()
    before, many = server.renewals(), 32
    if http.is_async:

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*(http.arequest("GET", server.url + PATH) for _ in range(many)))

        answers = http.runner.run(all_of_them())
    else:
        with ThreadPoolExecutor(many) as pool:
            answers = list(pool.map(http.get, [server.url + PATH] * many))
    assert [answer.status_code for answer in answers] == [200] * many
    assert server.renewals() == before + 1


def test_what_the_session_cannot_do_is_said(http: Http, server: Server, alice: evergrant.Session) -> None:
    alice.access_token()
    server.control("revoke", {"family": 0})
    with pytest.raises(evergrant.SignInRequired):
        http.get(server.url + PATH)


@pytest.mark.parametrize("package", ["httpx-async", "httpx2-async"])
def test_the_loop_goes_on_during_a_renewal(package: str, server: Server, alice: evergrant.Session) -> None:
    alice.access_token()
    server.set(latency_ms=1000)
    server.expire()
    http = Http(package, alice)

    async def turns() -> int:
        request, turns = asyncio.ensure_future(http.arequest("GET", server.url + PATH)), 0
        while not request.done():
            await asyncio.sleep(0.005)
            turns += 1
        assert request.result().status_code == 200
        return turns

    # Were the renewal waited for in the loop, there would be a few before and after it.
    assert http.runner.run(turns()) > 20
    http.close()


def test_one_auth_serves_many_http_clients(server: Server, alice: evergrant.Session) -> None:
    import requests

    auth = alice.requests_auth()
    alice.access_token()
    server.expire()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: requests.get(server.url + PATH, auth=auth, timeout=30), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert server.renewals() == 1


def test_a_prepared_request_is_healed_each_time(server: Server, alice: evergrant.Session) -> None:
    import requests

    with requests.Session() as http:
        prepared = http.prepare_request(requests.Request("GET", server.url + PATH, auth=alice.requests_auth()))
        for rotations in (1, 2):
            server.expire()
            assert http.send(prepared, timeout=30).status_code == 200
            assert server.renewals() == rotations


def test_no_auth_shows_a_token(alice: evergrant.Session) -> None:
    token = alice.access_token()
    for auth in (alice.requests_auth(), alice.httpx_auth(), alice.httpx2_auth()):
        assert token not in repr(auth) + repr(vars(auth))


def test_the_packages_are_imported_only_when_they_are_used() -> None:
    program = "import evergrant, sys; sys.exit(bool({'requests', 'httpx', 'httpx2', 'asyncio'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_file_object_of_httpx_is_not_replayed(server: Server, sign_in: SignIn, origin: Origin) -> None:
    http = Http("httpx", sign_in(origins=[origin.url]))
    origin.reject()
    assert http.request("POST", origin.url, content=io.BytesIO(b"once")).status_code == 401
    assert [received.body for received in origin.received] == [b"once"]
    assert server.renewals() == 1
    http.close()
