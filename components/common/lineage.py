"""The chain data -> model -> evaluation -> verdict -> export, held together by digests.

    dataset.json      fingerprint of its records, and of the data set it was made from
    model.json        digest of the Keras file, fingerprints of the data it was trained on
    evaluation        digest of the model, fingerprint of the records as they were read
    verdict           digests of the model and the evaluation
    SavedModel        assets.extra/flowers.json: digests of all of these and of its own files

Each step compares what it is given. So an old file, one of another run, or one that was changed is
refused. Files that were all changed to fit each other are not what KFP noted when their steps
ended (`check_stamps`); and where there is no KFP, export and deployment count the test split anew.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from components.common.dataset import Dataset, fingerprint
from components.common.errors import DataError
from components.common.example_proto import CLASS, LABEL, Features
from components.common.files import DATASET_FILE, file_digest
from components.common.tfrecords import read_shard

_STAMP = "digest"


class Artifact(Protocol):
    """What KFP hands a step: where files are, and what was noted of them."""

    path: str
    metadata: dict[str, Any]


def digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, over the names and digests of its files.

    A data set is its description, whose fingerprint stands for the records.

    Raises:
        DataError: There is nothing there.
    """
    if (path / DATASET_FILE).is_file():
        path = path / DATASET_FILE
    try:
        return _tree_digest(path) if path.is_dir() else file_digest(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def saved_model_digest(folder: Path) -> str:
    """Digest of the files of a SavedModel, those that say something about it left out."""
    return _tree_digest(folder, leave_out="assets.extra")


def _tree_digest(folder: Path, leave_out: str = "") -> str:
    result = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and name.parts[0] != leave_out:
            result.update(f"{name.as_posix()}\0{file_digest(path)}\n".encode())
    return result.hexdigest()


def stamp(*artifacts: Artifact) -> None:
    """Has KFP note what the outputs of a step are, apart from the files themselves."""
    for artifact in artifacts:
        artifact.metadata[_STAMP] = digest(Path(artifact.path))


def check_stamps(**artifacts: Artifact) -> None:
    """Refuses inputs that are not what KFP noted when the step that made them ended.

    Raises:
        DataError: Files were changed since, or nothing was noted.
    """
    for name, artifact in artifacts.items():
        expected, received = artifact.metadata.get(_STAMP, ""), digest(Path(artifact.path))
        if expected != received:
            raise DataError(
                f"{name}: expected what its step wrote, digest {expected[:12] or 'unknown'}, "
                f"received {received[:12]}; it was changed since, so run the pipeline again"
            )


def check_records(dataset: Dataset) -> None:
    """Reads a data set whole and compares it with its description.

    Raises:
        DataError: Records are not those that the fingerprint was taken of, or a label of theirs is
            not the name that the description gives its class.
    """
    received = fingerprint(_digests(dataset))
    if received != dataset.fingerprint:
        raise DataError(
            f"data set {dataset.path}: expected records with fingerprint "
            f"{dataset.fingerprint[:12]}, received {received[:12]}; shards were changed since it "
            "was written, so make it anew"
        )


def _digests(dataset: Dataset) -> Iterator[tuple[str, bytes]]:
    names = [name.encode() for name in dataset.class_names]
    for split in dataset.counts:
        for shard in dataset.shards(split):
            for payload in read_shard(shard):
                features = Features(payload)
                (label,) = features.ints(CLASS, 1)
                if not 0 <= label < len(names) or features.bytes(LABEL) != names[label]:
                    raise DataError(
                        f"shard {shard}: expected labels in the order {list(dataset.class_names)}, "
                        f"received class {label} with the label {features.bytes(LABEL)!r:.60}; "
                        "ingest the photos anew"
                    )
                yield split, hashlib.sha256(payload).digest()
