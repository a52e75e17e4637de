"""One face for the HTTP clients of three packages, blocking and asynchronous."""

from __future__ import annotations

import asyncio
from typing import Any

import evergrant

PACKAGES = ["requests", "httpx", "httpx2", "httpx-async", "httpx2-async"]


class Http:
    """A client of one of the packages, with a session's auth."""

    concurrent_limit = 64

    def __init__(self, package: str, session: evergrant.Session) -> None:
        self.package = package
        if package == "requests":
            import requests
            from requests.adapters import HTTPAdapter

            self.client: Any = requests.Session()
            self.client.auth = session.requests_auth()
            self.client.mount("http://", HTTPAdapter(pool_maxsize=self.concurrent_limit))
            return
        if package.startswith("httpx2"):
            import httpx2 as module

            auth: Any = session.httpx2_auth()
        else:
            import httpx as module  # type: ignore[no-redef]

            auth = session.httpx_auth()
        kind = module.AsyncClient if self.is_async else module.Client
        self.client = kind(auth=auth, timeout=30, follow_redirects=True)
        if self.is_async:
            self.runner = asyncio.Runner()

    @property
    def is_async(self) -> bool:
        return self.package.endswith("-async")

    def request(self, method: str, url: str, **options: Any) -> Any:
        """The answer. `content` is bytes, a file or an iterator, `json` and `data` as usual."""
        if self.is_async:
            return self.runner.run(self.arequest(method, url, **options))
        return self._request(method, url, **options)

    async def arequest(self, method: str, url: str, **options: Any) -> Any:
        return await self._request(method, url, **options)

    def _request(self, method: str, url: str, **options: Any) -> Any:
        if self.package == "requests":
            options = {"data" if name == "content" else name: value for name, value in options.items()}
            options.setdefault("timeout", 30)
        return self.client.request(method, url, **options)

    def get(self, url: str) -> Any:
        return self.request("GET", url)

    def stream(self, url: str) -> tuple[int, bytes]:
        """Status and body, read in pieces."""
        if self.package == "requests":
            with self.client.get(url, stream=True, timeout=30) as answer:
                return answer.status_code, b"".join(answer.iter_content(3))
        if not self.is_async:
            with self.client.stream("GET", url) as answer:
                return answer.status_code, b"".join(answer.iter_bytes(3))

        async def astream() -> tuple[int, bytes]:
            async with self.client.stream("GET", url) as answer:
                return answer.status_code, b"".join([piece async for piece in answer.aiter_bytes(3)])

        return self.runner.run(astream())

    def close(self) -> None:
        if self.is_async:
            self.runner.run(self.client.aclose())
            self.runner.close()
        else:
            self.client.close()
