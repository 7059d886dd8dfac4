"""Where recipes are. What is in one is checked by `pipelines.recipe` and by the steps.

Recipes are data that lie beside the pipeline; a step that is run by hand finds them by the same
names as `flowers run` does.
"""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import click

from components.common.config import read_mapping
from components.common.errors import ConfigError

Function = TypeVar("Function", bound=Callable[..., Any])
# One section per step that has something to set; a test compares them with `Recipe`.
SECTIONS = ("ingest", "augment", "model", "train", "gate", "export", "deploy")
_FOLDER = files("pipelines") / "recipes"


def recipe_names() -> list[str]:
    """Names of the recipes that come with the project."""
    names = (entry.name for entry in _FOLDER.iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def recipe_path(name_or_path: str) -> str:
    """The YAML file of a recipe.

    Args:
        name_or_path: Name of a recipe of the project, or path of a YAML file.

    Raises:
        ConfigError: It is neither.
    """
    names = recipe_names()
    if name_or_path in names:
        return str(_FOLDER / f"{name_or_path}.yaml")
    if not Path(name_or_path).is_file():
        raise ConfigError(
            f"--recipe {name_or_path}: expected one of {', '.join(names)}, or a YAML file"
        )
    return name_or_path


def recipe_option(section: str) -> Callable[[Function], Function]:
    """Adds `--recipe` to the command of a step that one section of a recipe says all of."""
    return click.option(
        "--recipe",
        metavar="NAME|FILE",
        help=f"Takes what its section {section} says where no flag says otherwise.",
    )


def recipe_section(
    name_or_path: str | None, section: str, optional: bool = False
) -> dict[str, Any]:
    """A section of a recipe, as it stands there; nothing without a recipe.

    Args:
        name_or_path: Of the recipe; None for none.
        section: Name of the section.
        optional: A recipe may have none, which says nothing then.

    Raises:
        ConfigError: There is no such recipe, or it has no such section.
    """
    if name_or_path is None:
        return {}
    content = read_mapping(recipe_path(name_or_path))
    found = content.get(section, {} if optional else None)
    if not isinstance(found, dict):
        raise ConfigError(
            f"--recipe {name_or_path}: expected a section {section} with keys, received "
            f"{', '.join(map(str, content)) or 'nothing'}"
        )
    return found
