"""A pool of forked workers that share one session.

The client is opened before the fork, and each worker goes on with what it has inherited. Whichever meets the end of the
token first renews it for all. Workers may be recycled at any time: one that ends lets its renewal finish first.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.pool import Pool

import requests

import evergrant

client = evergrant.Client(config_file=os.environ["EVERGRANT_CONFIG"])
alice = client.session("alice")


def fetch(url: str) -> int:
    return requests.get(url, auth=alice.requests_auth(), timeout=30).status_code


@contextmanager
def pool(processes: int, tasks_per_worker: int) -> Iterator[Pool]:
    workers = multiprocessing.get_context("fork").Pool(processes, maxtasksperchild=tasks_per_worker)
    # Not `with workers`: that ends in terminate(), which kills a worker with its renewal.
    try:
        yield workers
    finally:
        workers.close()
        workers.join()
