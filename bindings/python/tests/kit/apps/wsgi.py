"""The recipe for gunicorn, and one more resource, that leaves a renewal open."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import evergrant
import gunicorn_app as recipe


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] != "/leave":

        def with_pid(status: str, headers: list[tuple[str, str]]) -> Any:
            return start_response(status, [*headers, ("X-Pid", str(os.getpid()))])

        return recipe.app(environ, with_pid)
    try:
        recipe.alice.renew(max_wait_ms=500)
        answer = b"done"
    except evergrant.TimedOut:
        answer = b"open"
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
