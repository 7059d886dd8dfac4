"""Photos in, TFRecord shards of three splits out, and a ledger in which no photo is missing."""

import csv
import dataclasses
import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO

from components.common.dataset import SPLITS, Dataset, DatasetWriter
from components.common.errors import DataError
from components.common.examples import encode_example
from components.common.files import LEDGER_FILE
from components.common.outputs import staged
from components.common.progress import progress, say
from components.ingest_examples.config import IngestConfig, PhotosConfig
from components.ingest_examples.ledger import Entry, Groups, IngestResult
from components.ingest_examples.photos import DUPLICATES, Prepared, Reason, prepare
from components.ingest_examples.report import write_report
from components.ingest_examples.sources import Photo, Source, open_source, read_groups
from components.ingest_examples.splits import (
    PROTECTION,
    Fractions,
    choose_split,
    exact_duplicates,
    near_duplicates,
    straddlers,
)

STEP = "ingest-examples"
# Small enough that a thousand photos spread over several readers, large enough that opening a
# file costs nothing beside reading it.
_EXAMPLES_PER_SHARD = 256
_REJECTS_NAMED = 20
_PHOTOS_PER_TASK = 16


def ingest(
    photos: PhotosConfig, config: IngestConfig, examples: Path, report: Path, workers: int = 0
) -> IngestResult:
    """Writes the shards of the three splits and a page about the data.

    Args:
        photos: Where the photos are.
        config: How they become examples.
        examples: Folder to make; see `components.common.dataset` for what lies in it, and
            `photos.csv` for every photo that was read.
        report: HTML page to make.
        workers: Processes that decode; 0 for one per core.

    Raises:
        DataError: There are no photos, too many cannot be used, or a class is missing in a split.
        ConfigError: The manifest or an option is wrong.
    """
    source = open_source(photos.images)
    groups = _groups(photos)
    with staged(report, examples) as (staged_report, staged_examples):
        staged_examples.mkdir()
        result = _ingest(source, groups, config, staged_examples, workers)
        write_report(result, photos.images, staged_report)
    dataset = dataclasses.replace(result.dataset, path=examples)
    say(
        STEP,
        f"wrote {result.written} of {len(result.entries)} photos: "
        + ", ".join(f"{count} {split}" for split, count in dataset.counts.items())
        + f"; {result.rejected.total()} rejected",
    )
    return dataclasses.replace(result, dataset=dataset)


def _ingest(
    source: Source,
    groups: Groups | None,
    config: IngestConfig,
    output: Path,
    workers: int,
) -> IngestResult:
    spill = output / ".spill"
    with spill.open("w+b") as file:
        classify = _Classifier(groups, config)
        prepared = _prepared(source.photos, config.image_size, workers)
        entries, places = _spill(prepared, len(source.photos), classify, file)
        entries, pairs = _set_duplicates_aside(entries)
        _print_rejects(entries)
        _check_rejects(entries, config.max_reject_fraction)
        _check_splits(entries, source.class_names)
        store = _Store(file, places)
        dataset = _write_splits(entries, store, source.class_names, config.image_size, output)
        sheet = _contact_sheet(entries, store, source.class_names)
    spill.unlink()
    _write_ledger(entries, output / LEDGER_FILE)
    names = tuple((entries[a].name, entries[b].name) for a, b in pairs)
    return IngestResult(dataset, tuple(entries), names, sheet)


class _Store:
    """Prepared images on disk, so that memory stays flat however many there are."""

    def __init__(self, file: BinaryIO, places: dict[str, tuple[int, int]]) -> None:
        self._file = file
        self._places = places

    def read(self, entry: Entry) -> bytes:
        offset, length = self._places[entry.name]
        self._file.seek(offset)
        return self._file.read(length)


def _groups(photos: PhotosConfig) -> Groups | None:
    """The groups that a column names, or None where none does."""
    manifest = photos.manifest_path()
    if manifest is None:
        return None
    return Groups(photos.group_column, read_groups(manifest, photos.group_column))


def _prepared(
    photos: Sequence[Photo], image_size: int, workers: int
) -> Iterator[tuple[Photo, Prepared]]:
    """Prepares photos in worker processes and gives them back in order.

    A batch at a time, so that a slow consumer never piles a million images up in memory.
    """
    work = partial(prepare, image_size=image_size)
    workers = min(workers or os.cpu_count() or 1, math.ceil(len(photos) / _PHOTOS_PER_TASK))
    batch = 32 * _PHOTOS_PER_TASK * workers
    # TensorFlow's threads do not survive a fork, so the workers start from a clean process.
    with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
        for start in range(0, len(photos), batch):
            part = photos[start : start + batch]
            yield from zip(part, pool.map(work, part, chunksize=_PHOTOS_PER_TASK), strict=True)


def _spill(
    prepared: Iterator[tuple[Photo, Prepared]], total: int, classify: "_Classifier", file: BinaryIO
) -> tuple[list[Entry], dict[str, tuple[int, int]]]:
    """Writes the prepared images to a file; returns the ledger and where each image lies."""
    entries = []
    places = {}
    with progress(STEP, "photos", total) as shown:
        for photo, ready in prepared:
            entry = classify(photo, ready)
            if not entry.reason:
                places[entry.name] = (file.tell(), len(ready.jpeg))
                file.write(ready.jpeg)
            entries.append(entry)
            shown.advance()
    return entries, places


class _Classifier:
    """Gives each photo its group and its split."""

    def __init__(self, groups: Groups | None, config: IngestConfig) -> None:
        self._groups = groups
        self._fractions = Fractions(config.validation_fraction, config.test_fraction)
        self._salt = config.split_salt

    def __call__(self, photo: Photo, prepared: Prepared) -> Entry:
        phash = f"{prepared.phash:016x}"
        entry = Entry(
            name=photo.name,
            class_name=photo.class_name,
            group=f"phash:{phash}",
            sha256=prepared.sha256,
            phash=phash,
            width=prepared.width,
            height=prepared.height,
        )
        if prepared.reason:
            return entry.rejected(prepared.reason, prepared.detail)
        if self._groups is not None:
            if photo.name not in self._groups.of:
                return entry.rejected(Reason.NOT_IN_MANIFEST, "no row has this path")
            # An empty cell says that nobody knows: then the photo is a group of its own.
            if value := self._groups.of[photo.name]:
                entry = dataclasses.replace(entry, group=f"{self._groups.column}:{value}")
        split = choose_split(entry.group, self._fractions, self._salt)
        return dataclasses.replace(entry, split=split)


def _set_duplicates_aside(entries: list[Entry]) -> tuple[list[Entry], list[tuple[int, int]]]:
    """Rejects copies, copies under two labels, and look-alikes that would straddle two splits.

    Returns:
        The entries, and the pairs of near-duplicates among those that are left of the first two.
    """
    entries = list(entries)
    usable = [index for index, entry in enumerate(entries) if not entry.reason]
    for copies in exact_duplicates([entries[index].sha256 for index in usable]):
        _reject_copies(entries, [usable[copy] for copy in copies])
    usable = [index for index in usable if not entries[index].reason]
    hashes = [int(entries[index].phash, 16) for index in usable]
    pairs = list(near_duplicates(hashes))
    splits = [entries[index].split for index in usable]
    for weaker, stronger in straddlers(splits, pairs).items():
        other = entries[usable[stronger]]
        entries[usable[weaker]] = entries[usable[weaker]].rejected(
            Reason.NEAR_DUPLICATE, f"looks like {other.name} in {splits[stronger]}"
        )
    return entries, [(usable[first], usable[second]) for first, second in pairs]


def _reject_copies(entries: list[Entry], copies: list[int]) -> None:
    """Keeps the first of equal photos in the split protected most; none when labels differ."""
    if len({entries[index].class_name for index in copies}) == 1:
        kept = max(copies, key=lambda index: (PROTECTION[entries[index].split], -index))
        for index in copies:
            if index != kept:
                entries[index] = entries[index].rejected(
                    Reason.EXACT_DUPLICATE, f"same bytes as {entries[kept].name}"
                )
        return
    names = [entries[index].name for index in copies]
    for index in copies:
        others = ", ".join(name for name in names if name != entries[index].name)
        entries[index] = entries[index].rejected(Reason.TWO_LABELS, f"same bytes as {others}")


def _print_rejects(entries: list[Entry]) -> None:
    rejected = [entry for entry in entries if entry.reason]
    for entry in rejected[:_REJECTS_NAMED]:
        say(STEP, f"rejected {entry.name!r}: {entry.reason} ({entry.detail})")
    if len(rejected) > _REJECTS_NAMED:
        say(STEP, f"rejected {len(rejected) - _REJECTS_NAMED} more photos")


def _check_rejects(entries: list[Entry], limit: float) -> None:
    damaged = [entry for entry in entries if entry.reason and entry.reason not in DUPLICATES]
    if len(damaged) <= limit * len(entries):
        return
    reasons = Counter(entry.reason for entry in damaged).most_common()
    raise DataError(
        f"{len(damaged)} of {len(entries)} photos cannot be used "
        f"({', '.join(f'{count} {reason}' for reason, count in reasons)}; "
        f"the first is {damaged[0].name!r}): expected at most {limit:.1%}; mend or remove them, "
        "or raise --max-reject-fraction"
    )


def _check_splits(entries: list[Entry], class_names: tuple[str, ...]) -> None:
    """Refuses a class that a split lacks: it could not be learnt, chosen by, or tested."""
    counts = Counter((entry.class_name, entry.split) for entry in entries if not entry.reason)
    for name in class_names:
        per_split = {split: counts[name, split] for split in SPLITS}
        if not all(per_split.values()):
            listed = ", ".join(f"{count} in {split}" for split, count in per_split.items())
            raise DataError(
                f"class {name!r} has {sum(per_split.values())} usable photos, {listed}: expected "
                "at least one in every split; add photos to this class (some 60 are enough), "
                "remove its folder, or try another --split-salt"
            )


def _write_splits(
    entries: list[Entry],
    store: _Store,
    class_names: tuple[str, ...],
    image_size: int,
    output: Path,
) -> Dataset:
    def encode(entry: Entry) -> bytes:
        label = class_names.index(entry.class_name)
        return encode_example(store.read(entry), label, class_names, image_size)

    writer = DatasetWriter(output, class_names, image_size)
    for split in SPLITS:
        chosen = [entry for entry in entries if entry.split == split]
        # A fixed order that mixes the classes, so that each shard is a fair sample.
        chosen.sort(key=lambda entry: hashlib.sha256(os.fsencode(entry.name)).digest())
        shards = math.ceil(len(chosen) / _EXAMPLES_PER_SHARD)
        for index in range(shards):
            part = chosen[index::shards]
            writer.write(split, (index, shards), len(part), map(encode, part))
    return writer.finish()


def _contact_sheet(
    entries: list[Entry], store: _Store, class_names: tuple[str, ...], per_class: int = 8
) -> dict[str, list[bytes]]:
    sheet = {}
    for name in class_names:
        train = [entry for entry in entries if entry.class_name == name and entry.split == "train"]
        step = max(1, len(train) // per_class)
        sheet[name] = [store.read(entry) for entry in train[::step][:per_class]]
    return sheet


def _write_ledger(entries: list[Entry], path: Path) -> None:
    fields = [field.name for field in dataclasses.fields(Entry)]
    # File names are bytes: one that is not UTF-8 must not make the ledger unreadable.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(dataclasses.asdict(entry) for entry in entries)
