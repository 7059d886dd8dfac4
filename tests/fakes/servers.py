"""A server on loopback for as long as a test needs it, which can be told to fail."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class FakeHandler(BaseHTTPRequestHandler):
    """Answers for a fake, whose `faults` say which requests go wrong, by their numbers.

    A fault is a status, such as `503`; `aborted`, which is what two changes at once get; or `lost`:
    the change is made, and the connection ends.
    """

    protocol_version = "HTTP/1.1"
    # Without it a small answer waits 40 ms for the acknowledgement of its head.
    disable_nagle_algorithm = True
    fake: Any
    # Keys of a query that may stand there several times.
    lists: frozenset[str] = frozenset()

    def log_message(self, *_arguments):
        """Says nothing."""

    def handle_one(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        url = urlsplit(self.path)
        query = {
            key: values if key in self.lists else values[-1]
            for key, values in parse_qs(url.query).items()
        }
        with self.fake.lock:
            fault = self.fake.faults.get(len(self.fake.requests), "")
            self.fake.requests.append(f"{self.command} {url.path}")
            if fault.isdigit():
                self.answer(int(fault), self.error(int(fault), "told to fail", "UNAVAILABLE"))
                return
            if fault == "aborted":
                self.answer(409, self.error(409, "told to fail", "ABORTED"))
                return
            code, content = self.result(unquote(url.path), body, query)
        if fault == "lost":
            # The change is made, and the connection ends before a byte of the answer.
            self.close_connection = True
            return
        self.answer(code, content)

    do_GET = do_HEAD = do_POST = do_PATCH = do_DELETE = handle_one  # noqa: N815

    def result(self, path, body, query):
        """Status and content of an answer."""
        raise NotImplementedError

    def error(self, code, message, status):
        """Content of an answer that is an error."""
        raise NotImplementedError

    def answer(self, code, content):
        payload = self.render(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)

    def render(self, content):
        return json.dumps(content)


@contextlib.contextmanager
def serve(handler: type[FakeHandler], fake: Any) -> Iterator[str]:
    """Starts a server that answers for a fake; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"fake": fake}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
