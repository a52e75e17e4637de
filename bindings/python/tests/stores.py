"""Servers of shared stores, from Debian's packages (tests/setup.sh)."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from server import wait_for


class Postgres:
    """A PostgreSQL server with a directory and a port of its own. It ends with this process at the latest."""

    def __init__(self) -> None:
        self._programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port: int = unused.getsockname()[1]
        self.url = f"postgres://postgres@127.0.0.1:{port}/postgres"
        self._directory = tempfile.mkdtemp(prefix="evergrant-server")
        unprivileged = ["setpriv", "--pdeathsig=INT"]
        if os.getuid() == 0:  # It refuses root.
            shutil.chown(self._directory, "postgres", "postgres")
            unprivileged += ["--reuid=postgres", "--regid=postgres", "--clear-groups"]
        data = f"{self._directory}/data"
        initdb = [f"{self._programs}/initdb", "-U", "postgres", "--auth=trust", "--no-sync", "-D", data]
        subprocess.run([*unprivileged, *initdb], cwd="/", stdout=subprocess.DEVNULL, check=True)
        server = [f"{self._programs}/postgres", "-D", data]
        for setting in (f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self._directory}"):
            server += ["-c", setting]
        with Path(self._directory, "log").open("wb") as log:
            self._process = subprocess.Popen([*unprivileged, *server], cwd="/", stderr=log, start_new_session=True)
        is_ready = [f"{self._programs}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        wait_for(lambda: subprocess.run(is_ready, check=False).returncode == 0)

    def dump(self) -> bytes:
        """The whole database, as its administrator sees it."""
        return subprocess.run([f"{self._programs}/pg_dump", self.url], check=True, stdout=subprocess.PIPE).stdout

    def stop(self) -> None:
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()
        shutil.rmtree(self._directory)
