"""The command line of the step: `python -m components.augment_examples`."""

from pathlib import Path
from typing import Any

import click

from components.augment_examples.config import AugmentConfig
from components.common.cli import PATH, config_options, run_cli, take_config
from components.common.outputs import staged
from components.common.recipes import recipe_option, recipe_section
from components.common.step import import_tensorflow_quietly, run_step


@click.command("augment-examples")
@click.option("--examples", type=PATH, required=True, help="Examples of ingest-examples.")
@click.option("--output", type=PATH, required=True, help="Folder to make.")
@recipe_option("augment")
@config_options(AugmentConfig)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=0,
    help="Images at a time; 0: as the cores take.",
)
def command(
    examples: Path, output: Path, recipe: str | None, workers: int, **arguments: Any
) -> None:
    """Augmented copies of the train split, and of no other.

    Makes OUTPUT/augmented, a data set of the train split and its copies, and OUTPUT/report.html
    with pictures before and after.
    """
    with run_step("augment-examples"):
        config = take_config(AugmentConfig, arguments, recipe_section(recipe, "augment"))
        import_tensorflow_quietly()
        from components.augment_examples.augment import augment

        with staged(output) as (folder,):
            augment(examples, config, folder / "augmented", folder / "report.html", workers)


if __name__ == "__main__":
    run_cli(command)
