"""A real Cloud Storage server on this machine, and a proxy in front of it that fails on purpose."""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Fault = Callable[["_Handler"], bool]
# Which of the tries for one address fails, and how: the first, say.
Plan = Callable[[str, int], str]


@contextmanager
def emulator() -> Iterator[str]:
    """Runs gcp-storage-emulator in memory; gives its address."""
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    port = server._api._httpd.socket.getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()


class FaultyProxy:
    """Passes requests on to a server; `plan` says which ones go wrong.

    Attributes:
        plan: Path of a request and how often it was asked for before -> a fault: `429`, `503`,
            `reset`, `cut`, `flip` or `stall`; anything else passes on.
        asked: How often each path was asked for.
        faults: How often each fault was played.
    """

    def __init__(self, target: str) -> None:
        self.target = urlsplit(target).netloc
        self.plan: Plan = lambda path, tries: ""
        self.asked: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.lock = threading.Lock()
        self._server = _QuietServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.proxy = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FaultyProxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def choose(self, path: str) -> str:
        with self.lock:
            fault = self.plan(path, self.asked[path])
            self.asked[path] += 1
            if fault:
                self.faults[fault] += 1
            return fault


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of clients that hang up, which is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Says nothing."""

    def _handle(self) -> None:
        proxy: FaultyProxy = self.server.proxy  # type: ignore[attr-defined]
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        fault = proxy.choose(f"{self.command} {unquote(urlsplit(self.path).path)}")
        if fault.isdigit():
            self._answer(int(fault), [], b'{"error": {"message": "on purpose"}}')
            return
        if fault == "reset":
            self.close_connection = True
            self.connection.shutdown(2)
            return
        status, headers, content = self._ask(proxy.target, body)
        if fault == "flip" and content:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self._answer(status, headers, content, fault)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _handle  # noqa: N815

    def _ask(self, target: str, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(target, timeout=10)
        headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        kept = [
            (name, value)
            for name, value in answer.getheaders()
            if name.lower() not in ("transfer-encoding", "content-length", "connection", "date")
        ]
        return answer.status, kept, content

    def _answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, fault: str = ""
    ) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault in ("cut", "stall"):
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            if fault == "stall":
                time.sleep(1.0)
            self.close_connection = True
            self.connection.shutdown(2)
            return
        self.wfile.write(content)
