"""A web server on 127.0.0.1 that does to downloads what real ones do: cut off, refuse, change, send pages."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please</body></html>"


@dataclass
class Served:
    """One file and what goes wrong with it. Faults that are counted pass after so many requests."""

    body: bytes = b""
    ranges: bool = True
    etag: str | None = '"one"'
    modified: str | None = None
    kind: str = "application/octet-stream"
    status: int = 200  # other than 200: `body` is what comes with it
    headers: dict[str, str] = field(default_factory=dict)
    broken: int = 0  # requests that are cut off half way
    busy: int = 0  # requests that are answered 503
    length: bool = True  # whether Content-Length is sent
    wrong_range: bool = False  # answers a range with another one
    stubborn: bool = False  # looks past If-Range
    seconds_a_block: float = 0.0  # a slow link, 8 KiB a block


class FaultServer(ThreadingHTTPServer):
    """`files`: path -> what is served there. `asked`: (path, Range header) of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, Served] = {}
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is what some tests do."""


class _Handler(BaseHTTPRequestHandler):
    server: FaultServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        served = self.server.files.get(self.path)
        if served is None:
            self._answer(404, b"not here", {"Content-Type": "text/plain"})
        elif served.busy:
            served.busy -= 1
            self._answer(503, b"", {**served.headers})
        elif served.status != 200:
            self._answer(served.status, served.body, {"Content-Type": served.kind, **served.headers})
        else:
            self._serve(served, wanted)

    def _serve(self, served: Served, wanted: str | None) -> None:
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and served.ranges else 0  # type: ignore[index]
        condition = self.headers.get("If-Range")
        if condition is not None and not served.stubborn and condition not in (served.etag, served.modified):
            start = 0
        if start >= len(served.body) and start:
            self._answer(416, b"", {"Content-Range": f"bytes */{len(served.body)}"})
            return
        headers = {"Content-Type": served.kind, **served.headers}
        if served.etag:
            headers["ETag"] = served.etag
        if served.modified:
            headers["Last-Modified"] = served.modified
        if start:
            shift = 1 if served.wrong_range else 0
            headers["Content-Range"] = f"bytes {start + shift}-{len(served.body) - 1}/{len(served.body)}"
        body = served.body[start:]
        cut = len(body)
        if served.broken:
            served.broken -= 1
            cut = len(body) // 2
        self._answer(206 if start else 200, body, headers, cut, served.length, served.seconds_a_block)

    def _answer(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str],
        cut: int | None = None,
        length: bool = True,
        seconds: float = 0.0,
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = body if cut is None else body[:cut]
        for at in range(0, len(sent), 8192):
            self.wfile.write(sent[at : at + 8192])
            if seconds:
                time.sleep(seconds)
        self.close_connection = True


@contextmanager
def fault_server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
