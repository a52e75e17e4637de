"""Calls for asyncio: one queue for each event loop, read when its descriptor becomes readable. No thread."""

from __future__ import annotations

import asyncio
from weakref import ReferenceType, WeakKeyDictionary, ref

from ._native import Queue, value_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import c_void_p
    from typing import Any


class _LoopQueue:
    """The queue of one loop. Only the loop's reader holds it: it ends when the loop is closed, whatever still waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.queue = Queue()
        self.waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.latest_tag = 0
        loop.add_reader(self.queue.fd, self.read)

    def read(self) -> None:
        for result in self.queue.take():
            future = self.waiting.pop(result["tag"], None)
            if future and not future.done():
                future.set_result(result)


_queues: WeakKeyDictionary[asyncio.AbstractEventLoop, ReferenceType[_LoopQueue]] = WeakKeyDictionary()


async def call(client: c_void_p | None, request: str) -> Any:
    """Makes one call and waits for its result. To cancel the wait does not cancel the call."""
    loop = asyncio.get_running_loop()
    known = _queues.get(loop)
    of_loop = known() if known else None
    if of_loop is None:
        of_loop = _LoopQueue(loop)
        _queues[loop] = ref(of_loop)
    of_loop.latest_tag = tag = of_loop.latest_tag + 1
    of_loop.queue.submit(client, tag, request)
    of_loop.waiting[tag] = future = loop.create_future()
    del of_loop  # only the loop shall hold it
    return value_of(await future)


def forget_loops() -> None:
    """In a forked child, whose parent's queues these are. Their readers stay: a loop may share its epoll with it."""
    _queues.clear()
