"""Forks, ends of processes, signals, interpreters within an interpreter: nothing is lost, nothing is spent twice."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

import evergrant
from program import Program, run
from server import LIMIT_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from server import Server

# A server that answers a used refresh token again for a while: there, a crash loses nothing.
GRACE = {
    "rotation": {"grace": {"window_ms": 60_000, "kind": "same_pair", "reuse": "revoke"}},
    "busy_lock": False,
}


@pytest.fixture
def signed_in(site: dict[str, Any], alice: evergrant.Session) -> dict[str, Any]:
    """The configuration of a store in which alice is signed in."""
    assert alice.token().generation == 1
    return site


def generation(site: dict[str, Any]) -> Any:
    with evergrant.Client(**site) as client:
        description = client.session("alice").describe()
        assert description["attempt"] is None
        return description["generation"]


FORKS = """
import os, asyncio
client = evergrant.Client(**SITE)
alice = client.session("alice")
first = alice.access_token()
asyncio.run(alice.atoken())
loop = asyncio.new_event_loop()
loop.run_until_complete(alice.atoken())
for child in range(4):
    pid = os.fork()
    if pid == 0:
        assert alice._kept[3] == ""
        assert alice.renew(rejected=first).generation == 2
        assert asyncio.run(alice.atoken()).generation == 2
        assert loop.run_until_complete(alice.atoken()).generation == 2
        assert asyncio.run(alice.aaccess_token()) == alice.access_token() != first
        assert client.stats()["hits"] < 100
        client.close()
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
print(loop.run_until_complete(alice.arenew(rejected=first)).generation)
loop.close()
client.close()
"""


def test_forked_children_and_their_parent_go_on(signed_in: dict[str, Any], server: Server) -> None:
    assert run(FORKS, signed_in) == ["2"]
    assert server.rotations() == 1


FORKS_DURING_WAITS = """
import asyncio, os, threading
client = evergrant.Client(**SITE)
alice = client.session("alice")
first = alice.access_token()

def wait_in_a_thread():
    results.append(alice.renew(rejected=first).generation)

async def main():
    tasks = [asyncio.create_task(alice.arenew(rejected=first)) for _ in range(4)]
    await asyncio.sleep(0.2)
    pid = os.fork()
    if pid == 0:
        # The loop is the parent's; a new one, in a thread of its own, and blocking calls work.
        results.clear()
        thread = threading.Thread(target=lambda: results.append(asyncio.run(alice.arenew(rejected=first)).generation))
        thread.start()
        thread.join()
        wait_in_a_thread()
        os._exit(0 if results == [2, 2] else 1)
    results.extend(token.generation for token in await asyncio.gather(*tasks))
    assert os.waitpid(pid, 0)[1] == 0

results = []
thread = threading.Thread(target=wait_in_a_thread)
thread.start()
asyncio.run(main())
thread.join()
print(results)
client.close()
"""


def test_a_fork_during_waits_disturbs_neither(signed_in: dict[str, Any], server: Server) -> None:
    server.fault("delay", before_ms=1000)
    assert run(FORKS_DURING_WAITS, signed_in) == ["[2, 2, 2, 2, 2]"]
    assert server.rotations() == 1


MEMORY = """
import os
client = evergrant.Client(**{**SITE, "store": "memory:"})
alice = client.session("alice")
alice.save(SITE_ANSWER)
alice.access_token()
pid = os.fork()
if pid == 0:
    for call in (alice.access_token, alice.token):
        try:
            call()
        except evergrant.StoreError as error:
            print(type(error).__name__, "open a new client" in str(error))
    os._exit(0)
os.waitpid(pid, 0)
print(alice.token().generation)
"""


def test_a_memory_store_stays_with_its_process(site: dict[str, Any], server: Server) -> None:
    source = f"SITE_ANSWER = {server.sign_in()!r}\n{MEMORY}"
    assert run(source, site) == ["StoreError True", "StoreError True", "1"]


POOL = """
import multiprocessing, os
def work(number):
    return os.getpid(), alice.access_token()
client = evergrant.Client(**SITE)
alice = client.session("alice")
alice.access_token()
with multiprocessing.get_context("fork").Pool(3, maxtasksperchild=2) as pool:
    answers = pool.map(work, range(24), chunksize=1)
    pool.close()
    pool.join()
print(len({pid for pid, _ in answers}) >= 12, len({token for _, token in answers}))
client.close()
"""


def test_a_pool_that_recycles_its_workers(signed_in: dict[str, Any], server: Server) -> None:
    assert run(POOL, signed_in) == ["True 1"]
    assert server.rotations() == 0


# A child that ends while a renewal of its own is open. The server takes its time, and the child does not wait for it.
ENDS = """
import time
client = evergrant.Client(**SITE)
alice = client.session("alice")

def work():
    try:
        alice.renew(max_wait_ms=200)
    except evergrant.TimedOut:
        print("open", flush=True)

%s
"""
PLAIN_EXIT = "work()\nsys.exit(0)\n"
LAST_LINE = "work()\n"
UNCAUGHT = "work()\nimport os; os.close(2)\nraise ValueError('uncaught')\n"
MULTIPROCESSING = """
import multiprocessing
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join()
sys.exit(child.exitcode)
"""
BILLIARD = MULTIPROCESSING.replace("multiprocessing", "billiard")
FORK_AND_EXIT = """
import os
if os.fork() == 0:
    work()
    sys.exit(0)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
THREAD = """
import threading
threading.Thread(target=work).start()
"""
DAEMON = """
import threading
threading.Thread(target=alice.renew, daemon=True).start()
time.sleep(0.2)
print("open")
"""
ASYNCIO = """
import asyncio
async def main():
    try:
        await alice.arenew(max_wait_ms=200)
    except evergrant.TimedOut:
        print("open")
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (PLAIN_EXIT, 0),
        (LAST_LINE, 0),
        (UNCAUGHT, 1),
        (MULTIPROCESSING, 0),
        (BILLIARD, 0),
        (FORK_AND_EXIT, 0),
        (THREAD, 0),
        (DAEMON, 0),
        (ASYNCIO, 0),
    ],
    ids=["exit", "last line", "uncaught", "multiprocessing", "billiard", "fork", "thread", "daemon thread", "asyncio"],
)
def test_an_end_lets_an_open_renewal_settle(signed_in: dict[str, Any], server: Server, end: str, status: int) -> None:
    """With strict rotation: what is not committed is lost."""
    server.fault("delay", after_ms=1000)
    program = Program(ENDS % end, signed_in)
    assert program.line() == "open"
    assert program.end(status) == ""
    assert server.rotations() == 1
    assert generation(signed_in) == 2


FORKSERVER_CHILD = """
import sys, time, json
def work(site):
    import evergrant
    client = evergrant.Client(**site)
    try:
        client.session("alice").renew(max_wait_ms=200)
    except evergrant.TimedOut:
        print("open", flush=True)
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_that_import_the_package_first_themselves(
    signed_in: dict[str, Any], server: Server, tmp_path: Any, method: str
) -> None:
    import json
    import subprocess
    import sys

    (tmp_path / "child.py").write_text(FORKSERVER_CHILD)
    main = tmp_path / "main.py"
    main.write_text(
        "import multiprocessing, json, sys\nfrom child import work\nif __name__ == '__main__':\n"
        f"    child = multiprocessing.get_context({method!r}).Process(target=work, args=(json.loads(sys.argv[1]),))\n"
        "    child.start(); child.join(); assert 'evergrant' not in sys.modules; sys.exit(child.exitcode)\n"
    )
    server.fault("delay", after_ms=1000)
    ended = subprocess.run(
        [sys.executable, main, json.dumps(signed_in)], capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "open\n", "")
    assert generation(signed_in) == 2
    assert server.rotations() == 1


INTERRUPTED = """
client = evergrant.Client(**SITE)
alice = client.session("alice")
print("waiting")
try:
    alice.renew(max_wait_ms=60_000)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_ends_a_wait_at_once_and_loses_nothing(signed_in: dict[str, Any], server: Server) -> None:
    server.fault("delay", after_ms=2000)
    program = Program(INTERRUPTED, signed_in)
    program.line()
    server.wait_for_renewals(1)
    program.signal(signal.SIGINT)
    assert program.line() == "interrupted"
    assert server.stats()["in_flight"] == 1  # that is: before the answer
    program.end()
    assert generation(signed_in) == 2
    assert server.rotations() == 1


INTERRUPTED_IN_ASYNCIO = """
import asyncio
client = evergrant.Client(**SITE)
async def main():
    print("waiting")
    await client.session("alice").arenew(max_wait_ms=60_000)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_in_asyncio(signed_in: dict[str, Any], server: Server) -> None:
    server.fault("delay", after_ms=2000)
    program = Program(INTERRUPTED_IN_ASYNCIO, signed_in)
    program.line()
    server.wait_for_renewals(1)
    program.signal(signal.SIGINT)
    assert program.line() == "interrupted"
    assert server.stats()["in_flight"] == 1
    program.end()
    assert generation(signed_in) == 2


WAITS = """
client = evergrant.Client(**SITE)
client.session("alice").renew(max_wait_ms=60_000)
"""
HANDLER = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
# Raised in a handler, it leaves the wait; and the end of the interpreter lets the renewal settle.


def test_sigterm_with_the_handler_of_the_documentation_loses_nothing(signed_in: dict[str, Any], server: Server) -> None:
    server.fault("delay", after_ms=1000)
    program = Program(WAITS, signed_in, HANDLER)
    server.wait_for_renewals(1)
    program.signal(signal.SIGTERM)
    program.end()
    assert generation(signed_in) == 2
    assert server.rotations() == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_without_it_the_next_process_replays(
    start_server: Callable[..., Server], site: dict[str, Any], number: signal.Signals
) -> None:
    server = start_server(**GRACE)
    site = {**site, "site_url": server.url}
    with evergrant.Client(**site) as client:
        alice = client.session("alice")
        alice.save(server.sign_in())
        first = alice.access_token()
    server.fault("delay", after_ms=2000)
    program = Program(WAITS, site)
    server.wait_for_renewals(1)
    program.signal(number)
    program.end(-number)
    with evergrant.Client(**site) as client:
        assert client.session("alice").renew(rejected=first, max_wait_ms=30_000).generation == 2
    assert server.renewals() == 2


EXITS_AT_ONCE = """
import os, threading
client = evergrant.Client(**SITE)
alice = client.session("alice")
threading.Thread(target=alice.renew, daemon=True).start()
import time
time.sleep(0.5)
os._exit(3)
"""


def test_os_exit_is_a_crash_and_costs_no_more_than_one(
    start_server: Callable[..., Server], site: dict[str, Any]
) -> None:
    server = start_server(**GRACE)
    site = {**site, "site_url": server.url}
    with evergrant.Client(**site) as client:
        alice = client.session("alice")
        alice.save(server.sign_in())
        first = alice.access_token()
    server.fault("delay", after_ms=3000)
    Program(EXITS_AT_ONCE, site).end(3)
    with evergrant.Client(**site) as client:
        assert client.session("alice").renew(rejected=first, max_wait_ms=30_000).generation == 2
    assert server.renewals() == 2


SUBINTERPRETER = """
import json, textwrap
import _xxsubinterpreters as interpreters
client = evergrant.Client(**SITE)
first = client.session("alice").access_token()
program = '''
import asyncio, json, sys
sys.path[:] = {path}
import evergrant
client = evergrant.Client(**json.loads({site}))
alice = client.session("alice")
assert alice.access_token() == alice.token().access_token
assert alice.renew(rejected={first}).generation == 2
assert asyncio.run(alice.atoken()).generation == 2
client.close()
try:
    alice.token()
except evergrant.Closed:
    print("closed", flush=True)
'''.format(path=repr(sys.path), site=repr(json.dumps(SITE)), first=repr(first))
for _ in range(3):
    interpreter = interpreters.create()
    interpreters.run_string(interpreter, program)
    interpreters.destroy(interpreter)
print(client.session("alice").renew(rejected=first).generation)
client.close()
"""


def test_interpreters_within_one_process(signed_in: dict[str, Any], server: Server) -> None:
    assert run(SUBINTERPRETER, signed_in) == ["closed", "closed", "closed", "2"]
    assert server.rotations() == 1


def test_the_exit_waits_no_longer_than_it_is_told(signed_in: dict[str, Any], server: Server) -> None:
    server.fault("hang")
    start = time.monotonic()
    program = Program(ENDS % MULTIPROCESSING, {**signed_in, "exit_wait_ms": 100})
    assert program.line() == "open"
    program.end()
    assert time.monotonic() - start < LIMIT_S / 2
