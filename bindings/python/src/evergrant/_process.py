"""What the end of a process, and the start of a forked child, need."""

from __future__ import annotations

import os
import sys

from . import _native
from ._client import clients, unsettled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _after_fork_in_child() -> None:
    _native.forget_idle_queues()
    aio = sys.modules.get(f"{__package__}._aio")
    if aio:
        aio.forget_loops()
    unsettled.clear()
    for client in list(clients.values()):
        client._forget_parent()
    for util in _utils():
        # A child of multiprocessing drops all finalizers of its parent, then runs these functions.
        util.register_after_fork(_close_at_exit, _close_at_exit)


def _utils() -> list[Any]:
    """Of multiprocessing, and of billiard, which is Celery's copy of it: what is in use."""
    if "billiard.process" in sys.modules:
        from importlib import import_module

        import_module("billiard.util")  # which its children load only after the fork
    return [sys.modules[name] for name in ("multiprocessing.util", "billiard.util") if name in sys.modules]


def _in_child_of_multiprocessing() -> bool:
    multiprocessing, billiard = (sys.modules.get(f"{name}.process") for name in ("multiprocessing", "billiard"))
    return bool(
        (multiprocessing and multiprocessing.parent_process())
        or (billiard and billiard.current_process().name != "MainProcess")
    )


def _close_at_exit(_: object = None) -> None:
    """Children of multiprocessing and billiard end by ``os._exit``, so the library's own exit handler never runs."""
    for util in _utils():
        util.Finalize(None, _close_clients, exitpriority=-100)


def _close_clients() -> None:
    """Closes them all at the same time, each for at most its ``exit_wait_ms``."""
    handles = [*unsettled, *(client._handle for client in list(clients.values()))]
    _native.call_all([(handle, '{"call": "client_close"}') for handle in handles])


os.register_at_fork(after_in_child=_after_fork_in_child)
if _in_child_of_multiprocessing():
    _close_at_exit()
