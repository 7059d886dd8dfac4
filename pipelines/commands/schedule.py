"""`flowers schedule`: the pipeline again and again on Vertex AI."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from components.common.cli import PATH, config_options
from components.ingest_examples.config import PhotosConfig
from pipelines.commands.options import (
    TARGET_FLAGS,
    recipe_options,
    take_target,
    target_options,
)
from pipelines.image_lock import LOCK_FILE

_PLACE = ("project", "region", "pipeline_root")
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
    """Retrains on a schedule of Vertex AI."""


def _when(required: bool) -> Callable[[Any], Any]:
    """Adds the flags that say when."""

    def decorate(function: Any) -> Any:
        for option in reversed(
            (
                click.option("--cron", required=required, help="Five fields, e.g. '0 3 * * 1'."),
                click.option("--time-zone", help="E.g. Europe/Zurich.  [UTC]"),
                click.option("--start", help="First moment, e.g. 2030-01-31T03:00."),
                click.option("--end", help="Last moment."),
                click.option("--max-runs", type=int, help="Number of runs.  [no limit]"),
                click.option("--concurrency", type=int, help="Runs at the same time.  [1]"),
            )
        ):
            function = option(function)
        return function

    return decorate


_name = click.option("--name", required=True, help="Name; the same name is the same schedule.")


def _schedules(arguments: dict[str, Any]) -> Any:
    from components.common.vertex import Vertex
    from pipelines.targets.schedules import Schedules

    target = take_target(arguments | {"pipeline_root": arguments.get("pipeline_root")})
    return Schedules(Vertex(target.project, target.region))


@schedule.command()
@_name
@_when(required=True)
@config_options(PhotosConfig)
@recipe_options
@target_options(*TARGET_FLAGS)
@click.option("--image-lock", type=PATH, default=LOCK_FILE, show_default=True)
@click.option("--dry-run", is_flag=True, help="Print the exact request and send nothing.")
def create(
    name: str,
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
    from components.common.vertex import Vertex
    from pipelines.commands.submit import compile_for
    from pipelines.targets.schedules import Schedules
    from pipelines.targets.vertex import check
    from pipelines.targets.vertex_pipeline import dry_run as shown
    from pipelines.targets.vertex_pipeline import pipeline_job

    config = _config(name, arguments)
    target, spec = compile_for(recipe, assignments, image_lock, arguments)
    vertex = Vertex(target.project, target.region)
    plain = config.to_plain(vertex, pipeline_job(spec, {}, target))
    if dry_run:
        click.echo(shown(f"POST /v1/{vertex.parent}/schedules", plain), nl=False)
        return
    check(vertex, target, spec)
    schedules = Schedules(vertex)
    made, new = schedules.create(plain)
    click.echo(f"{'created' if new else 'exists already:'} {made.display_name} ({made.name})")
    if not new:
        click.echo("nothing was changed; flowers schedule update changes it")
    _tell_runs(config)


def _config(name: str, arguments: dict[str, Any]) -> Any:
    from pipelines.targets.schedules import ScheduleConfig

    given = {key: arguments.pop(key) for key in _FIELDS}
    return ScheduleConfig(name, **{key: value for key, value in given.items() if value is not None})


def _tell_runs(config: Any) -> None:
    for moment in config.first_runs():
        click.echo(f"next run  {moment.isoformat()}  {config.time_zone}")


@schedule.command("list")
@target_options(*_PLACE)
def list_(**arguments: Any) -> None:
    """Lists the schedules."""
    for one in _schedules(arguments).all():
        click.echo(f"{one.display_name}  {one.state.name.lower()}  {one.cron}")


@schedule.command()
@_name
@target_options(*_PLACE)
def show(name: str, **arguments: Any) -> None:
    """Shows a schedule and its next three runs."""
    from pipelines.targets.schedules import ScheduleConfig, split_cron

    one = _schedules(arguments).find(name)
    cron, zone = split_cron(one.cron)
    click.echo(f"name         {one.display_name}")
    click.echo(f"resource     {one.name}")
    click.echo(f"state        {one.state.name.lower()}")
    click.echo(f"cron         {cron}  {zone}")
    click.echo(f"start        {one.start_time or 'now'}")
    click.echo(f"end          {one.end_time or 'never'}")
    click.echo(f"runs         {one.started_run_count} of {one.max_run_count or 'any number'}")
    click.echo(f"concurrency  {one.max_concurrent_run_count}")
    if one.state.name == "ACTIVE":
        config = ScheduleConfig(one.display_name, cron, zone)
        for moment in config.next_runs(datetime.datetime.now(datetime.UTC)):
            click.echo(f"next run     {moment.isoformat()}")


@schedule.command()
@_name
@target_options(*_PLACE)
def pause(name: str, **arguments: Any) -> None:
    """Starts no run until it is resumed."""
    _schedules(arguments).pause(name)
    click.echo(f"paused {name}")


@schedule.command()
@_name
@target_options(*_PLACE)
def resume(name: str, **arguments: Any) -> None:
    """Starts runs again; those that were missed are not made up for."""
    _schedules(arguments).resume(name)
    click.echo(f"resumed {name}")


@schedule.command()
@_name
@_when(required=False)
@target_options(*_PLACE)
def update(name: str, **arguments: Any) -> None:
    """Changes when a schedule runs; what is not given stays."""
    from pipelines.targets.schedules import ScheduleConfig, split_cron

    given = {key: arguments.pop(key) for key in _FIELDS}
    given = {key: value for key, value in given.items() if value is not None}
    if not given:
        raise click.UsageError("Give what shall change, e.g. --cron.")
    schedules = _schedules(arguments)
    cron, zone = split_cron(schedules.find(name).cron)
    config = ScheduleConfig(name, **({"cron": cron, "time_zone": zone} | given))
    schedules.update(config, sorted({_FIELDS[key] for key in given}))
    click.echo(f"updated {name}")
    _tell_runs(config)


@schedule.command()
@_name
@target_options(*_PLACE)
def delete(name: str, **arguments: Any) -> None:
    """Removes a schedule; runs that it started go on."""
    _schedules(arguments).delete(name)
    click.echo(f"deleted {name}")
