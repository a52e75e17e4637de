"""Clients: arguments, sessions in the store, statistics, events, closing."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import evergrant
from server import LIMIT_S, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from server import Server

    OpenClient = Callable[..., evergrant.Client]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"site_url": 7}, "site_url"),
        ({"site_url": ""}, "site_url"),
        ({"site_url": "ftp://example.com"}, "site_url"),
        ({"client_id": None}, "client_id"),
        ({"client_auth": "basic"}, "client_auth"),
        ({"session_lifetime_s": 0}, "session_lifetime_s"),
        ({"session_lifetime_s": "6600"}, "session_lifetime_s"),
        ({"renews": 1}, "renews"),
        ({"origins": "https://example.com"}, "origins"),
        ({"refresh_parameters": {"a": 1}}, "refresh_parameters"),
        ({"client_secret": "se\0cret"}, "client_secret"),
        ({"issuer": "https://example.com?a=b"}, "issuer"),
        ({"private_key_file": "/nowhere"}, "private_key_file"),
        ({"assertion_algorithm": "HS256"}, "assertion_algorithm"),
    ],
)
def test_a_wrong_argument_is_named_and_never_shown(site: dict[str, Any], wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(evergrant.InvalidArgument, match=named) as caught:
        evergrant.Client(**{**site, **wrong})
    assert caught.value.status == "INVALID_ARGUMENT"
    assert isinstance(caught.value, ValueError)
    assert "se\0cret" not in str(caught.value)


def test_what_no_json_can_hold_is_a_type_error(site: dict[str, Any]) -> None:
    open_client: Any = evergrant.Client
    with pytest.raises(TypeError):
        open_client(**{**site, "client_secret": b"secret"})
    with pytest.raises(TypeError, match="client_secrte"):
        open_client(**{**site, "client_secrte": "secret"})
    with pytest.raises(TypeError):
        open_client(site["site_url"])


def test_a_store_that_cannot_be_used_is_a_store_error(site: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(evergrant.StoreError, match="nowhere"):
        evergrant.Client(**{**site, **dict[str, Any](store=f"sqlite:{tmp_path}/nowhere/sessions.db")})


def test_mappings_and_sequences_of_any_kind_are_taken(site: dict[str, Any]) -> None:
    from types import MappingProxyType

    parameters = MappingProxyType({"audience": "x"})
    with evergrant.Client(**site, refresh_parameters=parameters, origins=("https://example.com",)) as client:
        assert client.session("alice").allows("https://example.com/x")


def test_a_configuration_file(site: dict[str, Any], tmp_path: Path) -> None:
    import json

    file = tmp_path / "client.json"
    file.write_text(json.dumps(site))
    with evergrant.Client(config_file=str(file)) as client:
        assert list(client.sessions()) == []


def test_sessions_are_listed_page_by_page(client: evergrant.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evergrant._client._PAGE", 2)
    names = ["a", "b", "c", "d", "ä"]
    for number, name in enumerate(names):
        client.session(name).save({"refresh_token": f"token-of-{number}"})
    assert [row["session"] for row in client.sessions()] == names
    assert [row["session"] for row in client.sessions(after="b")] == names[2:]
    assert {row["state"] for row in client.sessions()} == {"active"}
    rows = client.sessions()
    assert [next(rows)["session"], next(rows)["session"]] == names[:2]
    client.session("c").forget()
    assert next(rows)["session"] == "d"  # the second page was read only now
    with pytest.raises(evergrant.InvalidArgument, match="after"):
        list(client.sessions(after=7))  # type: ignore[arg-type]


def test_statistics_count(client: evergrant.Client, alice: evergrant.Session) -> None:
    alice.renew()
    stats = client.stats()
    assert stats["exchanges"]["done"] == 1
    assert stats["cached_sessions"] == 1


def test_events_come_as_they_happen_and_end_with_the_client(open_client: OpenClient, server: Server) -> None:
    client = open_client()
    alice = client.session("alice")
    alice.save(server.sign_in())
    assert [event["kind"] for event in client.events(max_wait_ms=0)] == ["saved"]
    seen: list[dict[str, Any]] = []

    def read() -> None:
        for event in client.events(after=1):
            seen.append(event)  # noqa: PERF402 (one by one)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    alice.renew()
    wait_for(lambda: seen)
    assert (seen[0]["kind"], seen[0]["session"], seen[0]["n"]) == ("renewed", "alice", 2)
    client.close()
    reader.join(LIMIT_S)
    assert not reader.is_alive()
    for wrong in (-1, "x"):
        with pytest.raises(evergrant.InvalidArgument):
            next(open_client().events(after=wrong))  # type: ignore[arg-type]


def test_a_closed_client_says_so_and_gives_no_token_that_was_kept(client: evergrant.Client, server: Server) -> None:
    alice, bob = client.session("alice"), client.session("bob")
    alice.save(server.sign_in())
    assert alice.access_token()
    assert client.close() is True
    for call in (alice.access_token, alice.token, alice.renew, alice.describe, alice.sign_out, alice.forget):
        with pytest.raises(evergrant.Closed, match="closed"):
            call()
    for function in (lambda: list(client.sessions()), lambda: bob.save({"refresh_token": "x"})):
        with pytest.raises(evergrant.Closed):
            function()
    assert client.stats()["cached_sessions"] == 0
    assert [event["kind"] for event in client.events()] == ["saved"]
    with pytest.raises(evergrant.Closed):
        client.session("carol")
    assert client.close() is True


def test_closing_waits_for_a_renewal_under_way_as_long_as_it_is_told(open_client: OpenClient, server: Server) -> None:
    client = open_client(max_wait_ms=0)
    alice = client.session("alice")
    alice.save(server.sign_in())
    server.fault("delay", after_ms=1000)
    with pytest.raises(evergrant.TimedOut):
        alice.renew()
    server.wait_for_renewals(1)
    assert client.close(max_wait_ms=0) is False
    assert client.close(max_wait_ms=LIMIT_S * 1000) is True
    assert open_client().session("alice").describe()["generation"] == 2


def test_the_default_of_closing_is_exit_wait_ms(open_client: OpenClient, server: Server) -> None:
    client = open_client(max_wait_ms=0, exit_wait_ms=0)
    alice = client.session("alice")
    alice.save(server.sign_in())
    server.fault("delay", after_ms=1000)
    with pytest.raises(evergrant.TimedOut):
        alice.renew()
    server.wait_for_renewals(1)
    assert client.close() is False


def test_closing_ends_the_waits_of_other_threads(open_client: OpenClient, server: Server) -> None:
    client = open_client(max_wait_ms=LIMIT_S * 1000)
    alice = client.session("alice")
    alice.save(server.sign_in())
    server.fault("delay", after_ms=500)
    raised: list[BaseException] = []

    def renew() -> None:
        try:
            alice.renew()
        except evergrant.EvergrantError as error:
            raised.append(error)

    waiting = threading.Thread(target=renew, daemon=True)
    waiting.start()
    server.wait_for_renewals(1)
    client.close()
    waiting.join(LIMIT_S)
    assert [type(error) for error in raised] == [evergrant.Closed]


def test_a_client_that_nobody_holds_is_freed(site: dict[str, Any]) -> None:
    store = site["store"].removeprefix("sqlite:")

    def is_open() -> bool:
        return any(store in os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd"))

    client = evergrant.Client(**site)
    client.session("alice").save({"refresh_token": "x"})
    assert is_open()
    del client
    gc.collect()
    wait_for(lambda: not is_open())


def test_clients_and_sessions_are_not_copied_and_not_pickled(client: evergrant.Client) -> None:
    for one in (client, client.session("alice")):
        for way in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="open"):
                way(one)


def test_no_repr_holds_a_secret(site: dict[str, Any], client: evergrant.Client) -> None:
    assert site["client_secret"] not in repr(client)
    assert repr(client.session("alice")) == "<evergrant.Session 'alice'>"


def test_the_server_tells_of_an_access_token(
    client: evergrant.Client, alice: evergrant.Session, server: Server
) -> None:
    assert alice.introspect()["active"] is True
    server.expire()
    assert alice.introspect() == {"active": False}
    with pytest.raises(evergrant.SignInRequired):
        client.session("nobody").introspect()


def test_threads_share_a_client(client: evergrant.Client, alice: evergrant.Session, server: Server) -> None:
    server.fault("delay", before_ms=200)
    first = alice.access_token()
    server.expire()
    tokens: list[str] = []
    threads = [
        threading.Thread(target=lambda: tokens.append(alice.renew(rejected=first).access_token)) for _ in range(64)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert len(tokens) == 64
    assert set(tokens) == {alice.access_token()}
    assert server.rotations() == 1


def test_a_wait_holds_no_lock_of_the_interpreter(client: evergrant.Client, server: Server) -> None:
    alice = client.session("alice")
    alice.save(server.sign_in())
    server.fault("delay", before_ms=500)
    waiting = threading.Thread(target=alice.renew, daemon=True)
    waiting.start()
    server.wait_for_renewals(1)
    turns = 0
    while waiting.is_alive():
        turns += 1
        time.sleep(0.001)
    assert turns > 10
