"""The servers of shared stores, on the bridge: `url` is the key "store" for all machines, `fail()` breaks the server and
repairs it after a while (a promoted replica takes its address), `end()` leaves nothing behind.
"""

import glob
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from network import SERVERS

# Long enough for anything that must happen on a busy machine.
LIMIT_S = 60


class Postgres:
    """PostgreSQL with durable writes."""

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
        until = time.monotonic() + LIMIT_S
        ready = [self.programs / "pg_isready", "-q", "-h", self.address, "-p", str(self.PORT)]
        while subprocess.run(ready).returncode != 0:
            assert time.monotonic() < until, (self.directory / "log").read_text()
            time.sleep(0.02)

    def client(self, program: str, *arguments: str) -> str:
        """What a program of PostgreSQL's says that works in this database."""
        where = {"PGHOST": self.address, "PGPORT": str(self.PORT), "PGUSER": "postgres", "PGPASSWORD": self.PASSWORD}
        command = [self.programs / program, *arguments]
        return subprocess.run(command, env=os.environ | where, check=True, stdout=subprocess.PIPE, text=True).stdout

    def fail(self, away_s: float) -> None:
        """Stops it as "immediate" does, as a crash would, and starts it again after a while."""
        self.server.send_signal(signal.SIGQUIT)
        self.server.wait(LIMIT_S)
        time.sleep(away_s)
        self._start()

    def end(self) -> None:
        self.server.send_signal(signal.SIGQUIT)
        self.server.wait(LIMIT_S)
        shutil.rmtree(self.directory)


STORES = {"postgres": Postgres}
