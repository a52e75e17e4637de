"""The recipe for serverless platforms: processes that are frozen after each answer, and in the middle of anything."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import evergrant
from server import Server, wait_for
from stores import Postgres

HERE = Path(__file__).parent
RECIPES = HERE.parents[1] / "recipes"
PAGE = HERE.parents[3] / "docs" / "serverless.md"
PATH = "/services/data/v59.0/limits"
LIFE_S = 4
# An open attempt is its owner's for both time-outs and these.
RESERVE_S = 30


class Instance:
    """Answers one request at a time. Nothing in it runs while it is frozen."""

    def __init__(self, environment: dict[str, str]) -> None:
        program = [sys.executable, str(HERE / "apps" / "instance.py")]
        self._process = subprocess.Popen(
            program, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)
        wait_for(lambda: Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def send(self) -> None:
        assert self._process.stdin
        print(json.dumps({"path": PATH}), file=self._process.stdin, flush=True)

    def answer(self) -> Any:
        assert self._process.stdout
        answer = json.loads(self._process.stdout.readline())
        return answer.get("statusCode") or answer["reason"]

    def ask(self) -> Any:
        self.send()
        return self.answer()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def configuration(on_postgres: Postgres, site: dict[str, Any]) -> dict[str, Any]:
    """That of the page, for the test's servers."""
    (block,) = re.findall(r"^```json\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    keys = {key: value for key, value in json.loads(block).items() if not key.endswith("_env")}
    return {**keys, **site, "session_lifetime_s": LIFE_S, "renew_before_s": LIFE_S // 2}


@pytest.fixture
def start(
    configuration: dict[str, Any],
    sign_in: Callable[..., evergrant.Session],
    tmp_path: Path,
) -> Iterator[Callable[..., Instance]]:
    """Starts instances. Their session is signed in."""
    sign_in(session_lifetime_s=LIFE_S).client.close()
    path = [str(RECIPES), *sys.path]
    with ExitStack() as stack:

        def start(**changed: Any) -> Instance:
            file = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
            file.write_text(json.dumps({**configuration, **changed}))
            environment = {
                **os.environ,
                "EVERGRANT_CONFIG": str(file),
                "PYTHONPATH": os.pathsep.join(filter(None, path)),
            }
            instance = Instance(environment)
            stack.callback(instance.end)
            return instance

        yield start


@pytest.fixture
def attempt(open_client: Callable[..., evergrant.Client]) -> Callable[[], Any]:
    """The renewal that the store knows to be under way, if any."""
    client = open_client(renews=False)
    return lambda: client.session("alice").describe()["attempt"]


def test_instances_that_are_frozen_after_each_answer_lose_nothing(
    start: Callable[..., Instance], server: Server, attempt: Callable[[], Any]
) -> None:
    server.set(latency_ms=100)
    instances = [start() for _ in range(3)]
    seed = random.randrange(1 << 32)
    print("seed", seed)
    choice = random.Random(seed)
    for instance in instances:
        instance.freeze()
    while server.renewals() < 5:
        instance = choice.choice(instances)
        instance.thaw()
        assert instance.ask() == 200
        instance.freeze()
        assert attempt() is None, "it was frozen in the middle of a renewal"
        time.sleep(choice.uniform(0, 0.2))
    renewals = server.log()
    assert {(renewal["outcome"], renewal["reply"]) for renewal in renewals} == {("ok", "written")}
    times = [renewal["at_ms"] for renewal in renewals]
    assert min(later - earlier for earlier, later in pairwise(times)) < 1000 * LIFE_S, "none was early"


@pytest.mark.parametrize(("early_renewal", "is_cut"), [("wait", False), ("background", True)])
def test_only_a_caller_that_waits_for_its_early_renewal_leaves_none_behind(
    start: Callable[..., Instance], server: Server, attempt: Callable[[], Any], early_renewal: str, is_cut: bool
) -> None:
    instance = start(early_renewal=early_renewal)
    server.fault("delay", after_ms=5000)
    while server.renewals() == 0:
        assert instance.ask() == 200
        time.sleep(0.1)
    instance.freeze()
    assert (attempt() is not None) == is_cut
    wait_for(lambda: server.log()[0]["reply"] == "written")
    # The answer came, and nobody takes it before the next request.
    time.sleep(1)
    assert (attempt() is not None) == is_cut
    instance.thaw()
    assert instance.ask() == 200
    wait_for(lambda: attempt() is None)


def test_instances_that_are_frozen_in_the_middle_of_anything_lose_nothing(
    start: Callable[..., Instance], server: Server
) -> None:
    server.set(latency_ms=300)
    instances = [start() for _ in range(3)]
    done = threading.Event()
    seed = random.randrange(1 << 32)
    print("seed", seed)

    def use(instance: Instance) -> set[Any]:
        answers: set[Any] = set()
        while not done.is_set():
            answers.add(instance.ask())
        return answers

    def disturb(instance: Instance, choice: random.Random) -> None:
        while not done.wait(choice.uniform(0, 0.5)):
            instance.freeze()
            time.sleep(choice.uniform(0, 1.5))
            instance.thaw()

    with ThreadPoolExecutor(2 * len(instances)) as pool:
        try:
            users = [pool.submit(use, instance) for instance in instances]
            for number, instance in enumerate(instances):
                pool.submit(disturb, instance, random.Random(seed + number))
            wait_for(lambda: server.renewals() >= 5)
        finally:
            done.set()
        assert [user.result() for user in users] == [{200}] * len(instances)
    assert {(renewal["outcome"], renewal["reply"]) for renewal in server.log()} == {("ok", "written")}


KEYS = {
    "connect_timeout_ms": 1000,
    "exchange_timeout_ms": 1000,
    "max_wait_ms": 60_000,
    "session_lifetime_s": 3600,
}


def begin_a_renewal_and_freeze(instance: Instance, server: Server) -> None:
    server.fault("delay", after_ms=500)
    server.expire()
    instance.send()
    server.wait_for_renewals(1)
    instance.freeze()


def test_an_instance_that_was_frozen_beyond_its_deadline_still_takes_the_answer(
    start: Callable[..., Instance], server: Server, attempt: Callable[[], Any]
) -> None:
    instance = start(**KEYS)
    begin_a_renewal_and_freeze(instance, server)
    wait_for(lambda: attempt()["until_s"] < time.time() - 1)
    instance.thaw()
    assert instance.answer() == 200
    assert attempt() is None
    assert instance.ask() == 200
    assert server.renewals() == 1


def test_only_an_instance_frozen_beyond_its_deadline_while_another_renews_loses_the_session(
    start: Callable[..., Instance], server: Server
) -> None:
    """The case "paused owner" of docs/guarantees.md."""
    frozen, other = start(**KEYS), start(**KEYS)
    begin_a_renewal_and_freeze(frozen, server)
    assert other.ask() == "rotation_lost"
    first, second = server.log()
    assert second["outcome"] == "reused_and_revoked"
    assert second["at_ms"] - first["at_ms"] > 1000 * RESERVE_S, "it was another's until then"
    server.control("reset", {})  # In no other test may a token be used twice.
