"""The server beside a bare loop of decoding and `model(x)`: throughput, latency, memory, overload.

Needs wrk (Debian's package of that name), an exported model and a folder of photos:

    python -m benchmarks.serving throughput --model runs/RUN --photos photos
    python -m benchmarks.serving latency --model runs/RUN --photos photos
    python -m benchmarks.serving memory --model runs/RUN --photos photos
    python -m benchmarks.serving overload --model runs/RUN --photos photos

All requests go over loopback to a `flowers serve` of its own process, one photo each, in the JSON
of TensorFlow Serving.
"""

import asyncio
import base64
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import requests

_PATH = "/v1/models/flowers:predict"
_BATCH = 32
_SCRIPT = """
local bodies = {}
for file in io.popen("ls " .. os.getenv("BODIES") .. "/*.json"):lines() do
  local opened = io.open(file, "rb")
  bodies[#bodies + 1] = opened:read("*all")
  opened:close()
end
local number = 0
request = function()
  number = number + 1
  local body = bodies[number % #bodies + 1]
  return wrk.format("POST", nil, { ["Content-Type"] = "application/json" }, body)
end
"""


class _Bench:
    """What the measurements share: photos, the model, and a server."""

    def __init__(self, model: Path, photos: Path, count: int) -> None:
        files = sorted(photos.rglob("*.jpg"))
        step = max(1, len(files) // count)
        self.photos = [file.read_bytes() for file in files[::step][:count]]
        self.model = model
        if not self.photos:
            raise click.UsageError(f"--photos {photos}: holds no .jpg file")
        size = statistics.mean(len(photo) for photo in self.photos)
        _show("machine", f"{os.cpu_count()} cores, {_cpu()}, Python {platform.python_version()}")
        _show("photos", f"{len(self.photos)} of {size / 1024:.0f} KiB in the mean")

    def bodies(self) -> list[bytes]:
        return [
            json.dumps({"instances": [{"b64": base64.b64encode(one).decode()}]}).encode()
            for one in self.photos
        ]

    @contextlib.contextmanager
    def server(self) -> Iterator["_Server"]:
        command = [sys.executable, "-m", "pipelines", "serve", str(self.model), "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            server = _Server(process.pid, line.strip().rpartition(" ")[2])
            server.wait()
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


class _Server:
    """A `flowers serve` that runs."""

    def __init__(self, pid: int, address: str) -> None:
        self.pid, self.address = pid, address
        self.host, _, port = address.removeprefix("http://").partition(":")
        self.port = int(port)

    def wait(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{self.address}/readyz", timeout=5).ok:
                    return
            time.sleep(0.1)
        raise RuntimeError("the server did not become ready")

    def memory(self) -> float:
        """Resident memory, in MiB."""
        text = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert found
        return int(found[1]) / 1024


def _cpu() -> str:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    found = re.search(r"model name\s*: (.+)", text)
    return found[1] if found else platform.machine()


def _show(name: str, value: str) -> None:
    click.echo(f"{name:<46} {value}")


def _wrk(server: _Server, bodies: list[bytes], seconds: int, connections: int) -> float:
    """Good answers per second under wrk."""
    program = shutil.which("wrk")
    if program is None:
        raise click.UsageError("wrk is not installed: sudo apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        for number, body in enumerate(bodies):
            Path(folder, f"{number:04d}.json").write_bytes(body)
        script = Path(folder, "post.lua")
        script.write_text(_SCRIPT, encoding="utf-8")
        arguments = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s"]
        finished = subprocess.run(  # noqa: S603
            [program, *arguments, "-s", str(script), server.address + _PATH],
            env=os.environ | {"BODIES": folder},
            capture_output=True,
            text=True,
            check=True,
        )
    total = re.search(r"(\d+) requests in ([\d.]+)(s|m)", finished.stdout)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", finished.stdout)
    assert total, finished.stdout
    if bad:
        raise RuntimeError(f"{bad[1]} requests were refused: {finished.stdout}")
    return int(total[1]) / (float(total[2]) * (60 if total[3] == "m" else 1))


def _options(function: Any) -> Any:
    path = click.Path(exists=True, path_type=Path)
    function = click.option("--photos", type=path, required=True, help="Folder of photos.")(
        function
    )
    return click.option("--model", type=path, required=True, help="A run or a SavedModel.")(
        function
    )


@click.group()
def main() -> None:
    """Measures flowers serve."""


@main.command()
@_options
@click.option("--rounds", default=3, show_default=True, help="Each way is timed so many times.")
@click.option("--seconds", default=15, show_default=True, help="Of each round of wrk.")
def throughput(model: Path, photos: Path, rounds: int, seconds: int) -> None:
    """Images per second: the server under wrk, and the bare loop, in turn."""
    bench = _Bench(model, photos, 256)
    command = [
        sys.executable,
        "-m",
        "benchmarks.serving",
        "bare",
        "--model",
        str(model),
        "--photos",
        str(photos),
    ]
    bare, ours = [], []
    bodies = bench.bodies()
    for number in range(rounds):
        finished = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
        bare.append(float(finished.stdout.split()[-1]))
        with bench.server() as server:
            _wrk(server, bodies, 3, 64)
            ours.append(_wrk(server, bodies, seconds, 64))
        _show(f"round {number + 1}: server, bare loop", f"{ours[-1]:.0f}, {bare[-1]:.0f} images/s")
    _show("server, median", f"{statistics.median(ours):.0f} images/s")
    _show("bare loop, median", f"{statistics.median(bare):.0f} images/s")
    _show("ratio", f"{statistics.median(ours) / statistics.median(bare):.2f}")


@main.command(hidden=True)
@_options
def bare(model: Path, photos: Path) -> None:
    """The bare loop: decode a batch, then `model(x)`, in one process and one thread of ours."""
    from components.common.resizing import resize_of
    from components.common.step import import_tensorflow_quietly
    from components.ingest_examples.photos import decode_square
    from pipelines.serving.model import saved_model_at

    import_tensorflow_quietly()
    import keras
    import numpy as np
    import tensorflow as tf

    bench = _Bench(model, photos, 256)
    with saved_model_at(str(model)) as folder:
        metadata = json.loads((folder / "assets.extra/flowers.json").read_text())
        square = metadata["image_size"], resize_of(metadata)
        net = keras.models.load_model(folder.parent / _keras_file(folder), compile=False)
    graph = tf.function(lambda images: net(images, training=False))
    ways: dict[str, Callable[[Any], Any]] = {
        "eager": lambda x: net(x, training=False),
        "graph": graph,
    }
    batches = [bench.photos[i : i + _BATCH] for i in range(0, len(bench.photos), _BATCH)]
    speeds = {}
    for name, way in ways.items():
        for turn in range(2):
            rounds = 1 if turn == 0 else 6
            began = time.perf_counter()
            for _ in range(rounds):
                for batch in batches:
                    images = np.stack([decode_square(photo, *square) for photo in batch])
                    way(tf.constant(images)).numpy()
            speeds[name] = rounds * len(bench.photos) / (time.perf_counter() - began)
    _show("bare loop, eager and as a graph", f"{speeds['eager']:.0f}, {speeds['graph']:.0f}")
    click.echo(max(speeds.values()))


def _keras_file(folder: Path) -> Path:
    """Beside a SavedModel: in an export, or in the outputs of a task."""
    found = next(folder.parent.glob("exports/model.keras"), None)
    if found is None:
        raise click.UsageError(
            f"{folder.parent}: expected exports/model.keras beside the SavedModel"
        )
    return found.relative_to(folder.parent)


class _Connection:
    """A connection that stays open, over which one request after the other is sent."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, body: bytes) -> int:
        """The status code of the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._server.host, self._server.port)
        reader, writer = self._streams
        head = f"POST {_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        headers = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", headers, re.IGNORECASE)
        assert found, headers
        await reader.readexactly(int(found[1]))
        if b"connection: close" in headers.lower():
            self.close()
        return int(headers.split(b" ", 2)[1])

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _one_by_one(server: _Server, bodies: list[bytes], count: int) -> list[float]:
    """Seconds of requests, each sent when the one before was answered."""
    connection = _Connection(server)
    times = []
    for number in range(count):
        began = time.perf_counter()
        assert await connection.ask(bodies[number % len(bodies)]) == 200
        times.append(time.perf_counter() - began)
    connection.close()
    return times


async def _at_a_rate(
    server: _Server, bodies: list[bytes], rate: float, seconds: float
) -> list[float]:
    """Seconds from the time a request was due to its answer, at a steady rate."""
    idle: list[_Connection] = []
    times: list[float] = []

    async def send(due: float, body: bytes) -> None:
        connection = idle.pop() if idle else _Connection(server)
        assert await connection.ask(body) == 200
        times.append(time.perf_counter() - due)
        idle.append(connection)

    start = time.perf_counter()
    sent = []
    for number in range(int(rate * seconds)):
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        sent.append(asyncio.create_task(send(due, bodies[number % len(bodies)])))
    await asyncio.gather(*sent)
    for connection in idle:
        connection.close()
    return times


def _quantile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


@main.command()
@_options
@click.option("--rate", default=0.0, help="Requests per second; 0: half of what wrk gets.")
@click.option("--seconds", default=30.0, show_default=True, help="How long.")
def latency(model: Path, photos: Path, rate: float, seconds: float) -> None:
    """Latency of a single request, and at half load."""
    bench = _Bench(model, photos, 256)
    bodies = bench.bodies()
    with bench.server() as server:
        _wrk(server, bodies, 3, 64)
        most = _wrk(server, bodies, 10, 64)
        _show("full load under wrk", f"{most:.0f} requests/s")
        single = asyncio.run(_one_by_one(server, bodies, 400))
        half = rate or most / 2
        loaded = asyncio.run(_at_a_rate(server, bodies, half, seconds))
    alone = statistics.median(single)
    _show("single request: p50, p99", f"{1e3 * alone:.1f}, {1e3 * _quantile(single, 0.99):.1f} ms")
    figures = ", ".join(f"{1e3 * _quantile(loaded, share):.1f}" for share in (0.5, 0.95, 0.99))
    _show(f"at {half:.0f} requests/s: p50, p95, p99", f"{figures} ms")
    _show("p99 at half load / single request", f"{_quantile(loaded, 0.99) / alone:.1f}")


@main.command()
@_options
@click.option("--requests", "count", default=100_000, show_default=True, help="How many.")
def memory(model: Path, photos: Path, count: int) -> None:
    """Resident memory of the server over many requests."""
    bench = _Bench(model, photos, 256)
    bodies = bench.bodies()
    seen: list[float] = []
    done = 0
    with bench.server() as server:
        while done < count:
            speed = _wrk(server, bodies, 20, 64)
            done += round(20 * speed)
            seen.append(server.memory())
            _show(f"after {done} requests", f"{seen[-1]:.0f} MiB")
    _show("growth since the first of these", f"{seen[-1] - seen[0]:+.0f} MiB")


@main.command()
@_options
@click.option("--clients", default=480, show_default=True, help="Connections, one request each.")
@click.option("--seconds", default=20.0, show_default=True, help="How long.")
def overload(model: Path, photos: Path, clients: int, seconds: float) -> None:
    """More at once than the server may take on."""
    bench = _Bench(model, photos, 256)
    bodies = bench.bodies()
    times: dict[int, list[float]] = {}

    async def client(server: _Server, number: int, end: float) -> None:
        connection = _Connection(server)
        while time.perf_counter() < end:
            began = time.perf_counter()
            code = await connection.ask(bodies[number % len(bodies)])
            times.setdefault(code, []).append(time.perf_counter() - began)
            if code != 200:
                await asyncio.sleep(0.2)
        connection.close()

    async def storm(server: _Server) -> None:
        end = time.perf_counter() + seconds
        await asyncio.gather(*(client(server, number, end) for number in range(clients)))

    with bench.server() as server:
        asyncio.run(storm(server))
        after = asyncio.run(_one_by_one(server, bodies, 50))
    for code, found in sorted(times.items()):
        figures = ", ".join(f"{1e3 * _quantile(found, share):.0f}" for share in (0.5, 0.99))
        _show(f"{clients} clients, code {code}: count, p50, p99", f"{len(found)}, {figures} ms")
    _show("good answers", f"{len(times.get(200, [])) / seconds:.0f} images/s")
    _show("codes", str(sorted(Counter({code: len(one) for code, one in times.items()}).items())))
    _show("a single request afterwards: p50", f"{1e3 * statistics.median(after):.1f} ms")


if __name__ == "__main__":
    main()
