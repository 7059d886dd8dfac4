"""`flowers schedule`: the pipeline again and again, on Vertex AI or on Kubeflow Pipelines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from components.common.cli import PATH, config_options
from components.common.errors import ConfigError
from components.ingest_examples.config import PhotosConfig
from pipelines.commands.options import (
    ALL_FLAGS,
    PLACE_FLAGS,
    backend_option,
    recipe_options,
    take_target,
    target_options,
)
from pipelines.image_lock import LOCK_FILE

# Field of ScheduleConfig -> field of the API.
_FIELDS = {
    "cron": "cron",
    "time_zone": "cron",
    "start": "start_time",
    "end": "end_time",
    "max_runs": "max_run_count",
    "concurrency": "max_concurrent_run_count",
}


@click.group()
def schedule() -> None:
    """Retrains on a schedule of Vertex AI, or of Kubeflow Pipelines."""


def _when(required: bool) -> Callable[[Any], Any]:
    """Adds the flags that say when; a schedule that is there has no defaults, and needs no cron."""
    zone, runs, at_once = ("  [UTC]", "  [no limit]", "  [1]") if required else ("", "", "")

    def decorate(function: Any) -> Any:
        for option in reversed(
            (
                click.option("--cron", required=required, help="Five fields, e.g. '0 3 * * 1'."),
                click.option("--time-zone", help=f"E.g. Europe/Zurich.{zone}"),
                click.option("--start", help="First moment, e.g. 2030-01-31T03:00."),
                click.option("--end", help="Last moment."),
                click.option("--max-runs", type=int, help=f"Number of runs.{runs}"),
                click.option("--concurrency", type=int, help=f"Runs at the same time.{at_once}"),
            )
        ):
            function = option(function)
        return function

    return decorate


_name = click.option("--name", required=True, help="Name; the same name is the same schedule.")


def _place(function: Any) -> Any:
    """Adds the flags that say where."""
    return backend_option(target_options(*PLACE_FLAGS)(function))


def _schedules(target: str, arguments: dict[str, Any]) -> Any:
    where = take_target(target, arguments)
    if target == "kubeflow":
        from pipelines.targets.kubeflow import Kubeflow
        from pipelines.targets.kubeflow_schedules import KubeflowSchedules

        return KubeflowSchedules(Kubeflow(where))
    from components.common.vertex import Vertex
    from pipelines.targets.schedules import Schedules

    return Schedules(Vertex(where.project, where.region))


@schedule.command()
@_name
@_when(required=True)
@config_options(PhotosConfig)
@recipe_options
@backend_option
@target_options(*ALL_FLAGS)
@click.option("--image-lock", type=PATH, default=LOCK_FILE, show_default=True)
@click.option("--dry-run", is_flag=True, help="Print the exact request and send nothing.")
def create(
    name: str,
    target: str,
    recipe: str | None,
    assignments: tuple[str, ...],
    image_lock: Path,
    dry_run: bool,
    **arguments: Any,
) -> None:
    """Makes a schedule. Twice with one name is one schedule.

    Each run reads the photos anew: --images is a parameter of the run, and ingestion never comes
    from the cache.
    """
    from pipelines.commands.submit import compile_for

    config = _config(name, arguments)
    where, compiled = compile_for(target, recipe, assignments, image_lock, arguments)
    make = _create_kubeflow if target == "kubeflow" else _create_vertex
    made = make(where, compiled, config, dry_run)
    if made is None:
        return
    view, new = made
    click.echo(f"{'created' if new else 'exists already:'} {view.name} ({view.resource})")
    if new:
        _tell_runs(config)
        if target == "vertex" and where.experiment:
            click.echo(f"its runs are in no experiment, and so not in {where.experiment}")
    else:
        click.echo(f"nothing was changed; it is {view.state}, {view.cron}  {view.zone}")
        click.echo(_CHANGING[target])


_CHANGING = {
    "vertex": "flowers schedule update changes when it runs; what it runs, delete and create",
    "kubeflow": "flowers schedule delete and another create change it",
}


def _create_vertex(
    where: Any, spec: dict[str, Any], config: Any, dry_run: bool
) -> tuple[Any, bool] | None:
    from components.common.vertex import Vertex
    from pipelines.targets.schedules import Schedules
    from pipelines.targets.vertex import check
    from pipelines.targets.vertex_pipeline import dry_run as shown
    from pipelines.targets.vertex_pipeline import pipeline_job

    vertex = Vertex(where.project, where.region)
    plain = config.to_plain(vertex, pipeline_job(spec, {}, where))
    if dry_run:
        click.echo(shown(f"POST /v1/{vertex.parent}/schedules", plain), nl=False)
        return None
    check(vertex, where, spec)
    made, new = Schedules(vertex).create(plain)
    return Schedules.view(made), new


def _create_kubeflow(
    where: Any, documents: list[dict[str, Any]], config: Any, dry_run: bool
) -> tuple[Any, bool] | None:
    from pipelines.targets.kubeflow import Kubeflow, check
    from pipelines.targets.kubeflow import dry_run as shown
    from pipelines.targets.kubeflow_schedules import KubeflowSchedules, recurring_run

    kubeflow = Kubeflow(where)
    request = recurring_run(documents, where, config)
    if dry_run:
        click.echo(shown("recurringruns", request), nl=False)
        return None
    check(kubeflow, documents)
    schedules = KubeflowSchedules(kubeflow)
    made, new = schedules.create(documents, config, request)
    return schedules.view(made), new


def _config(name: str, arguments: dict[str, Any]) -> Any:
    from pipelines.targets.schedules import ScheduleConfig

    given = {key: arguments.pop(key) for key in _FIELDS}
    return ScheduleConfig(name, **{key: value for key, value in given.items() if value is not None})


def _tell_runs(config: Any) -> None:
    for moment in config.first_runs():
        click.echo(f"next run  {moment.isoformat()}  {config.time_zone}")


def _tell_next(view: Any) -> None:
    moments = view.next_runs()
    if moments is None:
        click.echo("next run     not known: the cron is none of five fields")
    for moment in moments or ():
        click.echo(f"next run     {moment.isoformat()}")


@schedule.command("list")
@_place
def list_(target: str, **arguments: Any) -> None:
    """Lists the schedules."""
    schedules = _schedules(target, arguments)
    for one in map(schedules.view, schedules.all()):
        click.echo(f"{one.name}  {one.state}  {one.cron}  {one.zone}")


@schedule.command()
@_name
@_place
def show(name: str, target: str, **arguments: Any) -> None:
    """Shows a schedule and its next three runs."""
    schedules = _schedules(target, arguments)
    one = schedules.view(schedules.find(name))
    click.echo(f"name         {one.name}")
    click.echo(f"resource     {one.resource}")
    click.echo(f"state        {one.state}")
    click.echo(f"cron         {one.cron}  {one.zone}")
    click.echo(f"start        {one.start or 'now'}")
    click.echo(f"end          {one.end or 'never'}")
    if one.runs:
        click.echo(f"runs         {one.runs}")
    click.echo(f"concurrency  {one.concurrency}")
    _tell_next(one)


@schedule.command()
@_name
@_place
def pause(name: str, target: str, **arguments: Any) -> None:
    """Starts no run until it is resumed."""
    _schedules(target, arguments).pause(name)
    click.echo(f"paused {name}")


@schedule.command()
@_name
@_place
def resume(name: str, target: str, **arguments: Any) -> None:
    """Starts runs again; those that were missed are not made up for."""
    _schedules(target, arguments).resume(name)
    click.echo(f"resumed {name}")


@schedule.command()
@_name
@_when(required=False)
@_place
def update(name: str, target: str, **arguments: Any) -> None:
    """Changes when a schedule runs; what is not given stays."""
    from pipelines.targets.schedules import ScheduleConfig, split_cron

    given = {key: arguments.pop(key) for key in _FIELDS}
    given = {key: value for key, value in given.items() if value is not None}
    if target == "kubeflow":
        raise ConfigError(
            "--target kubeflow: its schedules cannot be changed; flowers schedule delete, then "
            "create"
        )
    if not given:
        raise click.UsageError("Give what shall change, e.g. --cron.")
    schedules = _schedules(target, arguments)
    cron, zone = split_cron(schedules.find(name).cron)
    config = ScheduleConfig(name, **({"cron": cron, "time_zone": zone} | given))
    schedules.update(config, sorted({_FIELDS[key] for key in given}))
    click.echo(f"updated {name}")
    _tell_next(schedules.view(schedules.find(name)))


@schedule.command()
@_name
@_place
def delete(name: str, target: str, **arguments: Any) -> None:
    """Removes a schedule; runs that it started go on."""
    _schedules(target, arguments).delete(name)
    click.echo(f"deleted {name}")
