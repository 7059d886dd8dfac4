"""`flowers data`: fetching photos, and ingesting what has outgrown one machine."""

import uuid
from pathlib import Path
from typing import Any

import click

from components.common.cli import PATH, config_options, take_config
from components.common.recipes import recipe_option, recipe_section
from components.ingest_examples.config import IngestConfig, PhotosConfig

LOCAL = "local"


@click.group("data")
def data() -> None:
    """Fetches and ingests photos."""


@data.command()
@click.option("--output", type=PATH, required=True, help="Folder to make.")
def fetch(output: Path) -> None:
    """Downloads the public flower photos: 3,670 of five classes, 229 MB.

    Goes on where an earlier call ended, and verifies the SHA-256 before anything is unpacked.
    OUTPUT/MANIFEST.csv has the author of each, for --manifest MANIFEST.csv --group-column author.
    """
    from pipelines.fetch import FLOWER_PHOTOS, fetch

    fetch(FLOWER_PHOTOS, output)


@data.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    epilog="Further flags are Beam's, e.g. --project, --region, --sdk_container_image.",
)
@config_options(PhotosConfig)
@click.option("--output", required=True, help="Folder or gs://BUCKET/NAME to make.")
@recipe_option("ingest")
@config_options(IngestConfig)
@click.option(
    "--runner",
    default=LOCAL,
    show_default=True,
    help="local, or a runner of Apache Beam: DirectRunner, DataflowRunner, ...",
)
@click.option(
    "--scratch",
    help="Folder or gs://BUCKET/NAME for what lies between the stages; all workers must reach it.  "
    "[beside OUTPUT]",
)
@click.option(
    "--workers", type=click.IntRange(min=0), default=0, help="Local processes; 0: one per core."
)
@click.pass_context
def ingest(
    context: click.Context,
    /,
    output: str,
    recipe: str | None,
    runner: str,
    scratch: str | None,
    workers: int,
    **arguments: Any,
) -> None:
    """Photos to TFRecord shards of three splits, on this machine or on many.

    Makes OUTPUT/examples and OUTPUT/report.html. The shards are the same bytes whichever runner
    made them.
    """
    photos = take_config(PhotosConfig, arguments)
    config = take_config(IngestConfig, arguments, recipe_section(recipe, "ingest"))
    beam_flags = context.args
    if runner == LOCAL:
        if beam_flags:
            raise click.UsageError(f"No such option: {beam_flags[0]} (with --runner local).")
        if "://" not in output:
            if scratch:
                raise click.UsageError("--scratch goes with an output in gs://, or with Beam.")
            _ingest_here(photos, config, Path(output), workers)
            return
    _ingest_there(photos, config, output, scratch, runner, workers, beam_flags)


def _ingest_here(photos: PhotosConfig, config: IngestConfig, output: Path, workers: int) -> None:
    from components.common.outputs import staged
    from components.ingest_examples.ingest import ingest

    with staged(output) as (folder,):
        ingest(photos, config, folder / "examples", folder / "report.html", workers)


def _ingest_there(
    photos: PhotosConfig,
    config: IngestConfig,
    output: str,
    scratch: str | None,
    runner: str,
    workers: int,
    beam_flags: list[str],
) -> None:
    from components.ingest_examples.ingest import ingest_to
    from components.ingest_examples.runners import LocalRunner

    # A name of its own, so that two runs at the same time never share a file.
    name = uuid.uuid4().hex[:12]
    beside = f"{output.rstrip('/')}.scratch-{name}"
    place = f"{scratch.rstrip('/')}/{name}" if scratch else beside
    if runner == LOCAL:
        with LocalRunner(workers) as local:
            ingest_to(photos, config, output, place, local)
        return
    from components.ingest_examples.beam_runner import BeamRunner

    beam = BeamRunner([f"--runner={runner}", *beam_flags], place)
    ingest_to(photos, config, output, place, beam)
