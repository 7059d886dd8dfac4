"""The command line of the step: `python -m components.ingest_examples`."""

from pathlib import Path
from typing import Any

import click

from components.common.cli import PATH, config_options, run_cli, take_config
from components.common.outputs import staged
from components.common.recipes import recipe_option, recipe_section
from components.common.step import run_step
from components.ingest_examples.config import IngestConfig, PhotosConfig


@click.command("ingest-examples")
@config_options(PhotosConfig)
@click.option("--output", type=PATH, required=True, help="Folder to make.")
@recipe_option("ingest")
@config_options(IngestConfig)
@click.option(
    "--workers", type=click.IntRange(min=0), default=0, help="Processes; 0: one per core."
)
def command(output: Path, recipe: str | None, workers: int, **arguments: Any) -> None:
    """Photos to TFRecord shards of three splits.

    Makes OUTPUT/examples (shards, dataset.json and photos.csv) and OUTPUT/report.html.
    """
    with run_step("ingest-examples"):
        photos = take_config(PhotosConfig, arguments)
        config = take_config(IngestConfig, arguments, recipe_section(recipe, "ingest"))
        from components.ingest_examples.ingest import ingest

        with staged(output) as (folder,):
            ingest(photos, config, folder / "examples", folder / "report.html", workers)


if __name__ == "__main__":
    run_cli(command)
