"""What the end of a process, and the start of a forked child, need."""

from __future__ import annotations

import os
import sys
from time import monotonic

from . import _native
from ._client import clients
from ._errors import EvergrantError


def _after_fork_in_child() -> None:
    _native.forget_idle_queues()
    aio = sys.modules.get(f"{__package__}._aio")
    if aio:
        aio.forget_loops()
    for client in list(clients.values()):
        client._forget_parent()
    util = sys.modules.get("multiprocessing.util")
    if util:
        # A child of multiprocessing drops all finalizers of its parent, then runs these functions.
        util.register_after_fork(_close_at_exit, _close_at_exit)


def _in_child_of_multiprocessing() -> bool:
    process = sys.modules.get("multiprocessing.process")
    if process and process.parent_process():
        return True
    process = sys.modules.get("billiard.process")
    return bool(process) and process.current_process().name != "MainProcess"


def _close_at_exit(_: object = None) -> None:
    """Children of multiprocessing and billiard end by ``os._exit``, so the library's own exit handler never runs."""
    util = sys.modules["multiprocessing.util"]
    util.Finalize(None, _close_clients, exitpriority=-100)


def _close_clients() -> None:
    start = monotonic()
    for client in list(clients.values()):
        waited_ms = int(1000 * (monotonic() - start))
        try:
            client.close(max(0, client._exit_wait_ms - waited_ms))
        except EvergrantError:
            pass


os.register_at_fork(after_in_child=_after_fork_in_child)
if _in_child_of_multiprocessing():
    _close_at_exit()
