"""Runs the recipe for multiprocessing: `pool.py load URL GENERATIONS` or `pool.py leave TASKS_PER_WORKER`."""

from __future__ import annotations

import json
import os
import sys

import evergrant
import multiprocessing_pool as recipe


def use(url: str) -> tuple[int, int]:
    return os.getpid(), recipe.fetch(url)


def leave_a_renewal_open(_: object) -> str:
    try:
        recipe.alice.renew(max_wait_ms=500)
    except evergrant.TimedOut:
        return "open"
    return "done"


def load(url: str, generations: int) -> None:
    answers: list[tuple[int, int]] = []
    with recipe.pool(processes=4, tasks_per_worker=5) as pool:
        while (recipe.alice.token().generation or 0) < generations:
            answers += pool.map(use, [url] * 20, chunksize=1)
    sys.stdout.write(json.dumps(answers))


def leave(tasks_per_worker: int) -> None:
    with recipe.pool(1, tasks_per_worker) as pool:
        sys.stdout.write(json.dumps(pool.apply(leave_a_renewal_open, [None])))


if __name__ == "__main__":
    if sys.argv[1] == "load":
        load(sys.argv[2], int(sys.argv[3]))
    else:
        leave(int(sys.argv[2]))
