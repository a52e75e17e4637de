"""A WSGI application that shares one session among gunicorn's workers.

    gunicorn --config gunicorn.conf.py gunicorn_app:app

That file preloads it: the client is opened once, before the fork, and each worker goes on with what it has
inherited. Without preloading each worker opens its own on the same store, which is as good.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import requests

import evergrant

client = evergrant.Client(config_file=os.environ["EVERGRANT_CONFIG"])
alice = client.session("alice")


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    url = alice.token()["instance_url"] + environ["PATH_INFO"]
    answer = requests.get(url, auth=alice.requests_auth(), timeout=30)
    start_response(f"{answer.status_code} {answer.reason}", [("Content-Type", answer.headers["Content-Type"])])
    return [answer.content]
