"""Import files of Vertex AI as a place of photos: what can be said of one by its name."""

from pathlib import Path

from components.common import storage

_ENDINGS = (".csv", ".jsonl")


def is_import_file(images: str) -> bool:
    """Whether `--images` names an import file of Vertex AI, here or in a bucket."""
    return images.lower().endswith(_ENDINGS) and not Path(images).is_dir()


def folder_of(images: str) -> str:
    """The folder that photos lie in, or that their import file does."""
    if not is_import_file(images):
        return images
    return images.rpartition("/")[0] if storage.is_remote(images) else str(Path(images).parent)
