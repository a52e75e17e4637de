"""Runs 8 processes each of C, Python and Node on one store and one session, and judges what they and the server saw.

Arguments: the C worker, how many seconds. Environment: PYTHON, NODE_PROJECT (the directory of worker.mjs and of a
node_modules with the package), and what tests/with-server.sh sets. --kill: kills and restarts some all the time.

A worker says "ready", reads the Unix time in milliseconds at which it has to end, and says at its end:

    {"calls", "uses", "seen": {TOKEN: [calls, asked_ms, got_ms, first_ms]},
     "refused": [[TOKEN, got_ms, answered_ms, status]], "failed": [[at_ms, ERROR]]}

asked_ms and got_ms are of the latest call that returned the token: just before it, and just after it; first_ms is just
after the first one. A status of -1 is no answer. ERROR has status, reason and message.
"""

import argparse
import json
import os
import random
import re
import subprocess
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIFE_MS = 2000
# Early renewal starts in the last fifth of a life.
LEAST_LIFE_MS = LIFE_MS * 4 // 5
EACH = 8

HERE = Path(__file__).parent


def control(path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(os.environ["EVERGRANT_TEST_SERVER"] + path, data, timeout=60) as answer:
        return json.load(answer)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class LostReply(Exception):
    """The one loss that no client can prevent on a server that answers no used token again."""


@dataclass
class Worker:
    """A process. `name` is its User-Agent, so that the server's log tells who renewed."""

    name: str
    process: subprocess.Popen[str]
    killed_ms: int | None = None

    def first_line(self) -> str:
        """Empty if it has ended."""
        assert self.process.stdout
        return self.process.stdout.readline()

    def line(self) -> str:
        line = self.first_line()
        assert line, f"{self.name} has ended with {self.process.wait()}"
        return line

    def end(self) -> tuple[str, int]:
        output, _ = self.process.communicate(timeout=600)
        return output, self.process.returncode

    def run_until(self, until_ms: int) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{until_ms}\n")
        self.process.stdin.flush()


class Team:
    def __init__(self, c_worker: str, store: str) -> None:
        self.c_worker = c_worker
        self.store = store
        self.first = json.dumps({"refresh_token": control("/sign_in", {"client_id": "client"})["refresh_token"]})
        self.all: list[Worker] = []

    def start(self, language: str, number: int) -> Worker:
        """The last ones of a language work in the ways that are its own."""
        name = f"{language}-{number}.{len(self.all)}"
        site = os.environ["EVERGRANT_TEST_SITE"]
        config = {
            "token_endpoint": f"{site}/token",
            "client_id": "client",
            "client_secret": "secret",
            "store": f"sqlite:{self.store}",
            "user_agent": name,
        }
        arguments = [f"{site}/resource", json.dumps(config), self.first]
        last = EACH - 1
        ways = {last: "gevent", last - 1: "asyncio", last - 2: "asyncio"}
        command = {
            "c": [self.c_worker, *arguments, "4" if number == last else "1"],
            "python": [os.environ["PYTHON"], str(HERE / "worker.py"), *arguments, ways.get(number, "sync")],
            "node": ["node", os.environ["NODE_PROJECT"] + "/worker.mjs", *arguments, "3" if number == last else "0"],
        }[language]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        worker = Worker(name, process)
        self.all.append(worker)
        return worker

    def stop(self) -> None:
        for worker in self.all:
            worker.process.kill()
            worker.process.wait()


def kill_until(team: Team, until_ms: int) -> None:
    """Ends one of them every half second, as a crash does, and starts another in its place."""
    random.seed(os.environ.get("EVERGRANT_SEED"))
    while now_ms() < until_ms - 5000:
        time.sleep(0.5)
        victim = random.choice([worker for worker in team.all if worker.killed_ms is None])
        victim.process.kill()
        victim.killed_ms = now_ms()
        victim.process.wait()
        language, number = re.match(r"(\w+)-(\d+)", victim.name).groups()  # type: ignore[union-attr]
        successor = team.start(language, int(number))
        successor.line()
        successor.run_until(until_ms)


def lives(log: list[dict[str, Any]], killed: dict[str, int]) -> dict[str, int]:
    """What the server saw: exactly one request for each life. Gives all access tokens with their ends."""
    by_generation: dict[int, list[dict[str, Any]]] = {}
    for entry in log:
        by_generation.setdefault(entry["generation"], []).append(entry)
    for generation, entries in sorted(by_generation.items()):
        if len(entries) > 1 and agent(entries[0]) in killed and entries[0]["at_ms"] <= killed[agent(entries[0])]:
            raise LostReply(f"{agent(entries[0])} was killed between the rotation and its commit")
        assert len(entries) == 1, f"generation {generation} was presented {len(entries)} times: {entries}"
    for entry in log:
        assert (entry["outcome"], entry["reply"], entry["rotated"]) == ("ok", "written", True), entry
    generations = [entry["generation"] for entry in log]
    assert generations == list(range(generations[0], generations[0] + len(log))), generations
    assert len({entry["family"] for entry in log}) == 1, "more than one family"
    took_ms = log[-1]["at_ms"] - log[0]["at_ms"]
    most = (took_ms + 1000) // LEAST_LIFE_MS + 1
    assert len(log) <= most, f"{len(log)} requests in {took_ms} ms: more than one for each life"
    return {entry["issued_access_token"]: entry["processed_ms"] + LIFE_MS for entry in log}


def agent(entry: dict[str, Any]) -> str:
    found = re.search(r"^user-agent: *(\S+)", entry["raw"], re.IGNORECASE | re.MULTILINE)
    assert found, entry["raw"]
    return found[1]


def judge(name: str, report: dict[str, Any], ends: dict[str, int], whole: bool) -> tuple[int, list[int]]:
    """What a process got was valid when it asked. Gives what ended on the way: the number of tokens that did during the
    call, and for each that did between the call and the resource server, how many milliseconds it had had left.
    """
    during, after = 0, []
    assert not report["failed"], f"{name}: {len(report['failed'])} calls without a token: {report['failed'][:3]}"
    for token, (_, asked_ms, got_ms, _) in report["seen"].items():
        assert token in ends, f"{name} has a token that the server did not issue"
        assert asked_ms < ends[token], f"{name} was given a token {asked_ms - ends[token]} ms after its end"
        during += got_ms >= ends[token]
    for token, got_ms, answered_ms, status in report["refused"]:
        assert status == 401, f"{name}: status {status}"
        assert ends[token] <= answered_ms, f"{name}: a token is refused that has {ends[token] - answered_ms} ms left"
        after.append(ends[token] - got_ms)
    if whole:
        # A busy machine may have it miss some.
        assert len(report["seen"]) * 2 >= len(ends), f"{name} saw {len(report['seen'])} of {len(ends)} tokens"
        assert report["uses"] > 0, f"{name} used no token"
    return during, after


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("c_worker")
    parser.add_argument("seconds", type=int)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--languages", type=lambda names: names.split(","), default=["c", "python", "node"])
    options = parser.parse_args()
    control("/settings", {"access_token_life_ms": LIFE_MS, "log_limit": 10_000_000})
    with tempfile.TemporaryDirectory(prefix="evergrant-languages-") as directory:
        team = Team(options.c_worker, f"{directory}/sessions.db")
        try:
            for number in range(EACH):
                for language in options.languages:
                    team.start(language, number)
            for worker in team.all:
                assert worker.line() == "ready\n"
            until_ms = now_ms() + options.seconds * 1000
            for worker in team.all:
                worker.run_until(until_ms)
            if options.kill:
                kill_until(team, until_ms)
            said = {worker.name: worker.end() for worker in team.all if worker.killed_ms is None}
        finally:
            team.stop()
    log = control("/log?endpoint=token&raw=1")
    try:
        ends = lives(log, {worker.name: worker.killed_ms for worker in team.all if worker.killed_ms is not None})
    except LostReply as loss:
        print(f"ended early, as it must: {loss}")
        return
    for name, (_, status) in said.items():
        assert status == 0, f"{name} has ended with {status}"
    reports = {name: json.loads(output) for name, (output, _) in said.items()}
    stats = control("/stats")
    assert (stats["reuses"], stats["lost_answers"], stats["rotations"]) == (0, 0, len(log)), stats
    calls, uses = (sum(report[what] for report in reports.values()) for what in ("calls", "uses"))
    during, after = zip(*(judge(name, report, ends, not options.kill) for name, report in reports.items()), strict=True)
    late = [left for each in after for left in each]
    # Somebody is interrupted in a token's last millisecond, sometimes. Not always, and not everybody.
    assert sum(during) * 1000 <= calls, f"{sum(during)} tokens ended during the call"
    by = {language: sum(agent(entry).startswith(f"{language}-") for entry in log) for language in options.languages}
    print(
        f"{len(reports)} processes, {options.seconds} s: {len(log)} lives, {len(log)} requests "
        f"({', '.join(f'{count} from {language}' for language, count in by.items())}), 0 reuses; "
        f"{calls} tokens handed out, all valid, {sum(during)} of them ended before the call did; "
        f"{uses} used, {len(late)} of them ended on the way"
        f"{f', {min(late)} to {max(late)} ms after the call' if late else ''}; "
        f"tokens seen by each process: {min(len(report['seen']) for report in reports.values())} or more"
        + (f"; {len(team.all) - len(reports)} killed" if options.kill else "")
    )


if __name__ == "__main__":
    main()
