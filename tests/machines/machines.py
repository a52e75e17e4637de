"""Runs 4 machines with 4 processes each on one session of one shared store, and judges what they and the server saw.

Arguments: a directory with the C worker and clocks.so, the store, how many seconds. --trouble: see trouble.py. The
environment is that of tests/languages/soak.py, whose workers these are.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "languages"))

import trouble
from network import Machine, Network, serve
from soak import LIFE_MS, Worker, agent, control, judge, lives, now_ms
from stores import STORES

MINUTE_MS = 60_000
# How far ahead the machines' clocks are.
CLOCKS_MS = [0, 5 * MINUTE_MS, -5 * MINUTE_MS, 0]
LANGUAGES = Path(__file__).parent.parent / "languages"
KEY = "bWFjaGluZXMgbWFjaGluZXMgbWFjaGluZXMgbWFjaC4="


class Fleet:
    """The machines and the processes on them. `directory` has one for each machine."""

    def __init__(self, programs: Path, directory: Path, store: str) -> None:
        self.site = os.environ["EVERGRANT_TEST_SITE"]
        self.programs = programs
        self.store = store
        self.settings: dict[str, Any] = {}
        self.first = ""
        self.machines = [
            Machine(number, directory, self.site, programs / "clocks.so", ahead_ms)
            for number, ahead_ms in enumerate(CLOCKS_MS)
        ]
        self.workers: list[Worker] = []
        self.started = 0

    def config(self, name: str) -> dict[str, Any]:
        return {
            "token_endpoint": f"{self.site}/token",
            "client_id": "client",
            "client_secret": "secret",
            "store": self.store,
            "encryption_key": KEY,
            "user_agent": name,
        } | self.settings

    def begin(self, **settings: Any) -> None:
        """A session of its own, for processes that are all new."""
        control("/reset", {})
        control("/settings", {"access_token_life_ms": LIFE_MS, "log_limit": 10_000_000})
        self.settings = settings
        self.first = json.dumps({"refresh_token": control("/sign_in", {"client_id": "client"})["refresh_token"]})
        self.workers = []

    def start(self, machine: Machine) -> list[Worker]:
        """One process of each language, and one that works in a way of its own."""
        resource = f"{self.site}/resource"
        sync = {
            "c": [str(self.programs / "worker"), "1"],
            "python": [os.environ["PYTHON"], str(LANGUAGES / "worker.py"), "sync"],
            "node": ["node", os.environ["NODE_PROJECT"] + "/worker.mjs", "0"],
        }
        other = [("c", "4"), ("python", "asyncio"), ("node", "3"), ("python", "gevent")]
        language, way = other[self.machines.index(machine) % len(other)]
        kinds = [*sync.items(), (language, [*sync[language][:-1], way])]

        def begin(kind: str, program: list[str], how: str) -> Worker:
            self.started += 1
            name = f"{kind}-{machine.name}.{self.started}"
            return Worker(name, machine.start([*program, resource, json.dumps(self.config(name)), self.first, how]))

        started = [begin(kind, program, how) for kind, (*program, how) in kinds]
        until = time.monotonic() + 120
        for i, (kind, (*program, how)) in enumerate(kinds):
            # One that cannot reach the store in time is started again, as its supervisor would.
            while not (line := started[i].first_line()):
                assert time.monotonic() < until, f"{started[i].name} does not start"
                started[i] = begin(kind, program, how)
            assert line == "ready\n"
        self.workers += started
        return started

    def on(self, machine: Machine) -> list[Worker]:
        """Those that live."""
        return [worker for worker in self.workers if machine_of(worker.name) == machine.name and not worker.killed_ms]

    def reports(self) -> dict[str, dict[str, Any]]:
        """What those say that were not killed, by the servers' clock."""
        said = {worker.name: worker.end() for worker in self.workers if not worker.killed_ms}
        for name, (_, status) in said.items():
            assert status == 0, f"{name} has ended with {status}"
        ahead = {machine.name: machine.ahead_ms for machine in self.machines}
        return {name: by_our_clock(json.loads(output), ahead[machine_of(name)]) for name, (output, _) in said.items()}


def machine_of(name: str) -> str:
    found = re.search(r"machine-\d+", name)
    assert found, name
    return found[0]


def by_our_clock(report: dict[str, Any], ahead_ms: int) -> dict[str, Any]:
    return report | {
        "seen": {
            token: [calls, *(moment - ahead_ms for moment in moments)]
            for token, (calls, *moments) in report["seen"].items()
        },
        "refused": [
            [token, got_ms - ahead_ms, answered_ms - ahead_ms, status]
            for token, got_ms, answered_ms, status in report["refused"]
        ],
        "failed": [[at_ms - ahead_ms, error] for at_ms, error in report["failed"]],
    }


def undisturbed(fleet: Fleet, seconds: int) -> None:
    fleet.begin(namespace="undisturbed")
    for machine in fleet.machines:
        fleet.start(machine)
    until_ms = now_ms() + seconds * 1000
    for machine in fleet.machines:
        for worker in fleet.on(machine):
            worker.run_until(until_ms + machine.ahead_ms)
    reports = fleet.reports()
    log = control("/log?endpoint=token&raw=1")
    ends = lives(log, {})
    stats = control("/stats")
    assert (stats["reuses"], stats["lost_answers"], stats["rotations"]) == (0, 0, len(log)), stats
    during, after = zip(*(judge(name, report, ends, True) for name, report in reports.items()), strict=True)
    calls, uses = (sum(report[what] for report in reports.values()) for what in ("calls", "uses"))
    assert sum(during) * 1000 <= calls, f"{sum(during)} tokens ended during the call"
    by = [sum(machine_of(agent(entry)) == machine.name for entry in log) for machine in fleet.machines]
    print(
        f"{len(reports)} processes on {len(by)} machines, {seconds} s: {len(log)} lives, {len(log)} requests "
        f"({', '.join(map(str, by))} from each machine), 0 reuses; {calls} tokens handed out, all valid, nobody "
        f"without; {uses} used, {sum(map(len, after))} of them ended on the way",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("programs", type=Path)
    parser.add_argument("store", choices=STORES)
    parser.add_argument("seconds", type=int)
    parser.add_argument("--trouble", action="store_true")
    options = parser.parse_args()
    Network()
    serve(os.environ["EVERGRANT_TEST_SITE"])
    store = STORES[options.store]()
    try:
        with tempfile.TemporaryDirectory(prefix="evergrant-machines-") as directory:
            fleet = Fleet(options.programs, Path(directory), store.url)
            undisturbed(fleet, options.seconds)
            if options.trouble:
                trouble.run(fleet, store, options.seconds)
    finally:
        store.end()


main()
