"""The recipes for process pools, with the real thing: multiprocessing, Celery and gunicorn, also on PostgreSQL.

Workers are recycled all the time, and one session stays renewed with one request for each life of a token.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import celery
import httpx
import pytest

import evergrant
from server import LIMIT_S, Server, wait_for
from stores import Postgres

HERE = Path(__file__).parent
RECIPES = HERE.parents[1] / "recipes"
PATH = "/services/data/v59.0/limits"
LIFE_S = 2
# A token is renewed in the last fifth of its life, which begins when its request is sent.
LEAST_GAP_MS = 1000 * LIFE_S * 4 // 5 - 100
GENERATIONS = 4


@pytest.fixture
def life_s() -> int:
    return LIFE_S


@pytest.fixture
def environment(
    server: Server, site: dict[str, Any], sign_in: Callable[..., evergrant.Session], tmp_path: Path, life_s: int
) -> dict[str, str]:
    """For a program that uses the session "alice". The server takes its time to renew."""
    configuration = {**site, "session_lifetime_s": life_s}
    (tmp_path / "config.json").write_text(json.dumps(configuration))
    (tmp_path / "celery").mkdir()
    for name in ("queue", "control", "results"):
        (tmp_path / "celery" / name).mkdir()
    assert sign_in(session_lifetime_s=life_s).client.close()
    server.set(latency_ms=100)
    paths = [str(HERE / "apps"), str(RECIPES), *sys.path]
    return {
        **os.environ,
        "EVERGRANT_CONFIG": str(tmp_path / "config.json"),
        "CELERY_DIRECTORY": str(tmp_path / "celery"),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }


def assert_one_renewal_for_each_life(server: Server) -> None:
    renewals = server.log()
    assert len(renewals) >= GENERATIONS - 1
    assert {(renewal["outcome"], renewal["reply"]) for renewal in renewals} == {("ok", "written")}
    times = [renewal["at_ms"] for renewal in renewals]
    assert min(later - earlier for earlier, later in pairwise(times)) >= LEAST_GAP_MS
    first = server.control("tokens")[0]["access_tokens"][0]["token"]
    lives = [first, *(renewal["issued_access_token"] for renewal in renewals)]
    used = {entry["token"] for entry in server.log("resource")}
    # The first may have ended before the workers were there, and the last may not be used any more.
    assert set(lives[1:-1]) <= used <= set(lives)


def assert_nothing_was_lost(server: Server, open_client: Callable[..., evergrant.Client]) -> None:
    """The renewal that was left open has ended, and the store has what it brought."""
    (renewal,) = server.log()
    assert (renewal["outcome"], renewal["reply"]) == ("ok", "written")
    alice = open_client().session("alice")
    assert alice.describe()["state"] == "active"
    assert alice.access_token() == renewal["issued_access_token"]
    assert server.renewals() == 1


def be_slow(server: Server) -> None:
    """The next renewal's answer comes when the process that has asked for it has long decided to end."""
    server.fault("delay", after_ms=2000)


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server program in a process group of its own, of which nothing is left at the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        sys.stdout.write(log.read_text())


# ---- multiprocessing ----


def run_pool(environment: dict[str, str], *arguments: str) -> Any:
    program = [sys.executable, str(HERE / "apps" / "pool.py"), *arguments]
    done = subprocess.run(program, env=environment, stdout=subprocess.PIPE, timeout=LIMIT_S, check=True)
    return json.loads(done.stdout)


def test_a_fork_pool_shares_one_session(environment: dict[str, str], server: Server) -> None:
    answers = run_pool(environment, "load", server.url + PATH, str(GENERATIONS))
    assert {status for _, status in answers} == {200}
    assert len({pid for pid, _ in answers}) > 8
    assert_one_renewal_for_each_life(server)


@pytest.mark.parametrize("life_s", [3600])
@pytest.mark.parametrize("tasks_per_worker", [1, 100])
def test_a_worker_of_a_pool_that_ends_loses_nothing(
    environment: dict[str, str], server: Server, open_client: Callable[..., evergrant.Client], tasks_per_worker: int
) -> None:
    be_slow(server)
    assert run_pool(environment, "leave", str(tasks_per_worker)) == "open"
    assert_nothing_was_lost(server, open_client)


# ---- Celery ----


@pytest.fixture
def celery_app(environment: dict[str, str]) -> Iterator[celery.Celery]:
    """To send tasks with."""
    directory = environment["CELERY_DIRECTORY"]
    folders = dict.fromkeys(("data_folder_in", "data_folder_out"), f"{directory}/queue")
    app = celery.Celery(broker="filesystem://", backend=f"file://{directory}/results")
    app.conf.broker_transport_options = {**folders, "control_folder": f"{directory}/control"}
    with app:
        yield app


@contextmanager
def celery_worker(
    environment: dict[str, str], log: Path, processes: int, tasks_per_child: int
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--pool", "prefork", "--loglevel", "INFO"]
    command += ["--concurrency", str(processes), "--max-tasks-per-child", str(tasks_per_child)]
    with running(command, environment, log) as worker:
        wait_for(lambda: b" ready." in log.read_bytes() or worker.poll() is not None)
        yield worker
        worker.terminate()
        assert worker.wait(LIMIT_S) == 0


def children(process: subprocess.Popen[bytes]) -> set[int]:
    threads = Path(f"/proc/{process.pid}/task").glob("*/children")
    return {int(pid) for thread in threads for pid in thread.read_text().split()}


def wait_until_nothing_is_recycled(worker: subprocess.Popen[bytes]) -> None:
    """Billiard forgets a process that it starts just when it is told to end, and then waits for it for ever."""
    known, since = children(worker), time.monotonic()
    while time.monotonic() < since + 3:
        time.sleep(0.1)
        if children(worker) != known:
            known, since = children(worker), time.monotonic()


def test_a_celery_worker_shares_one_session(
    environment: dict[str, str], celery_app: celery.Celery, server: Server, tmp_path: Path
) -> None:
    answers: list[tuple[int, int]] = []
    with celery_worker(environment, tmp_path / "log", processes=3, tasks_per_child=4) as worker:
        while server.renewals() < GENERATIONS - 1:
            sent = [celery_app.send_task("celery_app.use", [server.url + PATH]) for _ in range(10)]
            answers += [task.get(timeout=LIMIT_S, interval=0.02) for task in sent]
        wait_until_nothing_is_recycled(worker)
    assert {status for _, status in answers} == {200}
    assert len({pid for pid, _ in answers}) > 3
    assert_one_renewal_for_each_life(server)


@pytest.mark.parametrize("life_s", [3600])
@pytest.mark.parametrize("tasks_per_child", [1, 100])
def test_a_celery_process_that_ends_loses_nothing(
    environment: dict[str, str],
    celery_app: celery.Celery,
    server: Server,
    open_client: Callable[..., evergrant.Client],
    tmp_path: Path,
    tasks_per_child: int,
) -> None:
    be_slow(server)
    with celery_worker(environment, tmp_path / "log", processes=1, tasks_per_child=tasks_per_child) as worker:
        first = children(worker)
        assert len(first) == 1
        left = celery_app.send_task("celery_app.leave_a_renewal_open")
        assert left.get(timeout=LIMIT_S, interval=0.02) == "open"
        if tasks_per_child == 1:
            wait_for(lambda: not first & children(worker))
            wait_until_nothing_is_recycled(worker)
    assert_nothing_was_lost(server, open_client)


# ---- gunicorn ----


@contextmanager
def gunicorn(
    environment: dict[str, str], directory: Path, workers: int, max_requests: int
) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    socket = directory / "socket"
    command = [sys.executable, "-m", "gunicorn", "wsgi:app", "--config", str(RECIPES / "gunicorn.conf.py")]
    command += [
        "--bind",
        f"unix:{socket}",
        "--no-control-socket",
        "--workers",
        str(workers),
        "--max-requests",
        str(max_requests),
    ]
    with ExitStack() as stack:
        master = stack.enter_context(running(command, environment, directory / "log"))
        wait_for(lambda: socket.exists() or master.poll() is not None)
        transport = httpx.HTTPTransport(uds=str(socket))
        http = stack.enter_context(httpx.Client(transport=transport, base_url="http://app", timeout=LIMIT_S))
        yield master, http
        master.terminate()
        assert master.wait(LIMIT_S) == 0


def test_a_preloaded_gunicorn_server_shares_one_session(
    environment: dict[str, str], server: Server, tmp_path: Path
) -> None:
    answers: list[httpx.Response] = []
    reloads = 0
    with gunicorn(environment, tmp_path, workers=3, max_requests=5) as (master, http), ThreadPoolExecutor(3) as pool:
        while server.renewals() < GENERATIONS - 1:
            answers += pool.map(http.get, [PATH] * 12)
            if reloads < server.renewals():
                master.send_signal(signal.SIGHUP)
                reloads += 1
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["X-Pid"] for answer in answers}) > 6
    assert reloads >= GENERATIONS - 2
    assert_one_renewal_for_each_life(server)


@pytest.mark.parametrize("life_s", [3600])
@pytest.mark.parametrize("how", ["recycled", "reloaded", "terminated"])
def test_a_gunicorn_worker_that_ends_loses_nothing(
    environment: dict[str, str],
    server: Server,
    open_client: Callable[..., evergrant.Client],
    tmp_path: Path,
    how: str,
) -> None:
    be_slow(server)
    max_requests = 1 if how == "recycled" else 100
    with gunicorn(environment, tmp_path, workers=1, max_requests=max_requests) as (master, http):
        assert http.get("/leave").text == "open"
        if how == "reloaded":
            master.send_signal(signal.SIGHUP)
            wait_for(lambda: (tmp_path / "log").read_bytes().count(b"Worker exiting") == 1)
    assert_nothing_was_lost(server, open_client)


# ---- both, on PostgreSQL ----


def machine(environment: dict[str, str], directory: Path) -> dict[str, str]:
    """What a program has on a machine of its own: its configuration, its key, its home."""
    directory.mkdir()
    configuration = json.loads(Path(environment["EVERGRANT_CONFIG"]).read_text())
    shutil.copy(configuration["encryption_key_file"], directory / "evergrant.key")
    (directory / "config.json").write_text(json.dumps({**configuration, "encryption_key_file": "evergrant.key"}))
    return {
        **environment,
        "EVERGRANT_CONFIG": str(directory / "config.json"),
        "HOME": str(directory),
        "XDG_STATE_HOME": str(directory / "state"),
    }


def test_gunicorn_and_celery_share_one_session_on_postgresql(
    on_postgres: Postgres,
    environment: dict[str, str],
    celery_app: celery.Celery,
    server: Server,
    tmp_path: Path,
) -> None:
    web, work = tmp_path / "web", tmp_path / "work"
    answers: list[httpx.Response] = []
    tasks: list[tuple[int, int]] = []
    reloads = 0
    with (
        gunicorn(machine(environment, web), web, workers=3, max_requests=5) as (master, http),
        celery_worker(machine(environment, work), work / "log", processes=2, tasks_per_child=4) as worker,
        ThreadPoolExecutor(3) as pool,
    ):
        while server.renewals() < GENERATIONS - 1:
            sent = [celery_app.send_task("celery_app.use", [server.url + PATH]) for _ in range(6)]
            answers += pool.map(http.get, [PATH] * 9)
            tasks += [task.get(timeout=LIMIT_S, interval=0.02) for task in sent]
            if reloads < server.renewals():
                master.send_signal(signal.SIGHUP)
                reloads += 1
        wait_until_nothing_is_recycled(worker)
    assert {answer.status_code for answer in answers} == {status for _, status in tasks} == {200}
    assert len({answer.headers["X-Pid"] for answer in answers}) > 3
    assert len({pid for pid, _ in tasks}) > 2
    assert_one_renewal_for_each_life(server)
    # The database holds no token.
    (family,) = server.control("tokens")
    issued = [token["token"] for kind in ("access_tokens", "refresh_tokens") for token in family[kind]]
    dump = on_postgres.dump()
    assert len(issued) > GENERATIONS
    assert b"alice" in dump
    assert not [token for token in issued if token.encode() in dump]
