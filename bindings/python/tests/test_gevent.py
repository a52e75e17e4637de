"""gevent: in a patched program a wait lets the other greenlets run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from program import run

if TYPE_CHECKING:
    from server import Server

PATCH = "import gevent.monkey; gevent.monkey.patch_all()\n"
IMPORT_BEFORE_PATCHING = "import evergrant; import gevent.monkey; gevent.monkey.patch_all()\n"

WAITS = """
import gevent, threading
client = evergrant.Client(**SITE)
alice = client.session("alice")
first = alice.access_token()
before = len(__import__("os").listdir("/proc/self/task"))
waits = [gevent.spawn(alice.renew, rejected=first) for _ in range(100)]
turns = 0
while not all(wait.ready() for wait in waits):
    gevent.sleep(0.005)
    turns += 1
print({wait.get().generation for wait in waits})
print(turns > 50)
client.close()
"""

KILLED = """
import gevent
client = evergrant.Client(**SITE)
alice = client.session("alice")
first = alice.access_token()
wait = gevent.spawn(alice.renew, rejected=first)
gevent.sleep(0.1)
wait.kill()
print(repr(wait.get()))
with gevent.Timeout(0.05, False):
    alice.renew(rejected=first)
    print("not reached")
print(alice.renew(rejected=first).generation)
client.close()
"""


@pytest.mark.parametrize("patch", [PATCH, IMPORT_BEFORE_PATCHING])
def test_other_greenlets_run_during_a_wait(site: dict[str, Any], alice: Any, server: Server, patch: str) -> None:
    assert alice.token().generation == 1
    server.fault("delay", before_ms=1000)
    assert run(WAITS, site, patch) == ["{2}", "True"]
    assert server.rotations() == 1


def test_a_greenlet_that_waits_can_be_killed(site: dict[str, Any], alice: Any, server: Server) -> None:
    assert alice.token().generation == 1
    server.fault("delay", before_ms=500)
    assert run(KILLED, site, PATCH) == ["GreenletExit()", "2"]
    assert server.rotations() == 1


def test_without_patching_a_wait_blocks_them(site: dict[str, Any], alice: Any, server: Server) -> None:
    """So it is the poll that lets them run."""
    assert alice.token().generation == 1
    server.fault("delay", before_ms=1000)
    assert run(WAITS, site, "import gevent\n") == ["{2}", "False"]
