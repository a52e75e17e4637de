"""Sessions: what every program does with them."""

from __future__ import annotations

import asyncio
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

import evergrant

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from server import Server

    OpenClient = Callable[..., evergrant.Client]

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def test_a_saved_session_gives_a_token_and_renews_it(alice: evergrant.Session, server: Server) -> None:
    token = alice.token()
    assert token["instance_url"] == token.instance_url == server.url
    assert (token.session, token.generation, token.uncommitted) == ("alice", 1, False)
    assert alice.access_token() == token.access_token
    assert server.renewals() == 0
    renewed = alice.renew(rejected=token.access_token)
    assert renewed.generation == 2
    assert alice.renew(rejected=token.access_token).access_token == renewed.access_token
    assert alice.access_token() == renewed.access_token != token.access_token
    assert server.rotations() == 1


def test_what_is_saved_may_be_any_mapping_and_saving_again_changes_nothing(
    client: evergrant.Client, server: Server
) -> None:
    bob, answer = client.session("bob"), server.sign_in()
    bob.save(MappingProxyType({"refresh_token": answer["refresh_token"]}))
    assert bob.token().generation == 2
    bob.save({"refresh_token": answer["refresh_token"]})
    assert bob.token().generation == 2
    for wrong in ("a refresh token", 7, None, ["refresh_token"]):
        with pytest.raises((TypeError, ValueError)):
            bob.save(wrong)  # type: ignore[arg-type]
    for empty in ({}, {"refresh_token": ""}, {"refresh_token": 7}):
        with pytest.raises(evergrant.InvalidArgument):
            bob.save(empty)
    with pytest.raises(TypeError):
        bob.save({"refresh_token": b"x"})


def test_a_session_that_was_never_saved_wants_a_sign_in(client: evergrant.Client) -> None:
    nobody = client.session("nobody")
    for call in (nobody.token, nobody.access_token, nobody.renew, nobody.describe):
        with pytest.raises(evergrant.SignInRequired) as caught:
            call()
        assert (caught.value.reason, caught.value.session) == ("no_session", "nobody")


@pytest.mark.parametrize("name", ["", "a\nb", "a" * 256, "ä" * 128, "a\0b", "\ud800"])
def test_a_name_that_is_none_is_refused_at_once(client: evergrant.Client, name: str) -> None:
    with pytest.raises(evergrant.InvalidArgument, match="session"):
        client.session(name)


@pytest.mark.parametrize("name", [None, 7, b"alice"])
def test_a_name_is_a_str(client: evergrant.Client, name: Any) -> None:
    with pytest.raises(TypeError, match="session must be a str"):
        client.session(name)


def test_names_are_unicode(client: evergrant.Client, server: Server) -> None:
    session = client.session("Zoë/日本 '\"\\")
    session.save(server.sign_in())
    assert session.token().session == session.name == session.describe()["session"]


def test_wrong_options_are_named(alice: evergrant.Session) -> None:
    wrong: Any
    for wrong in (-1, "1", 1.5, 10**12, True):
        call: Any
        for call in (alice.token, alice.access_token):
            with pytest.raises(evergrant.InvalidArgument, match="min_valid_s"):
                call(min_valid_s=wrong)
        for call in (alice.token, alice.renew):
            with pytest.raises(evergrant.InvalidArgument, match="max_wait_ms"):
                call(max_wait_ms=wrong)
    for wrong in (7, ["x"]):
        with pytest.raises(evergrant.InvalidArgument, match="rejected_access_token"):
            alice.renew(rejected=wrong)


def test_a_token_that_would_end_too_soon_is_renewed(alice: evergrant.Session, server: Server) -> None:
    assert alice.token(min_valid_s=3000).generation == 1
    first = alice.access_token(min_valid_s=3000)
    assert alice.token(min_valid_s=3599).generation == 1 or server.rotations() == 1
    time.sleep(1)
    assert alice.access_token(min_valid_s=3600, max_wait_ms=10_000) != first


def test_a_wait_ends_and_the_renewal_goes_on(alice: evergrant.Session, server: Server) -> None:
    server.fault("delay", before_ms=500)
    with pytest.raises(evergrant.TimedOut) as caught:
        alice.renew(max_wait_ms=50)
    assert isinstance(caught.value, TimeoutError)
    assert alice.renew(rejected=alice.access_token()).generation == 2
    assert server.rotations() == 1


def test_a_kept_token_ends_with_the_clock(alice: evergrant.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each clock by itself makes it ask again: one may be set, the other stops while the machine sleeps."""
    client_hits = alice.client.stats

    def asks_the_library() -> bool:
        before = client_hits()["hits"]
        alice.access_token()
        return bool(client_hits()["hits"] > before)

    alice.access_token()
    assert not asks_the_library()
    for clock in ("time", "monotonic"):
        real = getattr(time, clock)
        with monkeypatch.context() as patch:
            patch.setattr(f"evergrant._session.{clock}", lambda real=real: real() + 61)
            assert asks_the_library()
        alice.access_token()
        assert not asks_the_library()


def test_what_another_session_object_does_is_seen_at_once(alice: evergrant.Session, client: evergrant.Client) -> None:
    other = client.session("alice")
    first = alice.access_token()
    assert other.access_token() == first
    renewed = other.renew()
    assert alice.access_token() == renewed.access_token
    other.sign_out()
    for session in (alice, other):
        with pytest.raises(evergrant.SignInRequired) as caught:
            session.access_token()
        assert caught.value.reason == "signed_out"


def test_signing_out_revokes(alice: evergrant.Session, server: Server) -> None:
    alice.sign_out()
    assert len(server.log("revoke")) >= 1
    assert alice.describe()["state"] == "signed_out"


def test_forgetting_tells_nobody(alice: evergrant.Session, client: evergrant.Client, server: Server) -> None:
    alice.forget()
    assert server.log("revoke") == []
    assert list(client.sessions()) == []
    with pytest.raises(evergrant.SignInRequired):
        alice.token()


def test_a_session_moves_to_another_store(
    alice: evergrant.Session, open_client: OpenClient, server: Server, tmp_path: Path
) -> None:
    token = alice.token()
    there = f"sqlite:{tmp_path}/elsewhere.db"
    alice.move(there, encryption_key=KEY)
    with pytest.raises(evergrant.StoreError) as caught:
        alice.renew()
    assert caught.value.reason == "moved"
    other = open_client(store=there, encryption_key=KEY).session("alice")
    assert other.access_token() == token.access_token
    assert other.renew().generation == 2
    asyncio.run(other.amove(f"sqlite:{tmp_path}/sessions.db"))
    assert alice.renew().generation == 3
    server.assert_no_token_was_used_twice()


def test_a_description_has_no_secret(alice: evergrant.Session, server: Server) -> None:
    token = alice.renew()
    description = alice.describe()
    assert (description["state"], description["generation"]) == ("active", 2)
    assert token.access_token not in str(description)


def test_anyway_goes_once_past_an_end(alice: evergrant.Session, server: Server) -> None:
    server.control("users", {"user": "user@example.com", "active": False})
    with pytest.raises(evergrant.SignInRequired) as caught:
        alice.renew()
    assert caught.value.reason == "inactive_user"
    server.control("users", {"user": "user@example.com", "active": True})
    with pytest.raises(evergrant.SignInRequired):
        alice.renew()
    assert alice.renew(anyway=True).generation == 2


def test_a_token_may_go_to_its_site_only(alice: evergrant.Session, server: Server) -> None:
    assert alice.allows(f"{server.url}/services/data")
    assert not alice.allows("https://example.com/")
    for wrong in ("", "no url", "/path", "a\0b", "\ud800"):
        with pytest.raises(evergrant.InvalidArgument):
            alice.allows(wrong)
    with pytest.raises(TypeError, match="url must be a str"):
        alice.allows(b"https://example.com/")  # type: ignore[arg-type]


def test_without_a_site_it_may_go_where_its_object_went_first(start_server: Callable[..., Server]) -> None:
    server = start_server(mode="generic")
    with evergrant.Client(token_endpoint=server.token_endpoint, client_id="client", store="memory:") as client:
        one, other = client.session("alice"), client.session("alice")
        assert one.allows("https://one.example.com/a")
        assert one.allows("https://one.example.com/b")
        assert not one.allows("https://other.example.com/a")
        assert other.allows("https://other.example.com/a")
        assert not other.allows("https://one.example.com/a")


def test_a_session_keeps_its_client(site: dict[str, Any], server: Server) -> None:
    session = evergrant.Client(**site).session("alice")
    session.save(server.sign_in())
    assert session.token().generation == 1
    session.client.close()
