"""Exceptions and tokens."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import evergrant
from evergrant._errors import error_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from server import Server

ROOT = Path(__file__).resolve().parents[3]
TABLE = json.loads((ROOT / "include" / "evergrant.json").read_text())


def test_every_status_has_its_class() -> None:
    never_raised = {"OK", "STALE"}
    statuses = {status["name"] for status in TABLE["statuses"]} - never_raised
    classes = {error_of({"status": status, "message": "x"}).__class__: status for status in statuses}
    assert len(classes) == len(statuses)
    for cls, status in classes.items():
        assert cls.status == status
        assert cls.__name__ in evergrant.__all__


def test_an_unknown_status_is_an_internal_error() -> None:
    error = error_of({"status": "FROM_A_LATER_VERSION", "message": "x"})
    assert type(error) is evergrant.InternalError
    assert error.status == "FROM_A_LATER_VERSION"


def test_an_error_tells_what_the_server_said(alice: evergrant.Session, server: Server) -> None:
    server.fault("error", error="invalid_client", description="unknown client", status=401)
    with pytest.raises(evergrant.Refused) as caught:
        alice.renew()
    error = caught.value
    assert (error.status, error.reason) == ("REFUSED", "client_refused")
    assert (error.error, error.error_description, error.http_status) == ("invalid_client", "unknown client", 401)
    assert (error.outcome, error.session, error.error_uri) == ("refused", "alice", None)


def test_when_to_try_again_is_told_in_seconds(alice: evergrant.Session, server: Server) -> None:
    server.fault("status", code=503, retry_after="2")
    with pytest.raises(evergrant.Unavailable) as caught:
        alice.renew()
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 60


def test_errors_can_be_pickled(alice: evergrant.Session, server: Server) -> None:
    server.fault("error", error="invalid_client", status=401)
    with pytest.raises(evergrant.Refused) as caught:
        alice.renew()
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is evergrant.Refused
    assert (str(copy), vars(copy)) == (str(caught.value), vars(caught.value))


def test_one_class_catches_all() -> None:
    for name in evergrant.__all__:
        cls: Any = getattr(evergrant, name)
        if isinstance(cls, type) and issubclass(cls, Exception):
            assert issubclass(cls, evergrant.EvergrantError)


def test_a_token_is_a_mapping_that_does_not_change() -> None:
    token = evergrant.Token({"access_token": "secret", "token_type": "Bearer", "expires_in": 7, "x": [1]})
    assert (token.access_token, token.token_type, token.expires_in) == ("secret", "Bearer", 7)
    assert (token["x"], token.get("y"), len(token), "x" in token) == ([1], None, 4, True)
    assert list(token) == ["access_token", "token_type", "expires_in", "x"]
    assert dict(token) == token == pickle.loads(pickle.dumps(token))
    absent = (token.scope, token.instance_url, token.id, token.expires_at_s, token.expiry, token.generation)
    assert absent == (None,) * 6
    assert (token.session, token.uncommitted) == (None, False)
    with pytest.raises(KeyError):
        token["y"]
    with pytest.raises(AttributeError):
        token.access_token = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        token.other = "other"
    with pytest.raises(AttributeError):
        del token._members
    with pytest.raises(TypeError):
        token["x"] = 1  # type: ignore[index]


def test_a_token_hides_its_secrets(alice: evergrant.Session) -> None:
    token = alice.token()
    for shown in (repr(token), str(token), f"{token}", repr([token])):
        assert "session='alice', generation=1" in shown
        for name in ("access_token", "signature"):
            assert token[name] not in shown


def test_the_flow_alone(server: Server, site: dict[str, Any]) -> None:
    answer = server.sign_in()
    request = {name: value for name, value in site.items() if name not in ("store", "session_lifetime_s")}
    token = evergrant.refresh(**request, refresh_token=answer["refresh_token"])
    assert token["refresh_token"] != answer["refresh_token"]
    assert token.access_token != answer["access_token"]
    assert token["refresh_token"] not in repr(token)
    with pytest.raises(evergrant.SignInRequired):
        evergrant.refresh(**request, refresh_token=answer["refresh_token"])
    refresh: Any = evergrant.refresh
    with pytest.raises(evergrant.InvalidArgument, match="refresh_token"):
        refresh(**request)
    with pytest.raises(evergrant.InvalidArgument, match="no_such_key"):
        refresh(**request, refresh_token="x", no_such_key="x")
    with pytest.raises(TypeError):
        refresh(**request, refresh_token=b"x")


@pytest.mark.parametrize(
    ("arguments", "rejected"),
    [
        ((401,), True),
        ((401, ""), True),
        ((401, b'[{"errorCode": "INVALID_SESSION_ID"}]'), True),
        ((403, "Bad_OAuth_Token"), True),
        ((403, b"Bad_OAuth_Token\xff\x00"), True),
        ((403, "forbidden \ud800"), False),
        ((200, None), False),
        ((500, "x" * (2 << 20)), False),
    ],
)
def test_rejections(arguments: tuple[Any, ...], rejected: bool) -> None:
    assert evergrant.is_rejection(*arguments) is rejected


def test_a_rejection_has_a_number_and_a_body() -> None:
    wrong: list[Callable[[], object]] = [
        lambda: evergrant.is_rejection("401"),  # type: ignore[arg-type]
        lambda: evergrant.is_rejection(None),  # type: ignore[arg-type]
        lambda: evergrant.is_rejection(401, 7),  # type: ignore[arg-type]
    ]
    for call in wrong:
        with pytest.raises(TypeError):
            call()
