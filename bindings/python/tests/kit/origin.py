"""An HTTP origin that answers as it is told, and remembers what it was sent."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    method: str
    path: str
    authorization: str | None
    body: bytes
    connection: int


class Origin:
    """Serves from the moment it is made until `close()`.

    `answers` holds (status, headers, body) for the next requests, and `then` what follows when they are used up.
    """

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.then: tuple[int, dict[str, str], bytes] = (200, {}, b"ok")
        self.received: list[Received] = []
        origin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Transfer-Encoding") == "chunked":
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                authorization, connection = self.headers.get("Authorization"), self.client_address[1]
                origin.received.append(Received(self.command, self.path, authorization, body, connection))
                status, headers, content = origin.answers.pop(0) if origin.answers else origin.then
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = handle_any  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def redirect(self, to: str, status: int = 307) -> None:
        self.answers.append((status, {"Location": to}, b""))

    def reject(self) -> None:
        self.answers.append((401, {"WWW-Authenticate": 'Bearer error="invalid_token"'}, b'{"error":"invalid_token"}'))

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
