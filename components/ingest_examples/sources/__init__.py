"""Where photos come from: one reader for each kind of place, behind one interface.

| `--images` | read by |
|---|---|
| `synthetic://flowers?per_class=200&seed=7` | `drawn` |
| a folder of class folders, or of `train/` and `test/` with such folders | `folders` |
| `gs://bucket/prefix` of the same | `buckets` |
| a folder or `gs://bucket/prefix` of TFRecord shards | `records` |
| an import file of Vertex AI, `.csv` or `.jsonl`, local or `gs://` | `import_files` |

What lies where is listed once; the bytes are read later, by any process, through the listing's
reader. Each module is imported when a place needs it.
"""

from pathlib import Path

from components.common import gcs
from components.common.errors import ConfigError
from components.common.import_files import is_import_file
from components.ingest_examples import synthetic
from components.ingest_examples.sources import drawn
from components.ingest_examples.sources.base import Listing, Photo, Reader
from components.ingest_examples.sources.folders import (
    FolderReader,
    Tree,
    find_class_folders,
    list_tree,
    peek_folder,
    read_tree,
)
from components.ingest_examples.sources.manifest import read_groups

__all__ = ["Listing", "Photo", "Reader", "find_class_names", "open_source", "read_groups"]


def find_class_names(images: str) -> tuple[str, ...]:
    """Takes a first look at a place, and names its classes where that needs no reading.

    Args:
        images: See the table above.

    Returns:
        Every class in label order; nothing for TFRecord shards, whose records have to be read.

    Raises:
        DataError: There is no such place, or no second class in it.
        ConfigError: The place is of a kind that is not known.
    """
    if images.startswith(drawn.SCHEME):
        drawn.parse_options(images)
        return synthetic.CLASS_NAMES
    if is_import_file(images):
        return open_source(images).class_names
    tree = _peek(images)
    return () if tree.shards() else find_class_folders(tree)


def open_source(images: str) -> Listing:
    """Lists the photos at a place.

    Args:
        images: See the table above.

    Raises:
        DataError: There are no photos, or there is no second class.
        ConfigError: The place is of a kind that is not known, or there is no credential for it.
    """
    if images.startswith(drawn.SCHEME):
        return drawn.list_flowers(images)
    if is_import_file(images):
        from components.ingest_examples.sources.import_files import list_import_file

        return list_import_file(images)
    tree = _tree(images)
    if tree.shards():
        from components.ingest_examples.sources.records import list_records

        return list_records(tree)
    if images.startswith(gcs.SCHEME):
        from components.ingest_examples.sources.buckets import BucketReader

        return list_tree(tree, BucketReader(images))
    return list_tree(tree, FolderReader(images))


def _peek(images: str) -> Tree:
    if images.startswith(gcs.SCHEME):
        from components.ingest_examples.sources.buckets import peek_bucket

        return peek_bucket(images)
    _check_scheme(images)
    return peek_folder(Path(images))


def _tree(images: str) -> Tree:
    if images.startswith(gcs.SCHEME):
        from components.ingest_examples.sources.buckets import read_bucket

        return read_bucket(images)
    _check_scheme(images)
    return read_tree(Path(images))


def _check_scheme(images: str) -> None:
    if "://" in images:
        raise ConfigError(
            f"--images {images}: expected a folder, gs://BUCKET/PREFIX, an import file (.csv or "
            ".jsonl) or synthetic://flowers"
        )
