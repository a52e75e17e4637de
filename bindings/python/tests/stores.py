"""Servers of shared stores, from Debian's packages (tests/setup.sh), gone when the test is."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

LIMIT_S = 60


class Postgres:
    """A PostgreSQL server with a directory and a port of its own."""

    def __init__(self) -> None:
        programs = self._programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port: int = unused.getsockname()[1]
        self._directory = tempfile.mkdtemp(prefix="evergrant-server")
        user = "postgres" if os.getuid() == 0 else None  # It refuses root.
        if user:
            shutil.chown(self._directory, user, user)
        initdb = [programs / "initdb", "-U", "postgres", "--auth=trust", "--no-sync", "-D", f"{self._directory}/data"]
        groups = [] if user else None
        subprocess.run(
            initdb, check=True, stdout=subprocess.DEVNULL, user=user, group=user, extra_groups=groups, cwd="/"
        )
        settings = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self._directory}"]
        command = [str(programs / "postgres"), "-D", f"{self._directory}/data"]
        command += [word for setting in settings for word in ("-c", setting)]
        self._log = Path(self._directory, "log").open("wb")
        self._process = subprocess.Popen(
            command, stderr=self._log, user=user, group=user, extra_groups=groups, cwd="/", start_new_session=True
        )
        self.url = f"postgres://postgres@127.0.0.1:{port}/postgres"
        end = time.monotonic() + LIMIT_S
        while subprocess.run([programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode != 0:
            assert time.monotonic() < end, "PostgreSQL did not start"
            assert self._process.poll() is None, "PostgreSQL did not start"
            time.sleep(0.05)

    def dump(self) -> bytes:
        """The whole database, as its administrator sees it."""
        return subprocess.run([self._programs / "pg_dump", self.url], check=True, capture_output=True).stdout

    def stop(self) -> None:
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()
        self._log.close()
        shutil.rmtree(self._directory)
