"""The servers of shared stores, on the bridge: `url` is the key "store" for all machines, `fail()` does one of
`FAILURES` and repairs it after a while, `end()` leaves nothing behind.

`fail()` calls `hit` right before the blow, which waits until somebody is in the middle of a renewal. It returns what
the store has lost of what it had said was written.
"""

import glob
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from network import SERVERS

# Long enough for anything that must happen on a busy machine.
LIMIT_S = 60


@dataclass
class Lost:
    """A record as the store had it when it died, and the older one with which it went on. By the servers' clock."""

    died_ms: int
    back_ms: int
    had: dict[str, Any]
    has: dict[str, Any]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def wait_until(what: str, is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + LIMIT_S
    while not is_so():
        assert time.monotonic() < until, f"waited in vain for {what}"
        time.sleep(0.02)


class Postgres:
    """PostgreSQL with durable writes."""

    FAILURES = ("store restarted",)
    PORT = 5432
    PASSWORD = "machines"

    def __init__(self, address: str = SERVERS, parent: Path | None = None) -> None:
        self.address = address
        programs = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        self.programs = Path(programs[-1])
        self.directory = Path(tempfile.mkdtemp(prefix="evergrant-machines-", dir=parent))
        self.data = self.directory / "data"
        password = self.directory / "password"
        password.write_text(self.PASSWORD)
        shutil.chown(self.directory, "postgres")
        initdb = ["initdb", "-U", "postgres", "--auth=scram-sha-256", "--pwfile", str(password), "--no-sync"]
        self._as_postgres(*initdb, "-D", str(self.data)).communicate()
        with (self.data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet scram-sha-256\n")
        self.url = f"postgres://postgres:{self.PASSWORD}@{address}:{self.PORT}/postgres"
        self._start()

    def _as_postgres(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
        with (self.directory / "log").open("a") as log:
            return subprocess.Popen([*user, self.programs / program, *arguments], stdout=log, stderr=log)

    def _start(self) -> None:
        settings = {
            "listen_addresses": self.address,
            "port": self.PORT,
            "unix_socket_directories": self.directory,
            "max_connections": 300,
            # A machine that lost its power leaves its connections behind.
            "tcp_keepalives_idle": 5,
            "tcp_keepalives_interval": 2,
            "tcp_keepalives_count": 3,
        }
        arguments = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        self.server = self._as_postgres("postgres", "-D", str(self.data), *arguments)
        ready = [self.programs / "pg_isready", "-q", "-h", self.address, "-p", str(self.PORT)]
        wait_until("PostgreSQL", lambda: subprocess.run(ready).returncode == 0)

    def client(self, program: str, *arguments: str) -> str:
        """What a program of PostgreSQL's says that works in this database."""
        where = {"PGHOST": self.address, "PGPORT": str(self.PORT), "PGUSER": "postgres", "PGPASSWORD": self.PASSWORD}
        command = [self.programs / program, *arguments]
        return subprocess.run(command, env=os.environ | where, check=True, stdout=subprocess.PIPE, text=True).stdout

    def fail(self, _failure: str, hit: Callable[[], None], away_s: float) -> None:
        """Stops it as "immediate" does, as a crash would, and starts it again after a while."""
        hit()
        self.server.send_signal(signal.SIGQUIT)
        self.server.wait(LIMIT_S)
        time.sleep(away_s)
        self._start()

    def end(self) -> None:
        self.server.send_signal(signal.SIGQUIT)
        self.server.wait(LIMIT_S)
        shutil.rmtree(self.directory)


class RedisServer:
    """It syncs every write to its disk. `of`: the one that it is a replica of."""

    def __init__(self, directory: Path, port: int, password: str, of: "RedisServer | None" = None) -> None:
        self.directory = directory
        self.port = port
        self.password = password
        directory.mkdir()
        self.start(["--replicaof", SERVERS, str(of.port)] if of else [])

    def start(self, settings: list[str]) -> None:
        usual = {
            "bind": SERVERS,
            "port": str(self.port),
            "unixsocket": str(self.directory / "socket"),
            "dir": str(self.directory),
            "requirepass": self.password,
            "masterauth": self.password,
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "repl-diskless-sync-delay": "0",
            # A machine that lost its power leaves its connections behind.
            "tcp-keepalive": "5",
        }
        arguments = [word for name, value in usual.items() for word in (f"--{name}", value)]
        with (self.directory / "log").open("a") as log:
            self.process = subprocess.Popen(["redis-server", *arguments, *settings], stdout=log, stderr=log)
        wait_until("Redis", lambda: self.cli("PING") == "PONG")

    def cli(self, *words: str) -> str:
        command = ["redis-cli", "-s", str(self.directory / "socket"), *words]
        where = os.environ | {"REDISCLI_AUTH": self.password}
        return subprocess.run(command, env=where, capture_output=True, text=True).stdout.strip()

    def info(self, name: str) -> str:
        """Empty if it is not told."""
        lines = self.cli("INFO").splitlines()
        return next((line.removeprefix(f"{name}:") for line in lines if line.startswith(f"{name}:")), "")

    def records(self) -> dict[str, dict[str, Any]]:
        """What can be read of each session: its tokens are sealed."""
        records = {}
        for key in self.cli("KEYS", "evergrant:*:session:*").splitlines():
            version, record = self.cli("HMGET", key, "version", "record").splitlines()
            records[key] = json.loads(record) | {"version": int(version)}
        return records

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def left_behind(self) -> dict[str, dict[str, Any]]:
        """What is on the disk of one that was killed."""
        self.start(["--port", "0"])
        records = self.records()
        self.kill()
        return records


class Redis:
    """Redis with durable writes, and a replica that is promoted when it dies. Then the dead one is a new replica."""

    PORTS = (6379, 6380)
    PASSWORD = "machines"
    IN_STEP, LATE = FAILURES = ("replica promoted", "late replica promoted")

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="evergrant-machines-"))
        self.started = 0
        # As docs/stores.md has it: all hosts are named.
        self.url = f"redis://:{self.PASSWORD}@{','.join(f'{SERVERS}:{port}' for port in self.PORTS)}/0"
        self.primary = self._start(self.PORTS[0])
        self._add_replica(self.PORTS[1])

    def _start(self, port: int, of: RedisServer | None = None) -> RedisServer:
        self.started += 1
        return RedisServer(self.directory / str(self.started), port, self.PASSWORD, of)

    def _add_replica(self, port: int) -> None:
        """Returns when writes wait for it, and it has its first data on its disk."""
        self.replica = self._start(port, self.primary)
        wait_until("the replica", lambda: "state=online" in self.primary.info("slave0"))
        for task in ("aof_rewrite_scheduled", "aof_rewrite_in_progress"):
            wait_until("the replica's disk", lambda task=task: self.replica.info(task) == "0")

    def _separate(self) -> None:
        """The replica has what there is now, and loses its link. To the primary it is gone."""
        offset = int(self.primary.info("master_repl_offset"))
        wait_until("the replica's data", lambda: int(self.replica.info("slave_repl_offset")) >= offset)
        self.replica.cli("REPLICAOF", "127.0.0.1", "1")
        wait_until("the separation", lambda: self.primary.info("connected_slaves") == "0")

    def fail(self, failure: str, hit: Callable[[], None], away_s: float) -> Lost | None:
        """The primary dies. A replica that was in step has all that anybody was told is written. A late one has lost
        its link a while before: what came since then is lost.
        """
        if failure == self.LATE:
            self._separate()
            time.sleep(random.uniform(0, 5))
        hit()
        dead = self.primary
        dead.kill()
        died_ms = now_ms()
        time.sleep(away_s)
        # What has reached it is read by then.
        wait_until("the end of the link", lambda: self.replica.info("master_link_status") == "down")
        has = self.replica.records()
        assert self.replica.cli("REPLICAOF", "NO", "ONE") == "OK"
        back_ms = now_ms()
        had = dead.left_behind()
        shutil.rmtree(dead.directory)
        self.primary = self.replica
        self._add_replica(dead.port)
        changed = [key for key in had if had[key] != has.get(key)]
        if failure == self.IN_STEP or not changed:
            return None
        [key] = changed
        return Lost(died_ms, back_ms, had[key], has[key])

    def end(self) -> None:
        self.replica.kill()
        self.primary.kill()
        shutil.rmtree(self.directory)


STORES = {"postgres": Postgres, "redis": Redis}
