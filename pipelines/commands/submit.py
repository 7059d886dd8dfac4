"""`flowers submit`: the pipeline on Vertex AI or on Kubeflow Pipelines."""

import dataclasses
import functools
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from components.common.cli import PATH, config_options, take_config
from components.common.errors import ConfigError, FlowersError, UserError
from components.common.patience import NotFoundError
from components.ingest_examples.config import PhotosConfig
from pipelines.commands.options import (
    ALL_FLAGS,
    backend_option,
    recipe_name,
    recipe_options,
    take_target,
    target_options,
)
from pipelines.image_lock import LOCK_FILE


@click.command()
@config_options(PhotosConfig)
@recipe_options
@backend_option
@target_options(*ALL_FLAGS)
@click.option(
    "--image-lock",
    type=PATH,
    default=LOCK_FILE,
    show_default=True,
    help="File of flowers images build: images by digest.",
)
@click.option("--wait", is_flag=True, help="Wait for the end; the exit code is that of the run.")
@click.option("--dry-run", is_flag=True, help="Print the exact request and send nothing.")
@click.option(
    "--tpu-check/--no-tpu-check",
    default=True,
    help="Compile the train step for the TPUs of the target first; needs the extra tpu-check.",
)
def submit(
    recipe: str | None,
    assignments: tuple[str, ...],
    target: str,
    image_lock: Path,
    wait: bool,
    dry_run: bool,
    tpu_check: bool,
    **arguments: Any,
) -> int:
    """Submits the pipeline to Vertex AI, or to Kubeflow Pipelines.

    Exit codes with --wait are those of flowers run; 3 also where the train step does not fit the
    TPUs of the target, and then nothing is submitted.
    """
    command = shlex.join(["flowers", *sys.argv[1:]])
    name = recipe_name(recipe, arguments["images"])
    where, compiled = compile_for(target, recipe, assignments, image_lock, arguments, command)
    if tpu_check and not dry_run and where.train.accelerator == "TPU":
        from pipelines.recipe import load_recipe
        from pipelines.tpu_check.preflight import check_train_step

        check_train_step(where, load_recipe(name, assignments), click.echo)
    send = _submit_kubeflow if target == "kubeflow" else _submit_vertex
    follow = send(where, compiled, dry_run)
    return _wait(follow) if wait and follow else 0


# Waits for the end of a run; takes what tells of each change.
Follow = Callable[[Callable[[str], None]], tuple[int, str]]


def _submit_vertex(where: Any, spec: dict[str, Any], dry_run: bool) -> Follow | None:
    from components.common.vertex import Vertex
    from pipelines.targets import vertex as runs
    from pipelines.targets.machines import quota_of
    from pipelines.targets.runs import new_run_name
    from pipelines.targets.vertex_pipeline import dry_run as shown

    vertex = Vertex(where.project, where.region)
    request = runs.create_request(vertex, spec, {}, where, new_run_name())
    if dry_run:
        path = f"{vertex.parent}/pipelineJobs?pipelineJobId={request['pipelineJobId']}"
        click.echo(shown(f"POST /v1/{path}", request["pipelineJob"]), nl=False)
        return None
    runs.check(vertex, where, spec)
    name = runs.submit(vertex, request)
    click.echo(f"submitted {name}")
    click.echo(runs.console_url(vertex, request["pipelineJobId"]))
    runs.join_experiment(vertex, request["pipelineJobId"], where.experiment, click.echo)
    if where.train.accelerator:
        train = where.train
        quota = quota_of(train.accelerator, train.machine_type, train.spot)
        click.echo(f"training draws on the quota {quota} in {where.region}")
    return functools.partial(runs.wait, vertex, name)


def _submit_kubeflow(where: Any, documents: list[dict[str, Any]], dry_run: bool) -> Follow | None:
    from pipelines.targets import kubeflow as runs
    from pipelines.targets.runs import new_run_name

    name = new_run_name()
    if dry_run:
        click.echo(runs.dry_run("runs", runs.run_request(documents, where, name)), nl=False)
        return None
    kubeflow = runs.Kubeflow(where)
    runs.check(kubeflow, documents)
    run_id = runs.submit(kubeflow, documents, name)
    click.echo(f"submitted {name} ({run_id})")
    click.echo(runs.run_url(kubeflow, run_id))
    if where.queue:
        click.echo(f"training waits in the queue {where.queue}")
    return functools.partial(runs.wait, kubeflow, run_id)


def _wait(follow: Follow) -> int:
    try:
        exit_code, line = follow(click.echo)
    except KeyboardInterrupt:
        print("flowers submit: stopped waiting; the run goes on", file=sys.stderr)
        return 130
    except NotFoundError:
        raise
    except FlowersError as error:
        # Neither the end of the run nor the fault of who waits for it.
        raise FlowersError(f"stopped waiting ({error}); the run goes on") from error
    # Flushed, so that the reason is the last line also where both streams go into one file.
    sys.stdout.flush()
    print(
        line if exit_code == 0 else f"flowers submit: {line}",
        file=sys.stdout if exit_code == 0 else sys.stderr,
    )
    return exit_code


def compile_for(
    target: str,
    recipe: str | None,
    assignments: tuple[str, ...],
    image_lock: Path | None,
    arguments: dict[str, Any],
    command: str = "",
) -> tuple[Any, Any]:
    """Target file and compiled pipeline for a command's arguments, with every mistake in one list.

    Args:
        target: `vertex` or `kubeflow`.
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
    from pipelines.targets.kubeflow_pipeline import compile_kubeflow
    from pipelines.targets.vertex_pipeline import compile_vertex
    from pipelines.tpu_check.preflight import check_batch

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
    where = attempt(lambda: take_target(target, arguments))
    if where and loaded:
        attempt(lambda: check_batch(where, loaded))
    mistakes += _out_of_reach(photos, loaded)
    if mistakes:
        raise ConfigError("; ".join(mistakes))
    deployment = DeploymentConfig(
        registry=where.registry,
        model_name=where.model_name,
        serving_config=dataclasses.asdict(where.serving),
        command=command,
    )
    parameters = pipeline_parameters(
        photos, loaded, deployment, checkpoint_steps=where.train.checkpoint_steps
    )
    compile_ = compile_kubeflow if target == "kubeflow" else compile_vertex
    return where, compile_(parameters, where, lock)


def _out_of_reach(photos: PhotosConfig | None, recipe: Any) -> list[str]:
    """What lies on this machine, where no backend can read it."""
    from components.common.storage import is_remote
    from components.train_model.architectures import IMAGENET, NO_WEIGHTS

    places = {}
    if photos:
        if not photos.images.startswith("synthetic://"):
            places["--images"] = photos.images
        places |= {"--manifest": photos.manifest_place(), "--previous": photos.previous}
    if recipe and recipe.model.weights not in {NO_WEIGHTS, IMAGENET}:
        places["model.weights"] = recipe.model.weights
    return [
        f"{name}: expected a place in gs://, which the backend can read, received {place!r}"
        for name, place in places.items()
        if place and not is_remote(place)
    ]
