"""`flowers deploy`: what serves, and changing it by hand."""

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
        click.echo("a roll-out was cut off; the next promote, rollback or run restores its traffic")


@deploy.command()
@_registry
@click.option("--version", required=True, help="Version to give all traffic to.")
@click.option("--serving-config", default="{}", metavar="FILE|JSON", help="Machines on Vertex AI.")
@click.option("--photos", type=PATH, multiple=True, help="Photos to try the canary with.")
def promote(
    registry: str, model_name: str, version: str, serving_config: str, photos: tuple[Path, ...]
) -> None:
    """Gives a version all traffic, by way of a canary, whatever the champion rule says."""
    _change(registry, model_name, serving_config, photos, lambda _: version)


@deploy.command()
@_registry
@click.option("--serving-config", default="{}", metavar="FILE|JSON", help="Machines on Vertex AI.")
@click.option("--photos", type=PATH, multiple=True, help="Photos to try the canary with.")
def rollback(registry: str, model_name: str, serving_config: str, photos: tuple[Path, ...]) -> None:
    """Gives all traffic to the version that was champion before."""
    from components.deploy_model.registries import previous_version

    _change(registry, model_name, serving_config, photos, previous_version)


def _change(
    registry: str,
    model_name: str,
    serving_config: str,
    photos: tuple[Path, ...],
    choose: Callable[[Any], str],
) -> None:
    from components.common.config import build, read_mapping
    from components.deploy_model.config import ServingConfig
    from components.deploy_model.registries import open_registry, promote

    serving = build(ServingConfig, read_mapping(serving_config))
    contents = [_read_photo(path) for path in photos]
    with open_registry(registry, model_name, serving, must_exist=True) as opened:
        version = choose(opened)
        promote(opened, version, contents)
    click.echo(f"version {version} serves")


def _read_photo(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--photos {path}: cannot be read ({error.strerror})") from error
