"""Logging, from the library's events."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

import evergrant
from program import run

if TYPE_CHECKING:
    from server import Server


def test_what_happens_is_logged_with_its_event(
    alice: evergrant.Session, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "evergrant")
    caplog.clear()
    alice.renew()
    server.fault("status", code=503, retry_after="60")
    with pytest.raises(evergrant.Unavailable):
        alice.renew()
    alice.sign_out()
    seen = [(record.name, record.levelname, vars(record)["event"]["kind"]) for record in caplog.records]
    assert seen[-3:] == [
        ("evergrant", "INFO", "renewed"),
        ("evergrant", "WARNING", "renewal_failed"),
        ("evergrant", "INFO", "signed_out"),
    ]
    assert "'alice' renewal_failed; outcome: unknown; reason: server_unavailable" in caplog.text


def test_an_end_is_an_error(alice: evergrant.Session, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.fault("error", error="invalid_grant")
    with pytest.raises(evergrant.SignInRequired):
        alice.renew()
    assert [(record.levelname, vars(record)["event"]["kind"]) for record in caplog.records] == [("ERROR", "ended")]


def test_async_calls_log_too(alice: evergrant.Session, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "evergrant")
    asyncio.run(alice.arenew())
    assert vars(caplog.records[-1])["event"]["kind"] == "renewed"


def test_no_secret_is_logged(start_server: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server = start_server(token_prefix="FINDME")
    with evergrant.Client(
        site_url=server.url, client_id="client", client_secret="secret", store="memory:", session_lifetime_s=60
    ) as client:
        alice = client.session("alice")
        alice.save(server.sign_in())
        assert "FINDME" in alice.renew().access_token
        server.fault("error", error="invalid_grant", description="no")
        with pytest.raises(evergrant.SignInRequired):
            alice.renew()
    text = caplog.text + str([vars(record) for record in caplog.records])
    assert "renewed" in text
    assert "FINDME" not in text


def test_a_level_that_nobody_wants_costs_nothing(
    alice: evergrant.Session, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evergrant import _log

    caplog.set_level(logging.CRITICAL, "evergrant")
    monkeypatch.setattr(_log, "library", None)  # nothing may be asked of it
    alice.renew()
    assert caplog.records == []


def test_a_handler_may_use_the_session(alice: evergrant.Session, server: Server) -> None:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((vars(record)["event"]["kind"], alice.describe()["generation"]))

    seen: list[tuple[str, int]] = []
    logger, handler = logging.getLogger("evergrant"), Handler()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        alice.renew()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert seen[-1] == ("renewed", 2)
    assert server.rotations() == 1


FAILS = """
client = evergrant.Client(**SITE)
try:
    client.session("alice").renew(max_wait_ms=20_000)
except evergrant.Unavailable:
    print("logging" in sys.modules)
client.close()
"""


@pytest.mark.parametrize("before", ["", "import logging\n"])
def test_a_program_that_has_not_set_logging_up_prints_nothing(
    site: dict[str, Any], alice: evergrant.Session, server: Server, before: str
) -> None:
    assert alice.token().generation == 1
    server.fault("status", code=503, retry_after="60")
    assert run(FAILS, site, before) == [str(bool(before))]  # and nothing to standard error
