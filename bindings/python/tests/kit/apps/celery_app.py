"""The recipe for Celery, with a broker and results in the directory CELERY_DIRECTORY, and one more task."""

from __future__ import annotations

import os
from pathlib import Path

import evergrant
from celery_tasks import alice, app, fetch

directory = Path(os.environ["CELERY_DIRECTORY"])
app.conf.update(
    broker_url="filesystem://",
    broker_transport_options={
        "data_folder_in": str(directory / "queue"),
        "data_folder_out": str(directory / "queue"),
        "control_folder": str(directory / "control"),
        "polling_interval": 0.05,
    },
    result_backend=f"file://{directory}/results",
    worker_prefetch_multiplier=1,
)


@app.task
def use(url: str) -> tuple[int, int]:
    return os.getpid(), fetch(url)


@app.task
def leave_a_renewal_open() -> str:
    try:
        alice.renew(max_wait_ms=500)
    except evergrant.TimedOut:
        return "open"
    return "done"
