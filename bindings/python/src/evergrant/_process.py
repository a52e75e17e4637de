"""What the end of a process, and the start of a forked child, need."""

from __future__ import annotations

import os
import sys

from . import _native
from ._client import clients


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
    multiprocessing, billiard = (sys.modules.get(f"{name}.process") for name in ("multiprocessing", "billiard"))
    return bool(
        (multiprocessing and multiprocessing.parent_process())
        or (billiard and billiard.current_process().name != "MainProcess")
    )


def _close_at_exit(_: object = None) -> None:
    """Children of multiprocessing and billiard end by ``os._exit``, so the library's own exit handler never runs."""
    util = sys.modules["multiprocessing.util"]
    util.Finalize(None, _close_clients, exitpriority=-100)


def _close_clients() -> None:
    """Closes them all at the same time, each for at most its ``exit_wait_ms``."""
    _native.call_all([(client._handle, '{"call": "client_close"}') for client in list(clients.values())])


os.register_at_fork(after_in_child=_after_fork_in_child)
if _in_child_of_multiprocessing():
    _close_at_exit()
