"""A container registry on the loopback: as much of the distribution API as push and pull use."""

import contextlib
import hashlib
import re
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Registry(ThreadingHTTPServer):
    """Keeps blobs by digest, and manifests by repository and by tag or digest."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.blobs = {}
        self.uploads = {}
        self.manifests = {}

    @property
    def host(self):
        """As it stands in an image name."""
        return f"127.0.0.1:{self.server_port}"


def digest_of(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Registry

    def log_message(self, *_):
        """Says nothing."""

    def _answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def do_GET(self):
        path = urlsplit(self.path).path
        if path == "/v2/":
            self._answer(200)
        elif found := re.fullmatch(r"/v2/(.+)/blobs/(sha256:\w+)", path):
            self._give(self.server.blobs.get(found[2]), "application/octet-stream")
        elif found := re.fullmatch(r"/v2/(.+)/manifests/(.+)", path):
            content, kind = self.server.manifests.get(found.groups(), (None, ""))
            self._give(content, kind)
        else:
            self._answer(404)

    do_HEAD = do_GET  # noqa: N815

    def _give(self, content, kind):
        if content is None:
            self._answer(404)
        else:
            self._answer(200, content, Content_Type=kind, Docker_Content_Digest=digest_of(content))

    def do_POST(self):
        self._body()
        upload = uuid.uuid4().hex
        self.server.uploads[upload] = b""
        self._accept(f"{urlsplit(self.path).path}{upload}")

    def do_PATCH(self):
        path = urlsplit(self.path).path
        self.server.uploads[path.rpartition("/")[2]] += self._body()
        self._accept(path)

    def _accept(self, location):
        size = len(self.server.uploads[location.rpartition("/")[2]])
        self._answer(202, Location=location, Range=f"0-{max(size - 1, 0)}")

    def do_PUT(self):
        parts = urlsplit(self.path)
        body = self._body()
        if found := re.fullmatch(r"/v2/(.+)/manifests/(.+)", parts.path):
            repository, reference = found.groups()
            manifest = (body, self.headers["Content-Type"])
            self.server.manifests[repository, reference] = manifest
            self.server.manifests[repository, digest_of(body)] = manifest
            self._answer(201, Docker_Content_Digest=digest_of(body))
            return
        content = self.server.uploads.pop(parts.path.rpartition("/")[2]) + body
        (expected,) = parse_qs(parts.query)["digest"]
        if digest_of(content) != expected:
            self._answer(400)
            return
        self.server.blobs[expected] = content
        self._answer(201, Docker_Content_Digest=expected)


@contextlib.contextmanager
def local_registry():
    """Yields a registry that answers until the block ends."""
    with Registry() as registry:
        threading.Thread(target=registry.serve_forever, daemon=True).start()
        yield registry
        registry.shutdown()
