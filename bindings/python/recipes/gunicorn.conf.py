"""The hook that gunicorn_app.py needs. gunicorn reads this file if it is in its working directory."""

from __future__ import annotations

from typing import Any

preload_app = True


def worker_exit(_server: Any, _worker: Any) -> None:
    # Here signals still have gunicorn's handlers. Later a SIGTERM would end the worker while it waits for a renewal.
    from gunicorn_app import client

    client.close()
