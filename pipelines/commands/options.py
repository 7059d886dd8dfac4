"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from components.common.cli import PATH

SYNTHETIC = "synthetic://flowers"


def recipe_options(function: Any) -> Any:
    """Adds `--recipe` and `--set`."""
    function = click.option(
        "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="E.g. train.epochs=5."
    )(function)
    return click.option(
        "--recipe",
        help="Name of a recipe, or a file.  [quick for synthetic flowers, else squeezenet]",
    )(function)


def recipe_name(recipe: str | None, images: str) -> str:
    """The recipe that was named, or the one that fits the photos."""
    return recipe or ("quick" if images.startswith(SYNTHETIC) else "squeezenet")


TARGET_FLAGS = ("project", "region", "pipeline_root", "service_account", "experiment")
_TARGET_HELP = {
    "project": "Id of the Google Cloud project.",
    "region": "Region of Vertex AI, e.g. europe-west4.",
    "pipeline_root": "gs:// folder for the outputs of the steps.",
    "service_account": "Account the steps run as.",
    "experiment": "Vertex AI experiment that the run belongs to.",
}


def target_options(*names: str) -> Callable[[Any], Any]:
    """Adds `--config` and the flags of a Vertex AI target."""

    def decorate(function: Any) -> Any:
        for name in reversed(names):
            flag = "--" + name.replace("_", "-")
            function = click.option(flag, name, help=_TARGET_HELP[name])(function)
        return click.option("--config", type=PATH, help="Target file, see docs/vertex.md.")(
            function
        )

    return decorate


def take_target(arguments: dict[str, Any]) -> Any:
    """Takes what `target_options` added out of a command's arguments."""
    from pipelines.targets.vertex_config import load_target

    config: Path | None = arguments.pop("config")
    flags = {name: arguments.pop(name) for name in TARGET_FLAGS if name in arguments}
    return load_target(config, flags)
