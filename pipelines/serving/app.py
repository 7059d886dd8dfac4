"""The HTTP interface: TensorFlow Serving's REST predict, Vertex AI's contract, and a page."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pipelines.serving.config import ServeConfig
from pipelines.serving.engine import Engine, OverloadedError
from pipelines.serving.metrics import Metrics
from pipelines.serving.model import ServedModel
from pipelines.serving.photos import BadPhotoError
from pipelines.serving.protocol import (
    INPUT,
    BadRequestError,
    PredictRequest,
    format_answer,
    format_error,
    parse,
)

_STATIC = Path(__file__).parent / "static"
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
}
# The page loads nothing from elsewhere, and a browser holds it to that.
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' blob: data:; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_JSON = "application/json"
Handler = Callable[[Request], Awaitable[Response]]


class Server:
    """The handlers, with what they share.

    Attributes:
        engine: Answers about photos; None until the model is loaded.
        failure: Why the model could not be loaded.
        stopping: Whether the server has been told to stop.
    """

    def __init__(
        self,
        load: Callable[[], ServedModel],
        config: ServeConfig,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        """Makes the application.

        Args:
            load: Loads the model; called in a thread, once the server is up.
            config: Limits.
            stop: Ends the server, when the model cannot be loaded.
        """
        self.engine: Engine | None = None
        self.failure: Exception | None = None
        self.stopping = False
        self._load = load
        self._config = config
        self._stop = stop
        self._metrics = Metrics()
        self._bytes = 0

    def app(self, predict_route: str = "", health_route: str = "") -> Starlette:
        """The application.

        Args:
            predict_route: A further route for predictions, as Vertex AI asks for it.
            health_route: A further route for readiness.
        """
        base = f"/v1/models/{self._config.name}"
        posts: dict[str, Handler] = {
            f"{base}:predict": self._predict,
            f"{base}/versions/1:predict": self._predict,
            f"{base}:explain": self._explain,
        }
        gets: dict[str, Handler] = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._show_metrics,
            base: self._status,
            f"{base}/versions/1": self._status,
            f"{base}/metadata": self._metadata,
            "/model": self._metadata,
            "/model-card": self._card,
            "/model-card.md": self._card_text,
            "/licence.txt": self._licence,
        }
        gets |= dict.fromkeys(_FILES, self._file)
        if predict_route:
            posts[predict_route] = self._predict
        if health_route:
            gets[health_route] = self._readyz
        routes = [
            Route(path, self._counted(path, one), methods=["POST"]) for path, one in posts.items()
        ]
        routes += [
            Route(path, self._counted(path, one), methods=["GET"]) for path, one in gets.items()
        ]
        app = Starlette(
            routes=routes,
            lifespan=self._lifespan,
            exception_handlers={HTTPException: self._refuse, Exception: self._fault},
        )
        # A path that is not quite right is no reason to send anybody elsewhere.
        app.router.redirect_slashes = False
        return app

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        loading = asyncio.create_task(self._start())
        yield
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        if self.engine:
            await self.engine.close()

    async def _start(self) -> None:
        try:
            model = await asyncio.to_thread(self._warm)
        # Told by who started the server, once it has stopped.
        except Exception as error:
            self.failure = error
            self._stop()
            return
        self.engine = Engine(model, self._config, self._metrics)
        what = model.metadata
        digests = (str(what.get("model_digest"))[:12], str(what.get("data_fingerprint"))[:12])
        self._metrics.model.labels(str(what.get("architecture")), *digests).set(1)
        self._metrics.ready.set(1)

    def _warm(self) -> ServedModel:
        model = self._load()
        model.warm_up(self._config.max_batch)
        return model

    def _counted(self, route: str, handler: Handler) -> Handler:
        async def handle(request: Request) -> Response:
            began = time.perf_counter()
            code = 500
            try:
                response = await handler(request)
                code = response.status_code
                return response
            except HTTPException as error:
                code = error.status_code
                raise
            finally:
                self._metrics.requests.labels(route, str(code)).inc()
                self._metrics.seconds.labels(route).observe(time.perf_counter() - began)

        return handle

    def _ready_engine(self) -> Engine:
        if self.engine is None:
            raise HTTPException(503, "the model is being loaded", {"Retry-After": "2"})
        return self.engine

    async def _predict(self, request: Request) -> Response:
        return await self._respond(request, False)

    async def _explain(self, request: Request) -> Response:
        return await self._respond(request, True)

    async def _respond(self, request: Request, explain: bool) -> Response:
        engine = self._ready_engine()
        async with self._body(request) as body:
            asked = self._parse(request, body, explain)
            if asked.explain and not engine.model.explains:
                raise HTTPException(
                    400, "this model has no feature map, so it cannot say where it looked"
                )
            try:
                async with asyncio.timeout(self._config.timeout):
                    rows = await engine.answer(asked.photos, asked.explain)
            except TimeoutError as error:
                raise HTTPException(
                    503, f"no answer within {self._config.timeout:g} s", {"Retry-After": "1"}
                ) from error
            except OverloadedError as error:
                raise HTTPException(429, str(error), {"Retry-After": "1"}) from error
            except BadPhotoError as error:
                raise HTTPException(400, str(error)) from error
        return Response(format_answer(rows, asked.columnar), media_type=_JSON)

    def _parse(self, request: Request, body: bytes, explain: bool) -> PredictRequest:
        """A photo by itself, or JSON, whatever its type is called: TensorFlow Serving asks not."""
        if request.headers.get("content-type", "").lower().startswith("image/"):
            return PredictRequest([body], explain=explain)
        try:
            asked = parse(body, self._config.max_instances)
        except BadRequestError as error:
            raise HTTPException(400, str(error)) from error
        return PredictRequest(asked.photos, asked.columnar, explain or asked.explain)

    @contextlib.asynccontextmanager
    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request, which counts against the memory of all while it is there."""
        limit = self._config.max_body_bytes
        too_large = HTTPException(413, f"expected at most {self._config.max_body} MiB")
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            raise too_large
        body = bytearray()
        held = 0
        try:
            async with asyncio.timeout(self._config.body_timeout):
                async for chunk in request.stream():
                    held += len(chunk)
                    self._bytes += len(chunk)
                    if held > limit:
                        raise too_large
                    if self._bytes > self._config.max_memory_bytes:
                        raise HTTPException(503, "too much is being sent", {"Retry-After": "1"})
                    body += chunk
            yield bytes(body)
        except TimeoutError as error:
            raise HTTPException(
                408,
                f"the request did not arrive within {self._config.body_timeout:g} s",
                {"Connection": "close"},
            ) from error
        except ClientDisconnect as error:
            raise HTTPException(400, "the request was cut off") from error
        finally:
            self._bytes -= held

    async def _healthz(self, _request: Request) -> Response:
        return PlainTextResponse("ok")

    async def _readyz(self, _request: Request) -> Response:
        if self.stopping:
            raise HTTPException(503, "the server is stopping")
        self._ready_engine()
        return PlainTextResponse("ready")

    async def _show_metrics(self, _request: Request) -> Response:
        return Response(
            generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def _status(self, _request: Request) -> Response:
        state = "AVAILABLE" if self.engine else "LOADING"
        status = {"error_code": "OK", "error_message": ""}
        versions = [{"version": "1", "state": state, "status": status}]
        return _json({"model_version_status": versions})

    async def _metadata(self, _request: Request) -> Response:
        model = self._ready_engine().model
        spec = {
            "model_spec": {"name": self._config.name, "version": "1"},
            "metadata": {
                "inputs": {INPUT: {"dtype": "DT_STRING", "shape": [-1]}},
                "outputs": ["probabilities", "class_names", "label"],
                "explains": model.explains,
                "max_body_bytes": self._config.max_body_bytes,
                **model.metadata,
            },
        }
        return _json(spec)

    async def _card(self, _request: Request) -> Response:
        return _json(self._ready_engine().model.card)

    async def _card_text(self, _request: Request) -> Response:
        return PlainTextResponse(self._ready_engine().model.card_text)

    async def _licence(self, _request: Request) -> Response:
        return PlainTextResponse(self._ready_engine().model.licence)

    async def _file(self, request: Request) -> Response:
        name, kind = _FILES[request.url.path]
        headers = _PAGE_HEADERS | {"Content-Type": kind, "Cache-Control": "no-cache"}
        return Response((_STATIC / name).read_bytes(), headers=headers)

    async def _refuse(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        reasons = {
            404: f"there is nothing at {request.url.path[:200]}",
            405: f"{request.method[:20]} is not what {request.url.path[:200]} takes",
        }
        message = reasons.get(error.status_code, error.detail)
        return Response(format_error(message), error.status_code, error.headers, media_type=_JSON)

    async def _fault(self, _request: Request, _error: Exception) -> Response:
        """A fault of ours: logged with its traceback by the server, and no part of the answer."""
        return Response(format_error("a fault of the server"), 500, media_type=_JSON)


def _json(content: object) -> Response:
    return Response(json.dumps(content).encode(), media_type=_JSON)
