"""A handler of a serverless platform: its instances share one session, and are frozen between requests.

Its configuration, and why it is so: docs/serverless.md.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from typing import Any

import requests

import evergrant

# What this instance sets aside when the store cannot be reached. There may be no home directory, or a read-only one.
os.environ.setdefault("XDG_STATE_HOME", tempfile.gettempdir())


@cache
def session() -> evergrant.Session:
    # At the first request, and once: not in a snapshot of the instance, and not again for each request.
    return evergrant.Client(config_file=os.environ["EVERGRANT_CONFIG"]).session("alice")


def handler(event: dict[str, Any], _context: Any = None) -> dict[str, Any]:
    url = session().token()["instance_url"] + event["path"]
    answer = requests.get(url, auth=session().requests_auth(), timeout=30)
    return {"statusCode": answer.status_code, "body": answer.text}
