"""Nothing grows with the number of calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from program import run

if TYPE_CHECKING:
    import evergrant

PROGRAM = """
import asyncio, gc, os

def resident():
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def descriptors():
    return len(os.listdir("/proc/self/fd"))

client = evergrant.Client(**SITE)
alice = client.session("alice")

def hits():
    for _ in range(100_000):
        alice.access_token()

def looks():
    for _ in range(20_000):
        client.session("alice").access_token()
        alice.allows(SITE["site_url"] + "/x")

def calls():
    for _ in range(20_000):
        alice.token()

def errors():
    nobody = client.session("nobody")
    for _ in range(5_000):
        try:
            nobody.token()
        except evergrant.SignInRequired:
            pass
    for _ in range(20_000):
        try:
            client.session("")
        except evergrant.InvalidArgument:
            pass

async def tasks(count):
    for _ in range(count):
        await asyncio.gather(*[alice.atoken() for _ in range(100)])
        cancelled = [asyncio.create_task(alice.atoken()) for _ in range(10)]
        await asyncio.sleep(0)
        for task in cancelled:
            task.cancel()
        await asyncio.gather(*cancelled, return_exceptions=True)

def loops():
    for _ in range(100):
        asyncio.run(tasks(1))

def in_one_loop():
    asyncio.run(tasks(200))

def clients():
    for _ in range(200):
        with evergrant.Client(**SITE) as one:
            one.session("alice").token()

for work in (hits, looks, calls, errors, loops, in_one_loop, clients):
    work()  # once, for what stays
    before = resident(), descriptors()
    work()
    after = resident(), descriptors()
    print(work.__name__, after[0] - before[0], after[1] - before[1])
"""


def test_calls_leave_nothing_behind(site: dict[str, Any], alice: evergrant.Session) -> None:
    assert alice.token().generation == 1
    grown = [line.split() for line in run(PROGRAM, site)]
    assert [name for name, _, _ in grown] == ["hits", "looks", "calls", "errors", "loops", "in_one_loop", "clients"]
    for name, memory, descriptors in grown:
        assert int(memory) < 1_500_000, (name, memory)
        assert int(descriptors) <= 0, (name, descriptors)
