"""Machines: network namespaces on one bridge, each with a host name, a state directory and clocks of its own.

What all of them share is the kernel, and so the boot id. On a shared store nothing depends on it.
"""

import os
import signal
import struct
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

# Of the block for tests between networks (RFC 2544).
SERVERS = "198.18.0.1"


def run(*command: str) -> None:
    subprocess.run(command, check=True)


class Network:
    """The bridge, in a network namespace that is ours alone. Its address is that of the servers."""

    def __init__(self) -> None:
        os.makedirs("/run/netns", exist_ok=True)
        run("mount", "-t", "tmpfs", "machines", "/run/netns")
        run("ip", "link", "set", "lo", "up")
        # Without an address of its own it would have the least of its links', and change it when a machine is added:
        # those that had learned the old one could reach no server for half a minute.
        run("ip", "link", "add", "bridge", "address", "02:00:00:00:00:01", "type", "bridge")
        run("ip", "address", "add", f"{SERVERS}/24", "dev", "bridge")
        run("ip", "link", "set", "bridge", "up")


def relay(listen: str, port: int, to: str, prefix: list[str]) -> subprocess.Popen[bytes]:
    listener = f"TCP-LISTEN:{port},bind={listen},fork,reuseaddr,backlog=128,nodelay"
    # A peer that is gone is an error to it, and to us none.
    return subprocess.Popen(
        [*prefix, "socat", listener, f"TCP:{to}:{port},nodelay"], start_new_session=True, stderr=subprocess.DEVNULL
    )


def serve(url: str) -> None:
    """Lets the machines reach a server that listens on the loopback address only."""
    port = urlsplit(url).port
    assert port
    relay(SERVERS, port, "127.0.0.1", [])


class Machine:
    """`ahead_ms`: how far its wall clock is ahead of the servers'."""

    def __init__(self, number: int, directory: Path, site: str, shim: Path, ahead_ms: int) -> None:
        self.name = f"machine-{number}"
        self.on_it = ["ip", "netns", "exec", self.name]
        self.ahead_ms = ahead_ms
        self.link = f"link-{number}"
        self.site = urlsplit(site)
        self.shim = shim
        self.directory = directory / self.name
        self.directory.mkdir()
        (self.directory / "clocks").write_bytes(struct.pack("=qq", ahead_ms, 0))
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "link", "set", self.link, "master", "bridge")
        run("ip", "-n", self.name, "address", "add", f"198.18.0.{10 + number}/24", "dev", "eth0")
        run("ip", "-n", self.name, "link", "set", "eth0", "up")
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        self.plug_in()
        self.boot()

    def plug_in(self) -> None:
        run("ip", "link", "set", self.link, "up")

    def pull_plug(self) -> None:
        """The cable's: what is on its way is lost, and no end of a connection gets through."""
        run("ip", "link", "set", self.link, "down")

    def boot(self) -> None:
        """The site is plain HTTP, which is for a loopback address only. Returns when the servers can be reached."""
        assert self.site.port
        self.relay = relay("127.0.0.1", self.site.port, SERVERS, self.on_it)
        look = [*self.on_it, "socat", "-u", "OPEN:/dev/null", f"TCP:{SERVERS}:{self.site.port},connect-timeout=1"]
        until = time.monotonic() + 60
        while subprocess.run(look, stderr=subprocess.DEVNULL).returncode != 0:
            assert time.monotonic() < until, f"{self.name} cannot reach the servers"
            time.sleep(0.1)

    def halt(self) -> None:
        os.killpg(self.relay.pid, signal.SIGKILL)
        self.relay.wait()

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        on_it = [*self.on_it, "unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name]
        if self.ahead_ms:
            on_it += ["env", f"LD_PRELOAD={self.shim}", f"EVERGRANT_TEST_CLOCKS={self.directory / 'clocks'}"]
        return subprocess.Popen(
            [*on_it, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"XDG_STATE_HOME": str(self.directory)},
        )
