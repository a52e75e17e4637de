"""What happens to the machines and the store while they renew: at random moments, and in the middle of a renewal.

Whoever is hit there is known by the server's log: a fault makes one answer slow, and the request's User-Agent names the
process that waits for it. A session that is lost is signed in again; verdict.py says whether it could have been kept.
"""

import contextlib
import json
import os
import random
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import evergrant
import verdict
from network import Machine
from soak import Worker, agent, control, now_ms
from stores import Lost

if TYPE_CHECKING:
    from machines import Fleet

SETTINGS = {"namespace": "trouble", "connect_timeout_ms": 1000, "exchange_timeout_ms": 3000, "max_wait_ms": 5000}
# Nobody takes an attempt over before: both limits, and the 30 s of the protocol.
DEADLINE_S = 34
LONG_S = DEADLINE_S + 4
# An answer of the server takes so long if somebody is to be hit while they wait for it.
SLOW_MS = 800
# Until everybody has a token again: a dead owner's deadline, a sign-in, and back-offs.
RECOVERY_S = 65
CALM_S = 10


@dataclass
class Trouble:
    """What a machine had, by the servers' clock. `machine` is empty where it was the store."""

    kind: str
    aimed: bool
    machine: str
    begin_ms: int
    end_ms: int = 0
    lost: Lost | None = None


class Day:
    """The troubles of one run. One at a time, but for a long one that goes on beside."""

    def __init__(self, fleet: "Fleet", store: Any, until_ms: int) -> None:
        self.fleet = fleet
        self.store = store
        self.until_ms = until_ms
        self.workers_until_ms = until_ms + (RECOVERY_S + CALM_S) * 1000
        self.troubles: list[Trouble] = []
        self.long: tuple[Trouble, Callable[[], None], int] | None = None
        # Why the session has ended, by the version of its record.
        self.ends: dict[int, str] = {}
        # Of no machine: it looks at the session and signs in, and never asks for a token.
        self.client = evergrant.Client(**(fleet.config("driver") | {"max_wait_ms": 60_000}))
        self.session = self.client.session("soak")

    def start(self, machine: Machine) -> None:
        self.let_work(machine, self.fleet.start(machine))

    def let_work(self, machine: Machine, workers: list[Worker]) -> None:
        for worker in workers:
            worker.run_until(self.workers_until_ms + machine.ahead_ms)

    def watch(self, seconds: float) -> None:
        """Lets time pass, ends the long trouble when its time has come, and signs in again where a session was lost."""
        until = time.monotonic() + seconds
        while True:
            if self.long and now_ms() >= self.long[2]:
                self.end_long()
            with contextlib.suppress(evergrant.StoreError):
                self.sign_in_again()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.1))

    def sign_in_again(self) -> None:
        shown = self.session.describe()
        if shown["state"] == "ended":
            self.ends[shown["version"]] = shown["reason"]
            self.session.save({"refresh_token": control("/sign_in", {"client_id": "client"})["refresh_token"]})

    def end_long(self) -> None:
        assert self.long
        trouble, end, _ = self.long
        self.long = None
        end()
        trouble.end_ms = now_ms()

    def aim(self) -> Machine | None:
        """The machine that waits for an answer now. None: nobody renews, as others are waited for."""
        before = max((entry["n"] for entry in control("/log?endpoint=token")), default=0)
        when = random.choice(["before_ms", "after_ms"])
        control("/faults", {"fault": "delay", when: SLOW_MS})
        until = time.monotonic() + 6
        while time.monotonic() < until:
            for entry in control(f"/log?endpoint=token&raw=1&after={before}"):
                return next(machine for machine in self.fleet.machines if machine.name in agent(entry))
            time.sleep(0.02)
        disarm()
        return None

    def maybe_aim(self) -> Machine | None:
        return self.aim() if random.random() < 0.7 else None

    def happen(self, kind: str) -> None:
        if kind in self.store.FAILURES:
            self.happen_to_store(kind)
            return
        hit = self.maybe_aim()
        machine = hit or random.choice(self.fleet.machines)
        if self.long and machine.name == self.long[0].machine:
            return
        trouble = Trouble(kind, bool(hit), machine.name, now_ms())
        self.troubles.append(trouble)
        end = getattr(self, kind.removeprefix("long ").replace(" ", "_"))(machine)
        if kind.startswith("long "):
            self.long = (trouble, end, now_ms() + LONG_S * 1000)
            return
        self.watch(random.uniform(0.5, 6))
        end()
        trouble.end_ms = now_ms()

    def happen_to_store(self, kind: str) -> None:
        """Nobody signs in meanwhile: a sign-in, too, may be lost, and then a session ends twice."""
        trouble = Trouble(kind, False, "", now_ms())
        self.troubles.append(trouble)

        def hit() -> None:
            trouble.aimed = bool(self.maybe_aim())

        trouble.lost = self.store.fail(kind, hit, random.uniform(0, 1.5))
        trouble.end_ms = now_ms()

    def killed(self, machine: Machine) -> Callable[[], None]:
        """All processes at once. Their connections are ended by the kernel."""
        for worker in self.fleet.on(machine):
            worker.process.kill()
            worker.killed_ms = now_ms()
        return lambda: self.start(machine)

    def power_lost(self, machine: Machine) -> Callable[[], None]:
        """Nobody hears of it: what they wait for never comes."""
        machine.pull_plug()
        self.killed(machine)
        machine.halt()

        def end() -> None:
            machine.plug_in()
            machine.boot()
            self.start(machine)

        return end

    def cut_off(self, machine: Machine) -> Callable[[], None]:
        machine.pull_plug()
        return machine.plug_in

    def paused(self, machine: Machine) -> Callable[[], None]:
        for worker in self.fleet.on(machine):
            worker.process.send_signal(signal.SIGSTOP)

        def end() -> None:
            for worker in self.fleet.on(machine):
                worker.process.send_signal(signal.SIGCONT)

        return end


OF_A_MACHINE = ["killed", "power lost", "cut off", "paused", "long cut off", "long paused"]


def disarm() -> None:
    request = urllib.request.Request(os.environ["EVERGRANT_TEST_SERVER"] + "/faults", method="DELETE")
    urllib.request.urlopen(request, timeout=60).close()


def run(fleet: "Fleet", store: Any, seconds: int) -> None:
    random.seed(os.environ.get("EVERGRANT_SEED"))
    fleet.begin(**SETTINGS)
    started = [(machine, fleet.start(machine)) for machine in fleet.machines]
    until_ms = now_ms() + seconds * 1000
    day = Day(fleet, store, until_ms)
    for machine, workers in started:
        day.let_work(machine, workers)
    kinds = [*OF_A_MACHINE, *store.FAILURES]
    # Taken from the end: a short run has the store's.
    deck = [*random.sample(OF_A_MACHINE, len(OF_A_MACHINE)), *store.FAILURES]
    later: list[str] = []
    while now_ms() < until_ms:
        if not deck:
            deck, later = [*random.sample(kinds, len(kinds)), *later], []
        kind = deck.pop()
        if kind.startswith("long ") and (day.long or now_ms() + LONG_S * 1000 > until_ms):
            later = [kind]
            continue
        day.happen(kind)
        day.watch(random.uniform(0.5, 3))
    while day.long:
        day.watch(0.1)
    disarm()
    day.watch((day.workers_until_ms - now_ms()) / 1000)
    calm_ms = day.workers_until_ms - CALM_S * 1000
    reports = fleet.reports()
    killed = {worker.name: worker.killed_ms for worker in fleet.workers if worker.killed_ms}
    log = control("/log?endpoint=token&raw=1")
    # For whoever has to find out why.
    seen = {"log": log, "troubles": [asdict(trouble) for trouble in day.troubles], "killed": killed, "reports": reports}
    (fleet.programs / "seen.json").write_text(json.dumps(seen | {"ends": day.ends, "calm_ms": calm_ms}))
    lost = verdict.judge(log, day.troubles, killed, reports, len(day.ends), calm_ms)
    table(day, kinds)
    failed = Counter(error["status"] for report in reports.values() for _, error in report["failed"])
    calls = sum(report["calls"] for report in reports.values())
    reasons = Counter(day.ends.values())
    print(
        f"{len(day.troubles)} troubles of 4 machines in {seconds} s: {len(log)} requests, {len(lost)} losses, all "
        f"explained ({', '.join(f'{count} {case}' for case, count in Counter(lost).items()) or 'none'}; "
        f"{', '.join(f'{count} {reason}' for reason, count in reasons.items()) or 'no reason'}); "
        f"{calls} tokens handed out, all valid; calls without one: "
        f"{', '.join(f'{count} {status}' for status, count in failed.items()) or 'none'}",
        flush=True,
    )


def table(day: Day, kinds: list[str]) -> None:
    print(f"{'what':<21} {'times':>5} {'mid-renewal':>11} {'writes lost':>11}")
    for kind in kinds:
        of_kind = [trouble for trouble in day.troubles if trouble.kind == kind]
        aimed, lost = sum(each.aimed for each in of_kind), sum(each.lost is not None for each in of_kind)
        print(f"{kind:<21} {len(of_kind):>5} {aimed:>11} {lost:>11}")
