"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from components.common.cli import PATH
from components.common.errors import ConfigError

SYNTHETIC = "synthetic://flowers"


FOR_PHOTOS = "squeezenet"


def recipe_options(
    function: Any, default: str = f"quick for synthetic flowers, else {FOR_PHOTOS}"
) -> Any:
    """Adds `--recipe` and `--set`; the default is what the help says is taken without."""
    function = click.option(
        "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="E.g. train.epochs=5."
    )(function)
    return click.option("--recipe", help=f"Name of a recipe, or a file.  [{default}]")(function)


def recipe_name(recipe: str | None, images: str) -> str:
    """The recipe that was named, or the one that fits the photos."""
    if recipe is not None:
        return recipe
    return "quick" if images.startswith(SYNTHETIC) else FOR_PHOTOS


# Backend -> flags that go before its target file.
TARGET_FLAGS = {
    "vertex": ("project", "region", "pipeline_root", "service_account", "experiment"),
    "kubeflow": (
        *("host", "namespace", "queue"),
        *("pipeline_root", "service_account", "experiment"),
    ),
}
# Flags that say where, for commands that run nothing.
PLACE_FLAGS = ("project", "region", "pipeline_root", "host", "namespace", "queue")
_TARGET_HELP = {
    "project": "Vertex AI: id of the Google Cloud project.",
    "region": "Vertex AI: region, e.g. europe-west4.",
    "host": "Kubeflow: address, e.g. http://127.0.0.1:8080.",
    "namespace": "Kubeflow: namespace of the runs, where there are several.",
    "queue": "Kubeflow: queue of Kueue that training waits in.",
    "pipeline_root": "gs:// folder for the outputs of the steps.",
    "service_account": "Account the steps run as.",
    "experiment": "Experiment that the run belongs to.",
}
ALL_FLAGS = tuple(_TARGET_HELP)


def backend_option(function: Any) -> Any:
    """Adds `--target`, for commands that talk to a backend."""
    return click.option(
        "--target", type=click.Choice(list(TARGET_FLAGS)), default="vertex", show_default=True
    )(function)


def target_options(*names: str) -> Callable[[Any], Any]:
    """Adds `--config` and the flags of a target."""

    def decorate(function: Any) -> Any:
        for name in reversed(names):
            flag = "--" + name.replace("_", "-")
            function = click.option(flag, name, help=_TARGET_HELP[name])(function)
        return click.option(
            "--config", type=PATH, help="Target file, see docs/vertex.md and docs/gke-tpu.md."
        )(function)

    return decorate


def take_target(target: str, arguments: dict[str, Any]) -> Any:
    """Takes what `target_options` added out of a command's arguments.

    Raises:
        ConfigError: A flag goes with another target, or the target file is wrong.
    """
    from pipelines.targets.kubeflow_config import KubeflowTarget
    from pipelines.targets.target_files import load_target
    from pipelines.targets.vertex_config import VertexTarget

    config: Path | None = arguments.pop("config")
    flags = {name: arguments.pop(name) for name in ALL_FLAGS if name in arguments}
    for name in [one for one in flags if one not in TARGET_FLAGS[target]]:
        if flags.pop(name) is not None:
            others = " or ".join(one for one, names in TARGET_FLAGS.items() if name in names)
            raise ConfigError(f"--{name.replace('_', '-')}: goes with --target {others}")
    return load_target(KubeflowTarget if target == "kubeflow" else VertexTarget, config, flags)
