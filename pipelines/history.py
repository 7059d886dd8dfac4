"""What earlier runs of a folder say about the splits of the same photos."""

import json
from pathlib import Path

from components.common.files import DATASET_FILE
from components.ingest_examples.config import IngestConfig, PhotosConfig


def check_earlier_splits(photos: PhotosConfig, config: IngestConfig, output: Path) -> None:
    """Refuses a run that would divide photos otherwise than the last run that ingested them.

    Args:
        photos: Where the photos are; with `new_splits` nothing is refused.
        config: How they are divided.
        output: Folder of the runs.

    Raises:
        ConfigError: Salt, fractions or group column differ.
    """
    from components.ingest_examples.stability import check_rule, split_rule

    if photos.new_splits:
        return
    place = photos.images if "://" in photos.images else str(Path(photos.images).resolve())
    for file in sorted(output.glob("*/run.json"), reverse=True):
        examples = file.parent / "steps" / "ingest-examples" / "examples"
        if _images_of(file) == place and (examples / DATASET_FILE).is_file():
            check_rule(str(examples), split_rule(photos, config))
            return


def _images_of(file: Path) -> str | None:
    """Where the photos of a run were; None for a file that no run of ours wrote."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return str(content["parameters"]["images"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
