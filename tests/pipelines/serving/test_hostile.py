"""Requests that mean no good, drawn from a seed: each is refused with a reason, or cut off."""

import base64
import io
import json
import random
import socket
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.builders import draw_photo, encode
from tests.pipelines.serving.running import running_server

pytestmark = pytest.mark.hostile
COUNT = 2000
PREDICT = "/v1/models/flowers:predict"
_HUGE = 100 * 2**20


def photo(rng):
    return encode(draw_photo(rng.randrange(3), rng.randrange(99)), quality=90)


def raw(body, kind="image/jpeg", path=PREDICT, method="POST"):
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def as_json(content):
    return raw(json.dumps(content).encode(), "application/json")


def not_json(rng):
    return raw(rng.randbytes(rng.randrange(400)), "application/json")


def wrong_base64(rng):
    text = "".join(rng.choices("ABCab+/=!? ü\0", k=rng.randrange(1, 50))) + "!"
    return as_json({"instances": [{"b64": text}]})


def wrong_shape(rng):
    deep: list[Any] = [[]]
    for _ in range(rng.randrange(50)):
        deep = [deep]
    bodies = [
        {"instances": {"b64": "eA=="}},
        {"instances": [deep]},
        {"inputs": {"x": [1]}},
        [],
        "x",
        None,
        {"instances": [{"image_bytes": [1, 2]}]},
        {"instances": [None]},
        {"instances": [1e308] * 9},
        {"instances": [{"b64": "eA=="}] * 500},
        {"signature_name": ["x"], "instances": [{}]},
        {"signature_name": {"a": 1}, "instances": [{}]},
        {"INSTANCES": []},
    ]
    return as_json(rng.choice(bodies))


def deep_json(rng):
    return raw(rng.choice([b"[", b'{"a":']) * rng.randrange(1000, 100_000), "application/json")


def png_bomb(rng):
    """A header that promises more pixels than memory holds, and a stream that would fill them."""
    width, height = rng.choice([(60_000, 60_000), (2**31 - 1, 2**31 - 1), (50_000, 30_000)])
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    stream = zlib.compress(bytes(2**20))

    def chunk(name, content):
        crc = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)

    parts = [chunk(b"IHDR", header), chunk(b"IDAT", stream), chunk(b"IEND", b"")]
    return raw(b"\x89PNG\r\n\x1a\n" + b"".join(parts), "image/png")


def wide_jpeg(rng):
    content = bytearray(photo(rng))
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", 65_000, 65_000)
    return raw(bytes(content))


def truncated(rng):
    content = photo(rng)
    return raw(content[: rng.randrange(len(content) - 20)])


def scans(rng):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    start = content.index(b"\xff\xda")
    return raw(content[:-2] + content[start:-2] * rng.randrange(300, 600) + b"\xff\xd9")


def other_format(rng):
    return raw(encode(draw_photo(0, 0), rng.choice(["TIFF", "PPM", "ICO", "PCX", "TGA"])))


def tiny(rng):
    return raw(encode(Image.new("RGB", (rng.randrange(1, 31), 3)), "PNG"))


def path_trick(rng):
    paths = [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc/passwd",
        "//etc/passwd",
        "/app.js/../../app.py",
        "/style.css%00.py",
        "/v1/models/../../x:predict",
        "/v1/models/%00",
        "/v1/models/flowers:predict/../..",
        "/.git/config",
        "/static/app.js",
        "/app.js%2f",
        "/\\..\\x",
        "/" + "a" * 20_000,
        "/model-card.md/.",
    ]
    return raw(b"", path=rng.choice(paths), method=rng.choice(["GET", "POST"]))


def wrong_method(rng):
    return raw(b"x", method=rng.choice(["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS"]))


def no_http(rng):
    first = [
        b"\x16\x03\x01\x02\x00",
        b"SSH-2.0-x\r\n\r\n",
        b"GET\r\n\r\n",
        b"\0" * 99,
        b"GET / HTTP/9.9\r\n\r\n",
    ]
    return rng.choice(first) + b"\r\n\r\n"


def long_headers(rng):
    name = "X-" + "y" * rng.randrange(1, 40)
    return f"GET / HTTP/1.1\r\nHost: x\r\n{name}: {'z' * 70_000}\r\n\r\n".encode()


def lying_length(rng):
    length = rng.choice(["-1", "1e3", "99999999999999999999", "0x10", "5, 6"])
    return f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\nx".encode()


def smuggled(rng):
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
    return (head + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n").encode()


KINDS = [
    not_json,
    wrong_base64,
    wrong_shape,
    deep_json,
    png_bomb,
    wide_jpeg,
    truncated,
    scans,
    other_format,
    tiny,
    path_trick,
    wrong_method,
    no_http,
    long_headers,
    lying_length,
    smuggled,
]


def send(server, content):
    """The status code and body of the answer; 0 when the server cut the connection off."""
    with socket.create_connection((server.host, server.port), timeout=20) as client:
        received = bytearray()
        try:
            client.sendall(content)
            while part := client.recv(2**16):
                received += part
        except (ConnectionResetError, BrokenPipeError):
            pass
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    return (int(head.split(b" ")[1]) if head else 0), body


def send_good(server, rng):
    code, body = send(server, raw(photo(rng)))
    assert code == 200, body
    assert json.loads(body)["predictions"][0]["label"] in {"circles", "squares", "stripes"}


@pytest.fixture(scope="module")
def server(saved_model):
    limits: dict[str, Any] = {"max_body": 16, "body_timeout": 2.0, "max_memory": 64}
    with running_server(saved_model, **limits) as running:
        yield running


def test_two_thousand_requests(server):
    rng = random.Random(20)
    codes: Counter[tuple[str, int]] = Counter()
    for number in range(COUNT):
        kind = KINDS[number % len(KINDS)]
        code, body = send(server, kind(rng))
        codes[kind.__name__, code] += 1
        assert 400 <= code < 500, (number, kind.__name__, code, body[:200])
        assert body, kind
        if body.startswith(b"{"):
            assert json.loads(body)["error"]
        if number % 10 == 0:
            send_good(server, rng)
    assert sum(codes.values()) == COUNT
    assert all(
        codes[kind.__name__, 400] or codes[kind.__name__, 404] or codes[kind.__name__, 405]
        for kind in KINDS
    )


def resident(name="VmRSS"):
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) // 1024


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_hundred_megabytes(server, declared):
    """Refused at once when it says how large it is, and at the limit when not; never held."""
    block = b"x" * 2**16
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
    head += f"Content-Length: {_HUGE}\r\n\r\n" if declared else "Transfer-Encoding: chunked\r\n\r\n"
    before = resident()
    for _ in range(4):
        with socket.create_connection((server.host, server.port), timeout=20) as client:
            client.sendall(head.encode())
            for _ in range(_HUGE // len(block)):
                client.sendall(block if declared else b"10000\r\n" + block + b"\r\n")
            received = client.recv(10_000)
        assert received.startswith(b"HTTP/1.1 413"), received[:100]
        assert b"expected at most 16 MiB" in received
    # The test itself runs in this process too.
    assert resident() - before < 150
    send_good(server, random.Random(0))


def test_slow_senders_do_not_keep_others_waiting(server):
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode()
    slow = [socket.create_connection((server.host, server.port), timeout=20) for _ in range(200)]
    for number, client in enumerate(slow):
        client.sendall(head[: 20 + number] if number % 2 else head + b"x" * number)
    send_good(server, random.Random(1))
    for client in slow:
        with client:
            assert client.recv(1000).startswith(b"HTTP/1.1 408")
    send_good(server, random.Random(2))


def test_bombs_at_the_same_time(server):
    rng = random.Random(3)
    # Made first: whoever connects and says nothing for long is turned away.
    bombs = [rng.choice([png_bomb, wide_jpeg, scans])(rng) for _ in range(40)]
    clients = [socket.create_connection((server.host, server.port), timeout=20) for _ in bombs]
    for client, bomb in zip(clients, bombs, strict=True):
        client.sendall(bomb)
    for client in clients:
        with client:
            assert client.recv(1000).startswith(b"HTTP/1.1 400")
    send_good(server, rng)


def test_base64_of_a_good_photo_with_a_tail(server):
    content = base64.b64encode(photo(random.Random(4))).decode()
    code, body = send(server, as_json({"instances": [{"b64": content + "\n--"}]}))
    assert code == 400
    assert b"the base64 is wrong" in body
