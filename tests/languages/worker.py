"""The same as worker.c in Python. The last argument is the way: sync, asyncio or gevent."""

import sys

WAY = sys.argv[4]
if WAY == "gevent":
    from gevent import monkey

    monkey.patch_all()

import asyncio
import json
import random
import time
import urllib.error
import urllib.request

import evergrant

EVERY = 8
LONGEST_PAUSE_S = 0.06
TASKS = 4

resource, config, first = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
calls = uses = 0
seen: dict[str, list[int]] = {}
refused: list[list[object]] = []
failed: list[list[object]] = []


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def note(token: str, asked_ms: int, got_ms: int) -> bool:
    global calls
    calls += 1
    number, asked, got, first = seen.get(token, (0, 0, 0, got_ms))
    seen[token] = [number + 1, max(asked, asked_ms), max(got, got_ms), min(first, got_ms)]
    return calls % EVERY == 0


def note_failure(error: evergrant.EvergrantError) -> None:
    failed.append([now_ms(), {"status": error.status, "reason": error.reason, "message": str(error)}])


def use(token: str, got_ms: int) -> None:
    global uses
    request = urllib.request.Request(resource, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    except OSError:
        status = -1
    uses += 1
    if status != 200:
        refused.append([token, got_ms, now_ms(), status])


def pause() -> float:
    return random.uniform(0, LONGEST_PAUSE_S)


def work(session: evergrant.Session, until_ms: int) -> None:
    while (asked_ms := now_ms()) < until_ms:
        try:
            token = session.access_token()
            got_ms = now_ms()
            if note(token, asked_ms, got_ms):
                use(token, got_ms)
        except evergrant.EvergrantError as error:
            note_failure(error)
        time.sleep(pause())


async def awork(session: evergrant.Session, until_ms: int) -> None:
    while (asked_ms := now_ms()) < until_ms:
        try:
            token = await session.aaccess_token()
            got_ms = now_ms()
            if note(token, asked_ms, got_ms):
                await asyncio.to_thread(use, token, got_ms)
        except evergrant.EvergrantError as error:
            note_failure(error)
        await asyncio.sleep(pause())


async def atasks(session: evergrant.Session, until_ms: int) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(TASKS):
            group.create_task(awork(session, until_ms))


def greenlets(session: evergrant.Session, until_ms: int) -> None:
    import gevent

    gevent.joinall([gevent.spawn(work, session, until_ms) for _ in range(TASKS)], raise_error=True)


with evergrant.Client(**config) as client:
    session = client.session("soak")
    session.save(first)
    print("ready", flush=True)
    until_ms = int(sys.stdin.readline())
    if WAY == "asyncio":
        asyncio.run(atasks(session, until_ms))
    elif WAY == "gevent":
        greenlets(session, until_ms)
    else:
        work(session, until_ms)
print(json.dumps({"calls": calls, "uses": uses, "seen": seen, "refused": refused, "failed": failed}))
