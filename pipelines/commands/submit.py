"""`flowers submit`: the pipeline on Vertex AI."""

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from components.common.cli import PATH, config_options, take_config
from components.common.errors import ConfigError, UserError
from components.ingest_examples.config import PhotosConfig
from pipelines.commands.options import (
    TARGET_FLAGS,
    recipe_name,
    recipe_options,
    take_target,
    target_options,
)
from pipelines.image_lock import LOCK_FILE


@click.command()
@config_options(PhotosConfig)
@recipe_options
@click.option("--target", type=click.Choice(["vertex"]), default="vertex", show_default=True)
@target_options(*TARGET_FLAGS)
@click.option(
    "--image-lock",
    type=PATH,
    default=LOCK_FILE,
    show_default=True,
    help="File of flowers images build: images by digest.",
)
@click.option("--wait", is_flag=True, help="Wait for the end; the exit code is that of the run.")
@click.option("--dry-run", is_flag=True, help="Print the exact request and send nothing.")
def submit(
    recipe: str | None,
    assignments: tuple[str, ...],
    target: str,
    image_lock: Path,
    wait: bool,
    dry_run: bool,
    **arguments: Any,
) -> int:
    """Submits the pipeline to Vertex AI.

    Exit codes with --wait are those of flowers run.
    """
    from components.common.vertex import Vertex
    from pipelines.targets import vertex as runs
    from pipelines.targets.machines import quota_of
    from pipelines.targets.vertex_pipeline import dry_run as shown

    command = shlex.join(["flowers", *sys.argv[1:]])
    where, spec = compile_for(recipe, assignments, image_lock, arguments, command)
    vertex = Vertex(where.project, where.region)
    request = runs.create_request(vertex, spec, {}, where, runs.new_job_id())
    if dry_run:
        path = f"{vertex.parent}/pipelineJobs?pipelineJobId={request['pipelineJobId']}"
        click.echo(shown(f"POST /v1/{path}", request["pipelineJob"]), nl=False)
        return 0
    runs.check(vertex, where, spec)
    name = runs.submit(vertex, request)
    click.echo(f"submitted {name}")
    click.echo(runs.console_url(vertex, request["pipelineJobId"]))
    if where.experiment:
        runs.add_to_experiment(vertex, request["pipelineJobId"], where.experiment)
    if where.train.accelerator:
        train = where.train
        quota = quota_of(train.accelerator, train.machine_type, train.spot)
        click.echo(f"training draws on the quota {quota} in {where.region}")
    if not wait:
        return 0
    return _wait(vertex, name)


def _wait(vertex: Any, name: str) -> int:
    from pipelines.targets import vertex as runs

    try:
        exit_code, line = runs.wait(vertex, name, click.echo)
    except KeyboardInterrupt:
        print("flowers submit: stopped waiting; the run goes on", file=sys.stderr)
        return 130
    # Flushed, so that the reason is the last line also where both streams go into one file.
    sys.stdout.flush()
    print(
        line if exit_code == 0 else f"flowers submit: {line}",
        file=sys.stdout if exit_code == 0 else sys.stderr,
    )
    return exit_code


def compile_for(
    recipe: str | None,
    assignments: tuple[str, ...],
    image_lock: Path | None,
    arguments: dict[str, Any],
    command: str = "",
) -> tuple[Any, dict[str, Any]]:
    """Target and compiled pipeline for a command's arguments, with every mistake in one list.

    Args:
        recipe: Name of the recipe, as it was given.
        assignments: Changes to it.
        image_lock: File of `flowers images build`.
        arguments: The flags.
        command: What makes the run, for its report; empty where others start the runs.

    Raises:
        ConfigError: Names all that is wrong.
    """
    from pipelines.image_lock import load_image_lock
    from pipelines.recipe import DeploymentConfig, load_recipe, pipeline_parameters
    from pipelines.targets.vertex_pipeline import compile_vertex

    mistakes: list[str] = []

    def attempt(make: Any) -> Any:
        try:
            return make()
        except UserError as error:
            mistakes.append(str(error))
            return None

    photos = attempt(lambda: take_config(PhotosConfig, arguments))
    name = recipe_name(recipe, photos.images if photos else "")
    loaded = attempt(lambda: load_recipe(name, assignments))
    lock = attempt(lambda: load_image_lock(image_lock)) if image_lock else None
    where = attempt(lambda: take_target(arguments))
    if mistakes:
        raise ConfigError("; ".join(mistakes))
    deployment = DeploymentConfig(
        registry=where.registry,
        model_name=where.model_name,
        serving_config=dataclasses.asdict(where.serving),
        command=command,
    )
    parameters = pipeline_parameters(photos, loaded, deployment)
    return where, compile_vertex(parameters, where, lock)
