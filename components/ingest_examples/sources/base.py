"""What every source gives: a list of photos, and a reader that any process can use."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

from components.common.errors import DataError

# How data sets that come divided call the three splits.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
# The damage of a photo that is listed without a label.
NO_LABEL = "the row has no label"


@dataclasses.dataclass(frozen=True, slots=True)
class Photo:
    """A labelled photo that has not been read yet. There may be a million of them.

    Attributes:
        name: Unique within the source and the same wherever it is read, e.g. `daisy/1.jpg`.
        class_name: The label; empty where the source gives none.
        place: What its reader needs to find it.
        split: The split that the source itself gives it; empty for none.
        damage: Why there is nothing to read; empty for a photo that can be tried.
        listed_as: What its source and the manifest call it where that is not its name, since it is
            listed more than once; else empty.
    """

    name: str
    class_name: str
    place: str = ""
    split: str = ""
    damage: str = ""
    listed_as: str = ""


class Reader(Protocol):
    """Reads photos of one source. It can be sent to another process."""

    def read(self, photos: Sequence[Photo]) -> Iterator[bytes | OSError]:
        """The encoded images in the order of the photos, or why one of them cannot be read.

        Raises:
            FlowersError: The place as a whole cannot be read, now or for this user.
        """


@dataclasses.dataclass(frozen=True)
class Listing:
    """All photos of a source.

    Attributes:
        class_names: Every class in label order.
        photos: Sorted by name, records by their place in a shard; each name once.
        reader: Gives the bytes of the photos.
        resize: How they became squares before they came here; empty where the source says nothing.
    """

    class_names: tuple[str, ...]
    photos: Sequence[Photo]
    reader: Reader
    resize: str = ""


def check_class_names(
    images: str, names: Sequence[str], advice: str = "add a folder for each further class"
) -> tuple[str, ...]:
    """Refuses fewer than two classes, and names that cannot be a label.

    Args:
        images: The place, as the user named it.
        names: Its classes.
        advice: How such a place gets a further class.

    Raises:
        DataError: Says what to do.
    """
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"class folder {name!r}: expected a name in UTF-8, since it becomes the label; "
                "rename the folder"
            ) from error
    if len(names) < 2:
        found = f"only {names[0]!r}" if names else "none"
        raise DataError(
            f"--images {images}: expected at least two classes, found {found}; {advice}"
        )
    return tuple(names)
