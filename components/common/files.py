"""Names of files that one step writes and somebody else reads; needs no TensorFlow."""

import hashlib
from pathlib import Path

# In a data set: class names, image size, counts, fingerprint.
DATASET_FILE = "dataset.json"
# Beside it: one line per photo that was read.
LEDGER_FILE = "photos.csv"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
