"""What to ingest and how."""

import dataclasses
from pathlib import Path

from components.common import storage
from components.common.config import Range, check, choose
from components.common.errors import ConfigError
from components.common.import_files import folder_of
from components.common.resizing import CROP, RESIZES


@dataclasses.dataclass(frozen=True)
class PhotosConfig:
    """Where the photos are.

    Attributes:
        images: A folder or `gs://bucket/prefix` that holds one folder per class, or TFRecord
            shards, or `train/` and `test/` with either; an import file of Vertex AI (.csv, .jsonl);
            or `synthetic://flowers?per_class=200&seed=7`.
        manifest: CSV with a column `path`, in the folder of images or anywhere; goes with
            `--group-column`.
        group_column: Column of the manifest whose equal values stay in one split, for example the
            photographer.
        previous: Examples of an earlier run; a run that would move a photo of theirs to another
            split is refused.
        new_splits: Move photos between splits all the same.
    """

    images: str
    manifest: str = ""
    group_column: str = ""
    previous: str = ""
    new_splits: bool = False

    def __post_init__(self) -> None:
        if not self.images:
            raise ConfigError("--images: expected a folder of class folders, received nothing")
        if bool(self.manifest) != bool(self.group_column):
            given, absent = "--manifest", "--group-column"
            if not self.manifest:
                given, absent = absent, given
            raise ConfigError(f"{given}: goes with {absent}, which is missing; give both")

    def manifest_place(self) -> str:
        """Where the manifest is, local or `gs://`; empty for none."""
        if not self.manifest or "://" in self.manifest:
            return self.manifest
        if self.images.startswith("gs://"):
            here = Path(self.manifest).is_file()
            return self.manifest if here else storage.join(folder_of(self.images), self.manifest)
        return str(self.manifest_path())

    def manifest_path(self) -> Path | None:
        """Where a local manifest is: beside the photos, or else as named; None for none."""
        if not self.manifest or "://" in self.manifest:
            return None
        beside = Path(folder_of(self.images), self.manifest)
        return beside if beside.is_file() else Path(self.manifest)


@dataclasses.dataclass(frozen=True)
class IngestConfig:
    """How photos become examples.

    Attributes:
        image_size: Side of the stored square images, in pixels.
        validation_fraction: Share of the groups that goes to validation.
        test_fraction: Share of the groups that goes to test.
        max_reject_fraction: The step fails when more of the photos than this cannot be used;
            duplicates do not count.
        split_salt: Another salt gives another, independent division into splits.
        resize: How a photo becomes a square: `crop` keeps its middle, `stretch` all of it, and not
            its aspect; one that is a square stays the same. The finished model does so to whatever
            it is sent.
    """

    image_size: int = 192
    validation_fraction: float = 0.1
    test_fraction: float = 0.15
    max_reject_fraction: float = 0.01
    split_salt: str = "flowers"
    resize: str = CROP

    def __post_init__(self) -> None:
        check("image_size", self.image_size, Range(16, 1024))
        choose("resize", self.resize, RESIZES)
        check("validation_fraction", self.validation_fraction, Range(0.01, 0.8))
        check("test_fraction", self.test_fraction, Range(0.01, 0.8))
        held_out = self.validation_fraction + self.test_fraction
        check("validation_fraction + test_fraction", held_out, Range(0.02, 0.9))
        check("max_reject_fraction", self.max_reject_fraction, Range(0.0, 1.0))
