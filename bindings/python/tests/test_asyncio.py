"""asyncio: nothing blocks the loop, no thread waits, cancelling forgets a wait only."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

import evergrant
from server import LIMIT_S, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from server import Server

    OpenClient = Callable[..., evergrant.Client]


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def run_in_asyncio(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def run_in_uvloop(main: Coroutine[Any, Any, None]) -> None:
    uvloop.run(main)


@pytest.fixture(params=[run_in_asyncio, run_in_uvloop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    function: Callable[[Coroutine[Any, Any, None]], None] = request.param
    return function


def test_every_method_has_its_counterpart(run: Any, site: dict[str, Any], server: Server) -> None:
    async def main() -> None:
        async with evergrant.Client(**site) as client:
            alice = client.session("alice")
            await alice.asave(server.sign_in())
            token = await alice.atoken()
            assert token.generation == 1
            assert await alice.aaccess_token() == token.access_token
            assert await alice.aaccess_token(min_valid_s=10) == token.access_token
            assert (await alice.arenew(rejected=token.access_token)).generation == 2
            assert (await alice.arenew(token.access_token, anyway=True, max_wait_ms=10_000)).generation == 3
            assert (await alice.adescribe())["generation"] == 3
            assert (await alice.aintrospect())["active"] is True
            assert [row["session"] async for row in client.asessions()] == ["alice"]
            assert (await client.astats())["exchanges"]["done"] == 2
            assert [event["kind"] async for event in client.aevents(max_wait_ms=0)] == ["saved", "renewed", "renewed"]
            await alice.asign_out()
            with pytest.raises(evergrant.SignInRequired):
                await alice.aaccess_token()
            await alice.aforget()
            assert await client.aclose(max_wait_ms=1000) is True
        with pytest.raises(evergrant.Closed):
            await alice.atoken()

    run(main())
    assert server.rotations() == 2


def test_the_flow_alone(run: Any, site: dict[str, Any], server: Server) -> None:
    async def main() -> None:
        answer = server.sign_in()
        request = {name: value for name, value in site.items() if name not in ("store", "session_lifetime_s")}
        token = await evergrant.arefresh(**request, refresh_token=answer["refresh_token"])
        assert token["refresh_token"] != answer["refresh_token"]
        with pytest.raises(evergrant.SignInRequired):
            await evergrant.arefresh(**request, refresh_token=answer["refresh_token"])

    run(main())


def test_a_hit_does_not_suspend(alice: evergrant.Session) -> None:
    token = alice.access_token()
    coroutine = alice.aaccess_token()
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)  # no loop runs here at all
    assert stopped.value.value == token


def test_outside_of_a_loop_it_is_an_error(alice: evergrant.Session) -> None:
    coroutine = alice.atoken()
    with pytest.raises(RuntimeError, match="no running event loop"):
        coroutine.send(None)


def test_thousands_of_waits_cost_no_thread_and_do_not_block_the_loop(
    run: Any, open_client: OpenClient, server: Server
) -> None:
    client = open_client(max_wait_ms=LIMIT_S * 1000)
    names = [f"user-{n}" for n in range(8)]
    for name in names:
        client.session(name).save(server.sign_in(user=f"{name}@example.com"))
    server.set(latency_ms=1000)

    async def main() -> None:
        waits = [
            asyncio.create_task(session.arenew(rejected=session.access_token()))
            for session in map(client.session, names)
            for _ in range(250)
        ]
        await asyncio.sleep(0)
        longest, most_threads, turns = 0.0, 0, 0
        while not all(wait.done() for wait in waits):
            start = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - start)
            most_threads = max(most_threads, threads())
            turns += 1
        tokens = [wait.result() for wait in waits]
        assert {token.generation for token in tokens} == {2}
        assert turns > 20
        assert most_threads < 60
        assert longest < 1  # the renewals take that long: the loop did not wait for them

    run(main())
    assert server.rotations() == 8


def test_cancelling_ends_the_wait_and_not_the_renewal(run: Any, alice: evergrant.Session, server: Server) -> None:
    server.fault("delay", before_ms=500)

    async def main() -> None:
        task = asyncio.create_task(alice.arenew())
        await asyncio.to_thread(server.wait_for_renewals, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(alice.arenew(rejected=alice.access_token()), 0.01)
        assert (await alice.arenew(rejected=alice.access_token())).generation == 2

    run(main())
    assert server.rotations() == 1


def test_loops_in_many_threads(alice: evergrant.Session, server: Server) -> None:
    first = alice.access_token()
    server.expire()
    server.fault("delay", before_ms=200)
    generations: list[int | None] = []

    async def main() -> None:
        tokens = await asyncio.gather(*[alice.arenew(rejected=first) for _ in range(10)])
        generations.extend(token.generation for token in tokens)

    loops = [threading.Thread(target=asyncio.run, args=(main(),), daemon=True) for _ in range(8)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join(LIMIT_S)
    assert generations == [2] * 80
    assert server.rotations() == 1


def test_a_loop_may_be_closed_while_something_waits(alice: evergrant.Session, server: Server) -> None:
    before = descriptors()
    for number in range(3):
        server.fault("delay", before_ms=300)
        loop = asyncio.new_event_loop()
        task = loop.create_task(alice.arenew())
        loop.run_until_complete(asyncio.sleep(0.01))
        server.wait_for_renewals(number + 1)
        loop.close()
        del loop
        wait_for(lambda number=number: alice.describe()["generation"] == number + 2)
        vars(asyncio.Task)["_log_destroy_pending"].__set__(task, False)  # it is what is tested
        del task
        gc.collect()
    # The queue of blocking calls, and two connections that idled beside their successors; not one for each loop.
    assert descriptors() <= before + 4
    assert asyncio.run(alice.atoken()).generation == 4


def test_one_loop_after_another(alice: evergrant.Session) -> None:
    asyncio.run(alice.arenew())
    before = descriptors()
    for _ in range(20):
        asyncio.run(alice.arenew())
    # A connection that idled may be open beside its successor for a while.
    assert descriptors() < before + 20


def test_closing_ends_all_waits(run: Any, open_client: OpenClient, server: Server) -> None:
    client = open_client(max_wait_ms=LIMIT_S * 1000)
    alice = client.session("alice")
    alice.save(server.sign_in())
    server.fault("delay", before_ms=500)

    async def main() -> None:
        async def read() -> list[str]:
            return [event["kind"] async for event in client.aevents()]

        reading = asyncio.create_task(read())
        waits = [asyncio.create_task(alice.arenew()) for _ in range(10)]
        await asyncio.to_thread(server.wait_for_renewals, 1)
        await client.aclose()
        results = await asyncio.gather(*waits, return_exceptions=True)
        assert {type(result) for result in results} == {evergrant.Closed}
        assert (await asyncio.wait_for(reading, LIMIT_S))[0] == "saved"

    run(main())
    assert server.rotations() == 1


def test_events_wait_without_a_thread(run: Any, alice: evergrant.Session, client: evergrant.Client) -> None:
    async def main() -> None:
        events = client.aevents(after=1)
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await alice.arenew()
        assert (await waiting)["kind"] == "renewed"

    run(main())


def test_wrong_arguments_fail_in_the_task(run: Any, alice: evergrant.Session) -> None:
    async def main() -> None:
        wrong: Any
        for wrong in (-1, "x"):
            with pytest.raises(evergrant.InvalidArgument, match="max_wait_ms"):
                await alice.atoken(max_wait_ms=wrong)
        with pytest.raises(TypeError):
            await alice.asave({"refresh_token": b"x"})
        with pytest.raises(evergrant.InvalidArgument, match="token"):
            await alice.asave("x")  # type: ignore[arg-type]

    run(main())
