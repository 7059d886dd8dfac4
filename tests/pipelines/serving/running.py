"""A real server in a thread, on a free port of loopback."""

import asyncio
import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.serving.app import Server
from pipelines.serving.config import ServeConfig
from pipelines.serving.model import ServedModel
from pipelines.serving.server import make_server


class Running:
    """A server that runs.

    Attributes:
        host: Its address.
        port: Its port.
        server: Its handlers.
    """

    def __init__(self, host: str, port: int, server: Server) -> None:
        self.host, self.port, self.server = host, port, server
        self.address = f"http://{host}:{port}"

    @property
    def model(self) -> Any:
        """The model, for tests that put another one in its place."""
        assert self.server.engine is not None
        return self.server.engine.model

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read(), response.headers
        finally:
            connection.close()


@contextlib.contextmanager
def running_server(
    saved_model: Path, hold: threading.Event | None = None, **limits: Any
) -> Iterator[Running]:
    """Serves a SavedModel while the context is open.

    Args:
        saved_model: The model.
        hold: The model is loaded once this is set; None waits until it is ready.
        **limits: Fields of `ServeConfig`.
    """
    config = ServeConfig(**({"port": 0, "max_batch": 8, "grace": 5.0} | limits))

    def load() -> ServedModel:
        assert hold is None or hold.wait(60)
        return ServedModel(saved_model)

    runner, server, listener = make_server(load, config)
    with listener:

        def run() -> None:
            with asyncio.Runner(loop_factory=runner.config.get_loop_factory()) as loop:
                loop.run(runner.serve([listener]))

        thread = threading.Thread(target=run)
        thread.start()
        try:
            running = Running(config.host, listener.getsockname()[1], server)
            deadline = time.monotonic() + 60
            while hold is None and server.engine is None:
                if server.failure:
                    raise server.failure
                assert time.monotonic() < deadline, "the server did not become ready"
                time.sleep(0.02)
            yield running
        finally:
            runner.should_exit = True
            thread.join(30)
            assert not thread.is_alive()
