"""The test server of tests/support, as a process, and its control API."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

_BUILT = Path(__file__).resolve().parents[3] / "target" / "release" / "evergrant-test-server"
PROGRAM = os.environ.get("EVERGRANT_TEST_SERVER_PROGRAM", str(_BUILT))
LIMIT_S = 60
"""No test waits longer for anything."""


class Server:
    """A Salesforce site with strict rotation, or as the options of tests/support/README.md have it."""

    def __init__(self, **options: Any) -> None:
        settings = json.dumps({"rotation": "strict", **options})
        command = [PROGRAM, "--options", settings, "--exit-with-stdin"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout
        started = json.loads(self._process.stdout.readline())
        self.url: str = started["url"]
        self.token_endpoint: str = started["token_endpoint"]
        self.control_url: str = started["control_url"]

    def stop(self) -> None:
        self._process.communicate()

    def control(self, name: str, body: Any = None) -> Any:
        """What the control API answers to a GET, or with a body to a POST."""
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.control_url}/{name}", data, LIMIT_S) as answer:
            return json.loads(answer.read() or b"null")

    def sign_in(self, **request: str) -> dict[str, Any]:
        """A genuine first answer of the token endpoint."""
        answer: dict[str, Any] = self.control("sign_in", request)
        return answer

    def set(self, **options: Any) -> None:
        self.control("settings", options)

    def fault(self, fault: str, **members: Any) -> None:
        """The next request of the token endpoint, or ``endpoint``, meets it."""
        self.control("faults", {"fault": fault, **members})

    def expire(self) -> None:
        """All access tokens end, unexpectedly; the refresh tokens stay good."""
        self.control("expire", {})

    def log(self, endpoint: str = "token") -> list[dict[str, Any]]:
        """The requests that an endpoint got."""
        entries: list[dict[str, Any]] = self.control(f"log?endpoint={endpoint}")
        return entries

    def renewals(self) -> int:
        """How many requests the token endpoint got."""
        return len(self.log())

    def wait_for_renewals(self, count: int) -> None:
        """Until so many requests have come to the token endpoint, answered or not."""
        wait_for(lambda: self.renewals() >= count)

    def rotations(self) -> int:
        """How often a refresh token was exchanged. None may have been used twice."""
        stats = self.stats()
        assert stats["reuses"] == 0
        rotations: int = stats["rotations"]
        return rotations

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = self.control("stats")
        return stats

    def assert_no_token_was_used_twice(self) -> None:
        outcomes = [entry["outcome"] for entry in self.log()]
        assert not [outcome for outcome in outcomes if outcome not in ("ok", "not_processed")], outcomes


def wait_for(condition: Any) -> None:
    """Until ``condition()`` is true."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
