"""`flowers serve`: a model over HTTP."""

import importlib.util
import os
from typing import Any

import click

from components.common.cli import config_options, take_config
from components.common.errors import ConfigError
from components.common.extras import how_to_install
from pipelines.serving.config import ServeConfig

# Vertex AI's contract with a custom container.
_PORT, _MODEL = "AIP_HTTP_PORT", "AIP_STORAGE_URI"
_PREDICT, _HEALTH = "AIP_PREDICT_ROUTE", "AIP_HEALTH_ROUTE"


@click.command()
@click.argument("model", required=False)
@config_options(ServeConfig)
def serve(model: str | None, **arguments: Any) -> int:
    """Serves MODEL over HTTP: a SavedModel, or the folder of a run, an export or a registry.

    Speaks TensorFlow Serving's REST predict at /v1/models/flowers:predict, and has a page to try
    the model at /. In a container of Vertex AI, AIP_HTTP_PORT, AIP_PREDICT_ROUTE, AIP_HEALTH_ROUTE
    and AIP_STORAGE_URI say what flags leave open. Exit code 0: it was told to stop.
    """
    require_serving()
    # Read here and not in a default: what a process is told belongs to its start.
    environment = os.environ
    if arguments.get("port") is None and _PORT in environment:
        arguments["port"] = _number(_PORT, environment[_PORT])
    place = model or environment.get(_MODEL)
    if not place:
        raise ConfigError(f"MODEL: expected a SavedModel or a run, or its place in {_MODEL}")
    from pipelines.serving.server import serve as run

    config = take_config(ServeConfig, arguments)
    return run(place, config, _route(environment, _PREDICT), _route(environment, _HEALTH))


def require_serving() -> None:
    """Refuses to go on where what serves is not installed.

    Raises:
        ConfigError: Says what to install.
    """
    names = ("starlette", "uvicorn", "httptools", "prometheus_client", "tensorflow", "simplejpeg")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"{', '.join(missing)}: not installed: {how_to_install('serve')}")


def _number(name: str, text: str) -> int:
    if not text.isdigit():
        raise ConfigError(f"{name}: expected a port, received {text!r}")
    return int(text)


def _route(environment: Any, name: str) -> str:
    route: str = environment.get(name, "")
    if route and not route.startswith("/"):
        raise ConfigError(f"{name}: expected a route such as /predict, received {route!r}")
    return route
