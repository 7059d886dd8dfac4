"""Runs the application under uvicorn, with the limits that a framework leaves to others."""

import asyncio
import contextlib
import math
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from components.common.errors import ConfigError
from pipelines.serving.app import Server
from pipelines.serving.config import ServeConfig
from pipelines.serving.model import ServedModel, saved_model_at

_MAX_HEADERS = 2**15
# Of a body that was refused: so much is read away, so that the client comes to see the refusal.
_MAX_DISCARDED = 2**28
_KEEP_ALIVE = 30
_BACKLOG = 1024
EXIT_INTERRUPTED = 130


_REASON = b'{"error":"the request did not arrive in time"}'
_TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_REASON), _REASON)
)


class _Headers(Exception):  # noqa: N818
    """More headers than anybody needs; the parser turns it into a 400."""


class GuardedProtocol(HttpToolsProtocol):
    """HTTP/1.1 for strangers: headers are bounded in size and time, and so is what is refused."""

    # Seconds for the headers, and for what is read away; set by `_guarded`.
    patience = 10.0

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._alarm: asyncio.TimerHandle | None = None
        self._size = 0
        self._discarded = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there, and must send its headers in time."""
        super().connection_made(transport)
        self._set_alarm(self.patience)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._clear_alarm()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._size = self._discarded = 0
        self._set_alarm(self.patience)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the address."""
        self._measure(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._measure(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The request is known."""
        self._clear_alarm()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body, or of one that has been refused meanwhile."""
        if self.cycle.response_complete:
            if not self._discarded:
                self._set_alarm(self.patience)
            self._discarded += len(body)
            if self._discarded > _MAX_DISCARDED:
                self.transport.close()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of the request is there."""
        self._clear_alarm()
        super().on_message_complete()

    def _measure(self, size: int) -> None:
        self._size += size
        if self._size > _MAX_HEADERS:
            raise _Headers

    def _set_alarm(self, seconds: float) -> None:
        self._clear_alarm()
        self._alarm = self.loop.call_later(seconds, self._too_slow)

    def _clear_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_TOO_SLOW)
            self.transport.close()


def _guarded(patience: float) -> type[GuardedProtocol]:
    return type("Guarded", (GuardedProtocol,), {"patience": patience})


class _Uvicorn(uvicorn.Server):
    """Uvicorn's server, which ends with a code of ours in place of the signal."""

    def __init__(self, config: uvicorn.Config, server: Server) -> None:
        super().__init__(config)
        self.received: int | None = None
        self._flowers = server

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Takes SIGINT and SIGTERM as a wish to end well; signals reach the main thread alone."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """No new work; what is under way gets its answer. Asked twice, it ends at once."""
        self._flowers.stopping = True
        self.received = sig
        super().handle_exit(sig, frame)


def make_server(
    load: Any, config: ServeConfig, predict_route: str = "", health_route: str = ""
) -> tuple[_Uvicorn, Server, socket.socket]:
    """A server that listens already, so that a taken port is known at once.

    Args:
        load: Loads the model.
        config: Where and how.
        predict_route: See `Server.app`.
        health_route: See `Server.app`.

    Raises:
        ConfigError: It cannot listen there.
    """
    holder: list[_Uvicorn] = []

    def stop() -> None:
        holder[0].should_exit = True

    server = Server(load, config, stop)
    settings = uvicorn.Config(
        server.app(predict_route, health_route),
        http=_guarded(config.body_timeout),
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="error",
        server_header=False,
        date_header=False,
        # uvicorn counts the connection that asks, too.
        limit_concurrency=config.max_connections + 1,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        # Of whole seconds, and 0 would mean to wait for ever.
        timeout_graceful_shutdown=max(1, math.ceil(config.grace)),
    )
    holder.append(_Uvicorn(settings, server))
    return holder[0], server, _listen(config)


def _listen(config: ServeConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # Named as TCP, or asyncio would leave Nagle's algorithm on: 40 ms for every answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
        # Whoever is told the address may come at once; the loop takes over what waits.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"--host {config.host} --port {config.port}: cannot be listened on "
            f"({error.strerror}); name another port"
        ) from error
    return listener


def serve(model: str, config: ServeConfig, predict_route: str = "", health_route: str = "") -> int:
    """Serves a model until SIGTERM or SIGINT.

    Args:
        model: Where it is; see `saved_model_at`.
        config: How to serve it.
        predict_route: A further route, as Vertex AI asks for it.
        health_route: The same for readiness.

    Returns:
        Exit code: 0 after SIGTERM, 130 after SIGINT.

    Raises:
        DataError: There is no model, or none that can be served.
        ConfigError: It cannot listen there.
    """
    with saved_model_at(model) as folder:
        runner, server, listener = make_server(
            lambda: ServedModel(folder), config, predict_route, health_route
        )
        with listener:
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"serving {model} on http://{shown}:{port}", flush=True)
            with asyncio.Runner(loop_factory=runner.config.get_loop_factory()) as loop:
                loop.run(runner.serve([listener]))
    if server.failure:
        raise server.failure
    return EXIT_INTERRUPTED if runner.received == signal.SIGINT else 0
