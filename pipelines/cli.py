"""The `flowers` command. Heavy imports wait until a command needs them."""

from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from components.common.cli import PATH, config_options, run_cli, take_config
from components.common.errors import ConfigError
from components.ingest_examples.config import PhotosConfig
from pipelines.commands.options import (
    ALL_FLAGS,
    SYNTHETIC,
    recipe_name,
    recipe_options,
    target_options,
)
from pipelines.version import __version__

STEPS = {
    "ingest": "components.ingest_examples",
    "augment": "components.augment_examples",
    "train": "components.train_model",
    "evaluate": "components.evaluate_model",
    "gate": "components.gate_model",
    "report": "components.report_run",
    "export": "components.export_model",
    "deploy": "components.deploy_model",
    "summarize": "components.summarize_run",
}
# Groups of commands by name: the module that has a group of that name.
GROUPS = {
    name: f"pipelines.commands.{name}"
    for name in (
        "data",
        "deploy",
        "images",
        "predict",
        "report",
        "runs",
        "schedule",
        "serve",
        "submit",
        "tpu",
    )
}


class _Flowers(click.Group):
    """The commands; groups of `pipelines.commands` are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return sorted([*super().list_commands(ctx), *GROUPS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name."""
        if cmd_name not in GROUPS:
            return super().get_command(ctx, cmd_name)
        group: click.Command = getattr(import_module(GROUPS[cmd_name]), cmd_name)
        return group


@click.group(cls=_Flowers)
@click.version_option(__version__)
def flowers() -> None:
    """From labelled photos to a gated image classifier, on one pipeline."""


@flowers.command()
@config_options(PhotosConfig, images=SYNTHETIC)
@recipe_options
@click.option(
    "--output", type=PATH, default=Path("runs"), show_default=True, help="Folder of the runs."
)
@click.option(
    "--runner",
    type=click.Choice(["subprocess", "docker"]),
    default="subprocess",
    show_default=True,
    help="Each step in a process or in a container of its own.",
)
@click.option("--memory", metavar="SIZE", help="Most that a container may have, e.g. 4g.")
@click.option(
    "--image-lock", type=PATH, help="File of flowers images build: the images of --runner docker."
)
@click.option("--registry", default="", help="Folder to deploy to, behind the champion rule.")
@click.option("--model-name", default="flowers", show_default=True, help="Model in the registry.")
@click.option(
    "--accelerator",
    metavar="KIND|FILE|JSON",
    help="What to train on: auto, tpu, gpu or cpu, or also how, e.g. "
    '{"kind": "gpu", "runtime": "jax"}.  [auto]',
)
@click.option(
    "--checkpoint-steps",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Save the training within an epoch too, each time after so many steps; 0 for not.",
)
@click.option("--hourly-price", type=click.FloatRange(0), help="Of this machine, for the report.")
@click.option("--resume", metavar="RUN", help="Go on with a run that was killed or failed.")
def run(
    recipe: str | None,
    assignments: tuple[str, ...],
    output: Path,
    runner: str,
    memory: str | None,
    image_lock: Path | None,
    registry: str,
    model_name: str,
    accelerator: str | None,
    checkpoint_steps: int,
    hourly_price: float | None,
    resume: str | None,
    **arguments: Any,
) -> int:
    """Runs the whole pipeline on this machine.

    Exit code 0: the gate is open and the model is exported. 1: a fault of ours. 2: your mistake.
    3: the gate is closed, or the champion stays. 75: the machine was taken away; --resume goes on.
    130: interrupted.
    """
    if resume is not None:
        return _resume(resume, output, memory, image_lock)
    from components.train_model.accelerators import parse_accelerator
    from pipelines.recipe import DeploymentConfig, load_recipe
    from pipelines.targets.local import run_local

    photos = take_config(PhotosConfig, arguments)
    name = recipe_name(recipe, photos.images)
    how = _runner(runner, memory, image_lock)
    if registry and "://" in registry:
        raise ConfigError(f"--registry {registry}: expected a folder; flowers submit takes others")
    if registry and runner == "docker":
        raise ConfigError("--registry: goes with --runner subprocess, and with no other")
    place = str(Path(registry).absolute()) if registry else ""
    deployment = DeploymentConfig(place, model_name)
    loaded = load_recipe(name, assignments)
    devices = parse_accelerator(accelerator)
    return run_local(
        photos, loaded, name, output, how, deployment, hourly_price, devices, checkpoint_steps
    )


# What a run that goes on takes beside its name; the rest it has from its beginning.
_WITH_RESUME = {"resume", "output", "memory", "image_lock"}


def _resume(name: str, output: Path, memory: str | None, image_lock: Path | None) -> int:
    """Goes on with a run as it was begun."""
    from pipelines.runs import find_run
    from pipelines.targets.local import resume_local

    ctx = click.get_current_context()
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(str(parameter.name))
        if source == click.core.ParameterSource.COMMANDLINE and parameter.name not in _WITH_RESUME:
            raise ConfigError(f"{parameter.opts[0]}: a run that goes on has it from its beginning")
    found = find_run(output, name)
    how = _runner(found.content["runner"], memory, image_lock)
    return resume_local(found.folder, how)


def _runner(name: str, memory: str | None, image_lock: Path | None) -> Any:
    """The runner of that name, imported only if it is wanted."""
    if name == "docker":
        from pipelines.image_lock import load_image_lock
        from pipelines.targets.containers import ContainerRunner

        return ContainerRunner(memory or "", load_image_lock(image_lock) if image_lock else None)
    from pipelines.targets.runners import SubprocessRunner

    for flag, value in (("--memory", memory), ("--image-lock", image_lock)):
        if value is not None:
            raise ConfigError(f"{flag}: goes with --runner docker, and with no other")
    return SubprocessRunner()


@flowers.command("compile")
@config_options(PhotosConfig)
@recipe_options
@click.option("--output", type=PATH, required=True, help="YAML file to write.")
@click.option("--image-lock", type=PATH, help="File of flowers images build: images by digest.")
@click.option(
    "--target",
    type=click.Choice(["kfp", "kubeflow", "vertex"]),
    default="kfp",
    show_default=True,
    help="Plain KFP, or Kubeflow Pipelines on GKE or Vertex AI with the machines of --config.",
)
@target_options(*ALL_FLAGS)
def compile_(
    recipe: str | None,
    assignments: tuple[str, ...],
    output: Path,
    image_lock: Path | None,
    target: str,
    **arguments: Any,
) -> None:
    """Compiles the pipeline to KFP's YAML, with a recipe as default parameters."""
    from pipelines.targets.compiled import check_output, write_compiled

    check_output(output)
    if target == "kfp":
        _compile_plain(recipe, assignments, output, image_lock, arguments)
    else:
        from pipelines.commands.submit import compile_for
        from pipelines.targets import kubeflow_pipeline, vertex_pipeline

        _, compiled = compile_for(target, recipe, assignments, image_lock, arguments)
        backend = kubeflow_pipeline if target == "kubeflow" else vertex_pipeline
        write_compiled(backend.to_text(compiled), output)
    click.echo(f"compiled to {output}")


def _compile_plain(
    recipe: str | None,
    assignments: tuple[str, ...],
    output: Path,
    image_lock: Path | None,
    arguments: dict[str, Any],
) -> None:
    from pipelines.image_lock import load_image_lock
    from pipelines.recipe import load_recipe, pipeline_parameters
    from pipelines.targets.compiled import compile_pipeline

    photos = take_config(PhotosConfig, arguments)
    for name in ("config", *ALL_FLAGS):
        if arguments.get(name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')}: goes with another --target")
    name = recipe_name(recipe, photos.images)
    parameters = pipeline_parameters(photos, load_recipe(name, assignments))
    compile_pipeline(parameters, output, load_image_lock(image_lock) if image_lock else None)


class _Steps(click.Group):
    """The steps' own commands, imported one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the steps, in the order of the pipeline."""
        return list(STEPS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of `python -m components.<step>`."""
        if cmd_name not in STEPS:
            return None
        command: click.Command = import_module(f"{STEPS[cmd_name]}.__main__").command
        return command


@flowers.command("step", cls=_Steps)
def step() -> None:
    """Runs one step; the same as `python -m components.<step>`."""


def main() -> NoReturn:
    """Entry point of the `flowers` command."""
    run_cli(flowers)
