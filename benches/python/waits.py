"""1,000 sessions that wait for their renewals in one event loop: how many threads that takes.

To be run by tests/with-server.sh.
"""

import asyncio
import json
import os
import urllib.request
from pathlib import Path
from typing import Any

import evergrant
from rounds import row

WAITS = 1000


def control(path: str, body: Any = None, method: str | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(os.environ["EVERGRANT_TEST_SERVER"] + path, data, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def threads() -> tuple[int, int]:
    """This process's threads: those of the library, and others."""
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    library = sum(name.startswith("evergrant") for name in names)
    return library, len(names) - library


async def main() -> None:
    config = {"client_id": "client", "client_secret": "secret", "store": "memory:", "max_wait_ms": 60_000}
    async with evergrant.Client(token_endpoint=os.environ["EVERGRANT_TEST_SITE"] + "/token", **config) as client:
        sessions = [client.session(f"user-{number}") for number in range(WAITS)]
        for session in sessions:
            await session.asave({"refresh_token": control("/sign_in", {"client_id": "client"})["refresh_token"]})
        _, before = threads()
        control("/faults", {"fault": "delay", "count": None, "before_ms": 1000})
        waits = [asyncio.create_task(session.aaccess_token()) for session in sessions]
        await asyncio.sleep(0.5)
        assert not any(wait.done() for wait in waits)
        library, others = threads()
        control("/faults", method="DELETE")
        await asyncio.gather(*waits)
    row("Python: 1,000 pending waits in asyncio: threads that they add", "", "0", [others - before])
    row("  threads of the library", "", "", [library])


asyncio.run(main())
