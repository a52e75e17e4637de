"""A pool of forked workers that share one session.

The client is opened before the fork, and each worker goes on with what it has inherited. Whichever meets the end of the
token first renews it for all. Workers may be recycled at any time: a worker that ends lets its renewal finish first.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import os
import signal
import sys

import evergrant
import requests

client = evergrant.Client(config_file=os.environ["EVERGRANT_CONFIG"])
alice = client.session("alice")


def fetch(url: str) -> int:
    return requests.get(url, auth=alice.requests_auth(), timeout=30).status_code


def end_in_order() -> None:
    # Pool.terminate() sends SIGTERM, also at the end of `with`. Its default action would not wait for a renewal.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def pool(processes: int, tasks_per_worker: int) -> multiprocessing.pool.Pool:
    fork = multiprocessing.get_context("fork")
    return fork.Pool(processes, initializer=end_in_order, maxtasksperchild=tasks_per_worker)
