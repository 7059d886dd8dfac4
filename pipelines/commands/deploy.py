"""`flowers deploy`: what serves, and changing it by hand."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from components.common.cli import PATH
from components.common.errors import ConfigError


@click.group()
def deploy() -> None:
    """Shows which version of a model serves, and changes it by hand."""


def _registry(function: Any) -> Any:
    function = click.option(
        "--model-name", default="flowers", show_default=True, help="Model and endpoint."
    )(function)
    return click.option("--registry", required=True, help="A folder, or vertex://PROJECT/REGION.")(
        function
    )


@deploy.command()
@_registry
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(registry: str, model_name: str, as_json: bool) -> None:
    """Shows versions, aliases and traffic."""
    from components.common.config import to_json
    from components.deploy_model.registries import open_registry, plain_status

    with open_registry(registry, model_name, must_exist=True) as opened:
        found = plain_status(opened)
    if as_json:
        click.echo(to_json(found), nl=False)
        return
    for version in found["versions"]:
        share = found["traffic"].get(version["id"])
        shown = "-" if share is None else f"{share} %"
        labels = version["labels"]
        click.echo(
            f"{version['id']:>4}  {shown:>5}  {', '.join(version['aliases']) or '-':<20}  "
            f"accuracy {labels.get('accuracy', '-')}  run {labels.get('run', '-')}"
        )
    if not found["versions"]:
        click.echo(f"model {model_name} has no version")
    if found["unfinished_rollout"]:
        click.echo(
            "a roll-out is under way, or was cut off; the next promote, rollback or run ends one "
            "that was"
        )


def _change_options(function: Any) -> Any:
    for option in (
        click.option(
            "--take-over", is_flag=True, help="Do not wait for a deployment that is dead."
        ),
        click.option("--photos", type=PATH, multiple=True, help="Photos to try the canary with."),
        click.option(
            "--serving-config", default="{}", metavar="FILE|JSON", help="Machines on Vertex AI."
        ),
    ):
        function = option(function)
    return function


@deploy.command()
@_registry
@click.option("--version", required=True, help="Version to give all traffic to.")
@_change_options
def promote(version: str, **options: Any) -> None:
    """Gives a version all traffic, by way of a canary, whatever the champion rule says."""
    from components.deploy_model.registries import promote

    _change(lambda registry, *how: promote(registry, version, *how), **options)


@deploy.command()
@_registry
@_change_options
def rollback(**options: Any) -> None:
    """Gives all traffic to the version that was champion before."""
    from components.deploy_model.registries import roll_back

    _change(roll_back, **options)


def _change(
    change: Callable[[Any, list[bytes], str, bool], str],
    registry: str,
    model_name: str,
    serving_config: str,
    photos: tuple[Path, ...],
    take_over: bool,
) -> None:
    from components.common.config import build, read_mapping
    from components.deploy_model.config import ServingConfig
    from components.deploy_model.registries import open_registry

    serving = build(ServingConfig, read_mapping(serving_config))
    contents = [_read_photo(path) for path in photos]
    owner = f"by-hand-{uuid.uuid4().hex[:8]}"
    with open_registry(registry, model_name, serving, must_exist=True) as opened:
        version = change(opened, contents, owner, take_over)
    click.echo(f"version {version} serves")


def _read_photo(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--photos {path}: cannot be read ({error.strerror})") from error
