"""Photos in, TFRecord shards of three splits out, and a ledger in which no photo is missing.

    listing → prepare_part, many times → ledger → plan → write_shard, many times → dataset.json

The two functions depend on their tasks alone (`work.py`) and run where the runner runs them;
listing, ledger and plan are made here, and the page while shards are written. Records wait on disk
between the two, so memory holds some hundred bytes per photo and no pixels.
"""

import dataclasses
import itertools
import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from components.common import storage
from components.common.dataset import SPLITS, Dataset, describe_dataset, fingerprint, save_dataset
from components.common.errors import ConfigError, DataError
from components.common.files import DATASET_FILE, LEDGER_FILE
from components.common.outputs import staged
from components.common.progress import progress, say
from components.ingest_examples.config import IngestConfig, PhotosConfig
from components.ingest_examples.ledger import Groups, IngestResult, Ledger
from components.ingest_examples.photos import DUPLICATES
from components.ingest_examples.plan import assign_splits, divide_into_shards, set_duplicates_aside
from components.ingest_examples.report import CLASSES_SHOWN, write_report
from components.ingest_examples.runners import LocalRunner, Runner
from components.ingest_examples.sources import Listing, open_source, read_groups
from components.ingest_examples.stability import check_moves, check_rule, split_rule
from components.ingest_examples.work import (
    PartTask,
    ShardTask,
    Span,
    prepare_part,
    read_images,
    write_shard,
)

STEP = "ingest-examples"
REPORT_FILE = "report.html"
_REJECTS_NAMED = 20
_PHOTOS_PER_PART = 48
# A class with this many times the examples of another is worth a word.
_UNBALANCED = 3.0


def ingest(
    photos: PhotosConfig, config: IngestConfig, examples: Path, report: Path, workers: int = 0
) -> IngestResult:
    """Writes the shards of the three splits and a page about the data, on this machine.

    Args:
        photos: Where the photos are.
        config: How they become examples.
        examples: Folder to make; see `components.common.dataset` for what lies in it, and
            `photos.csv` for every photo that was listed.
        report: HTML page to make.
        workers: Processes that decode; 0 for one per core.

    Raises:
        DataError: There are no photos, too many cannot be used, a class is missing in a split, or a
            photo would leave the split that it had in the earlier run.
        ConfigError: The manifest or an option is wrong.
    """
    source, groups = _open(photos, config)
    with (
        staged(report, examples) as (staged_report, staged_examples),
        LocalRunner(workers) as runner,
    ):
        staged_examples.mkdir()
        place = _Place(str(staged_examples), storage.join(str(staged_examples), ".parts"))
        result = _ingest(source, groups, photos, config, place, staged_report, runner)
        save_dataset(result.dataset, staged_examples)
    result = dataclasses.replace(result, dataset=dataclasses.replace(result.dataset, path=examples))
    _say_result(result)
    return result


def ingest_to(
    photos: PhotosConfig, config: IngestConfig, output: str, scratch: str, runner: Runner
) -> IngestResult:
    """Does what `ingest` does, at any place that the workers of a runner reach.

    Args:
        photos: Where the photos are.
        config: How they become examples.
        output: Folder or `gs://bucket/name` to make, with `examples/` and `report.html`. It is
            complete once `examples/dataset.json` is there, which comes last.
        scratch: Folder or `gs://bucket/name` for what lies between the stages; removed at the end.
        runner: Runs the work.

    Raises:
        As `ingest` does.
    """
    examples = storage.join(output, "examples")
    if storage.exists(examples):
        raise ConfigError(
            f"--output {output} already holds examples: name another, or remove them first"
        )
    source, groups = _open(photos, config)
    try:
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder, REPORT_FILE)
            place = _Place(examples, scratch)
            result = _ingest(source, groups, photos, config, place, page, runner)
            storage.write(storage.join(output, REPORT_FILE), page.read_bytes())
        description = describe_dataset(result.dataset).encode()
        storage.write(storage.join(examples, DATASET_FILE), description)
    except BaseException:
        storage.remove_folder(examples)
        raise
    finally:
        storage.remove_folder(scratch)
    _say_result(result)
    return result


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where examples go, and what lies between the two stages."""

    examples: str
    scratch: str

    def part(self, number: int) -> str:
        return storage.join(self.scratch, f"part-{number:06d}")


def _open(photos: PhotosConfig, config: IngestConfig) -> tuple[Listing, Groups | None]:
    if photos.previous and not photos.new_splits:
        check_rule(photos.previous, split_rule(photos, config))
    groups = None
    manifest = photos.manifest_place()
    if manifest:
        groups = Groups(photos.group_column, read_groups(manifest, photos.group_column))
    source = open_source(photos.images)
    if source.resize not in {"", config.resize}:
        raise ConfigError(
            f"resize: expected {source.resize}, with which the examples of {photos.images} were "
            f"made, received {config.resize}; the model would be asked about other squares than "
            "those it has learned from"
        )
    return source, groups


def _say_result(result: IngestResult) -> None:
    counts = ", ".join(f"{count} {split}" for split, count in result.dataset.counts.items())
    say(
        STEP,
        f"wrote {result.written} of {len(result.ledger)} photos: {counts}; "
        f"{result.rejected.total()} rejected",
    )


def _ingest(
    source: Listing,
    groups: Groups | None,
    photos: PhotosConfig,
    config: IngestConfig,
    place: _Place,
    page: Path,
    runner: Runner,
) -> IngestResult:
    """Makes everything but the description of the data set, which comes last."""
    ledger = _prepare(source, groups, config, place, runner)
    assign_splits(ledger, config)
    clusters = set_duplicates_aside(ledger)
    _print_rejects(ledger)
    _check_rejects(ledger, config.max_reject_fraction)
    _check_splits(ledger, source.class_names, config)
    if photos.previous and not photos.new_splits:
        check_moves(photos.previous, ledger)
    _warn(ledger, source.class_names, clusters)
    shards = runner.map(write_shard, _shard_tasks(ledger, place))
    dataset = Dataset(
        Path(place.examples),
        source.class_names,
        config.image_size,
        {split: len(ledger.in_split(split)) for split in SPLITS},
        fingerprint(ledger.digests()),
        split_rule(photos, config),
        resize=config.resize,
    )
    names = (tuple(ledger.photos[index].name for index in members) for members in clusters)
    sheet = _contact_sheet(ledger, source.class_names, place)
    result = IngestResult(dataset, ledger, tuple(names), sheet)
    # While a runner has the shards written, this process would only wait.
    write_report(result, photos.images, page)
    storage.write(storage.join(place.examples, LEDGER_FILE), ledger.to_csv())
    for _ in shards:
        pass
    storage.remove_folder(place.scratch)
    return result


def _prepare(
    source: Listing, groups: Groups | None, config: IngestConfig, place: _Place, runner: Runner
) -> Ledger:
    """Prepares all photos, a part at a time, and enters what was found out about each."""
    ledger = Ledger(source.photos, groups)
    starts = range(0, len(ledger), _PHOTOS_PER_PART)
    tasks = (
        PartTask(
            source.reader,
            tuple(source.photos[start : start + _PHOTOS_PER_PART]),
            source.class_names,
            config.image_size,
            config.resize,
            place.part(number),
        )
        for number, start in enumerate(starts)
    )
    with progress(STEP, "photos", len(ledger)) as shown:
        for number, rows in enumerate(runner.map(prepare_part, tasks)):
            ledger.take(number, starts[number], rows)
            shown.advance(len(rows))
    return ledger


def _records(ledger: Ledger, indices: list[int], place: _Place) -> tuple[Span, ...]:
    return tuple(
        Span(
            place.part(int(ledger.part[index])),
            int(ledger.offset[index]),
            int(ledger.length[index]),
        )
        for index in indices
    )


def _shard_tasks(ledger: Ledger, place: _Place) -> Iterator[ShardTask]:
    for shard in divide_into_shards(ledger):
        yield ShardTask(
            storage.join(place.examples, shard.split, shard.name),
            _records(ledger, shard.photos, place),
        )


def _print_rejects(ledger: Ledger) -> None:
    rejected = ledger.rejected().tolist()
    for entry in map(ledger.entry, rejected[:_REJECTS_NAMED]):
        say(STEP, f"rejected {entry.name!r}: {entry.reason} ({entry.detail})")
    if len(rejected) > _REJECTS_NAMED:
        say(STEP, f"rejected {len(rejected) - _REJECTS_NAMED} more photos")


def _check_rejects(ledger: Ledger, limit: float) -> None:
    damaged = {reason: n for reason, n in ledger.reasons().items() if reason not in DUPLICATES}
    total = sum(damaged.values())
    if total <= limit * len(ledger):
        return
    first = next(
        entry for entry in map(ledger.entry, ledger.rejected().tolist()) if entry.reason in damaged
    )
    reasons = ", ".join(f"{n} {reason}" for reason, n in Counter(damaged).most_common())
    raise DataError(
        f"{total} of {len(ledger)} photos cannot be used ({reasons}; "
        f"the first is {first.name!r}): expected at most {limit:.1%}; mend or remove them, "
        "or raise --max-reject-fraction"
    )


def _check_splits(ledger: Ledger, class_names: tuple[str, ...], config: IngestConfig) -> None:
    """Refuses a class that a split lacks: it could not be learnt, chosen by, or tested."""
    counts = ledger.counts()
    smallest = min(config.validation_fraction, config.test_fraction)
    # So many that the smaller split has none of them once in a thousand times.
    enough = math.ceil(math.log(0.001) / math.log(1.0 - smallest) / 10) * 10
    for name in class_names:
        per_split = {split: counts[name, split] for split in SPLITS}
        if not all(per_split.values()):
            listed = ", ".join(f"{count} in {split}" for split, count in per_split.items())
            raise DataError(
                f"class {name!r} has {sum(per_split.values())} usable photos, {listed}: expected "
                f"at least one in every split; add photos to this class (some {enough} are "
                "enough), remove its folder, or try another --split-salt"
            )


def _warn(ledger: Ledger, class_names: tuple[str, ...], clusters: list[list[int]]) -> None:
    """Says what a person should look at before training."""
    counts = ledger.counts()
    in_train = sorted((counts[name, "train"], name) for name in class_names)
    (fewest, rare), (most, common) = in_train[0], in_train[-1]
    if most > _UNBALANCED * fewest:
        say(
            STEP,
            f"warning: unbalanced classes: {most} train examples of {common!r}, {fewest} of "
            f"{rare!r}; accuracy will say little about {rare!r}",
        )
    conflicts = list(label_conflicts(ledger, clusters))
    if conflicts:
        first = ledger.first_names(conflicts[0], len(conflicts[0]))
        say(
            STEP,
            f"warning: {len(conflicts)} groups of photos that look alike have more than one label, "
            f"the first is {first}; see the data report",
        )


def label_conflicts(ledger: Ledger, clusters: list[list[int]]) -> Iterator[list[int]]:
    """The clusters whose members have more than one label."""
    for members in clusters:
        if len({ledger.photos[index].class_name for index in members}) > 1:
            yield members


def _contact_sheet(
    ledger: Ledger, class_names: tuple[str, ...], place: _Place, per_class: int = 8
) -> dict[str, list[bytes]]:
    """Pictures of the first classes: those of a thousand would make a page of 100 MB."""
    by_class: dict[str, list[int]] = {name: [] for name in class_names[:CLASSES_SHOWN]}
    for index in ledger.in_split("train").tolist():
        if (name := ledger.photos[index].class_name) in by_class:
            by_class[name].append(index)
    sheet = {}
    for name, members in by_class.items():
        step = max(1, len(members) // per_class)
        chosen = list(itertools.islice(members, 0, None, step))[:per_class]
        sheet[name] = read_images(_records(ledger, chosen, place))
    return sheet
