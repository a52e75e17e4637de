"""Renewals and reads of 1 to 8 processes on one store per second, a session each, beside what the store itself can.

Arguments: the program (stores.c), a directory on a real disk. Prints rows as table.awk reads them. The store's own limit is
pgbench's or redis-benchmark's, with as many clients, on rows of a record's size: for a renewal its two reads and its two
durable writes, without the exchange; for token() one read.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "machines"))

import stores

SECONDS = 2
ROUNDS = 3
PROCESSES = [1, 2, 4, 8]
RECORD_BYTES = 2000

READ = "SELECT version, record FROM bench WHERE id = :client_id;\n"
WRITE = "UPDATE bench SET version = version + 1, record = record WHERE id = :client_id;\n"


def ours(program: str, store: str, what: str, processes: int) -> float:
    """Calls per second, all in all."""
    started = [
        subprocess.Popen(
            [program, store, str(number), what, str(SECONDS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in range(processes)
    ]
    for process in started:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    begin = time.monotonic() + 0.2
    # All know it before it comes.
    for process in started:
        assert process.stdin
        process.stdin.write(f"{begin}\n")
        process.stdin.flush()
    return sum(int(process.communicate(timeout=120)[0]) for process in started) / SECONDS


def pgbench(server: stores.Postgres, what: str, processes: int) -> float:
    script = server.directory / "script"
    script.write_text((READ + WRITE) * 2 if what == "renew" else READ)
    arguments = ["-n", "-M", "prepared", "-f", str(script), "-c", str(processes), "-j", str(min(processes, 2))]
    output = server.client("pgbench", *arguments, "-T", str(SECONDS))
    return float(output.split("tps = ")[1].split()[0])


class Redis:
    """One that syncs every write to the disk."""

    PORT = 6399

    def __init__(self, disk: Path) -> None:
        settings = {"port": str(self.PORT), "bind": "127.0.0.1", "dir": str(disk), "save": ""}
        settings |= {"appendonly": "yes", "appendfsync": "always"}
        arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
        self.server = subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL)
        while self.client("redis-cli", "ping") != "PONG":
            time.sleep(0.02)
        self.client("redis-cli", "hset", "bench", "version", "0", "record", "x" * RECORD_BYTES)

    def client(self, program: str, *arguments: str) -> str:
        command = [program, "-p", str(self.PORT), *arguments]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip()

    def limit(self, what: str, processes: int) -> float:
        read = self.per_second(processes, 20_000, "hmget", "bench", "version", "record")
        if what == "token":
            return read
        write = self.per_second(processes, 2_000, "hset", "bench", "version", "1", "record", "x" * RECORD_BYTES)
        return 1 / (2 / read + 2 / write)

    def per_second(self, processes: int, requests: int, *command: str) -> float:
        output = self.client("redis-benchmark", "-q", "--csv", "-c", str(processes), "-n", str(requests), *command)
        return float(output.splitlines()[-1].split('","')[1])

    def end(self) -> None:
        self.server.terminate()
        self.server.wait()


def row(what: str, figures: list[float], peer: list[float]) -> None:
    print(what, "/s", "", " ".join(map(str, figures)), " ".join(map(str, peer)), sep="\t", flush=True)


def measure(program: str, name: str, store: str, limit: Callable[[str, int], float] | None) -> None:
    for what, words in [("renew", "renewals"), ("token", "token() from the store")]:
        for processes in PROCESSES:
            figures, peer = [], []
            for _ in range(ROUNDS):
                figures.append(ours(program, store, what, processes))
                if limit:
                    peer.append(limit(what, processes))
            row(f"{name}: {words}, {processes} process{'es' if processes > 1 else ''}", figures, peer)


def main() -> None:
    program, disk = sys.argv[1], Path(sys.argv[2]).resolve()
    measure(program, "sqlite", f"sqlite:{disk}/stores.db", None)
    server = stores.Postgres("127.0.0.1", disk)
    try:
        server.client(
            "psql",
            *("-q", "-c", "CREATE TABLE bench (id int PRIMARY KEY, version bigint NOT NULL, record bytea NOT NULL)"),
            *(
                "-c",
                f"INSERT INTO bench SELECT n, 0, repeat('x', {RECORD_BYTES})::bytea FROM generate_series(0, 7) AS n",
            ),
        )
        measure(program, "postgres", server.url, lambda what, processes: pgbench(server, what, processes))
    finally:
        server.end()
    redis = Redis(disk)
    try:
        measure(program, "redis", f"redis://127.0.0.1:{redis.PORT}", redis.limit)
    finally:
        redis.end()


main()
