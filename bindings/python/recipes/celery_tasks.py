"""Celery tasks that share one session.

    celery -A celery_tasks worker --max-tasks-per-child 100

The client is opened before Celery forks its pool, and each process goes on with what it has inherited.
"""

from __future__ import annotations

import os
from typing import Any

import requests
from celery import Celery
from celery.signals import worker_process_shutdown

import evergrant

app = Celery("tasks")

client = evergrant.Client(config_file=os.environ["EVERGRANT_CONFIG"])
alice = client.session("alice")


@worker_process_shutdown.connect
def settle(**_: Any) -> None:
    # A pool process ends by os._exit(), which runs no handlers: nothing else would wait for a renewal under way.
    client.close()


@app.task
def fetch(url: str) -> int:
    return requests.get(url, auth=alice.requests_auth(), timeout=30).status_code
