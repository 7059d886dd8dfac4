"""Refuses to move photos into the test split, or out of it, without being asked to.

A model that was trained on a photo must never be tested on it. The rule that divides a data set is
written down with it (`split_rule` in `dataset.json`), and so is the split of every photo
(`photos.csv`); a later data set is held against both. Training sees train and validation alike, so
photos may move between those two, as when another recipe validates on fewer.
"""

import csv
import dataclasses
import io
import json
from typing import TYPE_CHECKING, Any

from components.common import storage
from components.common.config import build
from components.common.dataset import SPLITS, SplitRule
from components.common.errors import ConfigError, DataError, UserError
from components.common.files import DATASET_FILE, LEDGER_FILE
from components.ingest_examples.config import IngestConfig, PhotosConfig

if TYPE_CHECKING:
    # What it takes to read photos, which who only compares rules may not have.
    from components.ingest_examples.ledger import Ledger

# What of a rule moves no photo to or from the test split.
_FREE = "validation_fraction"
_ADVICE = "keep what the earlier run had, or say --new-splits true and train from scratch"


def split_rule(photos: PhotosConfig, config: IngestConfig) -> SplitRule:
    """The rule that a configuration gives."""
    return SplitRule(
        config.split_salt, config.validation_fraction, config.test_fraction, photos.group_column
    )


def check_rule(previous: str, rule: SplitRule) -> None:
    """Refuses a rule that gives another test split than that of an earlier data set.

    Args:
        previous: Place of the folder of the earlier examples.
        rule: The rule of this run.

    Raises:
        ConfigError: There is no such data set, or it was divided by such a rule.
    """
    description = _read_description(previous)
    earlier = description.get("split_rule")
    if earlier is None:
        return
    before, now = dataclasses.asdict(_rule(previous, earlier)), dataclasses.asdict(rule)
    changed = [
        f"{key} {before[key]!r} is now {now[key]!r}"
        for key in now
        if key != _FREE and before[key] != now[key]
    ]
    if changed:
        raise ConfigError(
            f"{previous} (fingerprint {str(description.get('fingerprint'))[:12]}) was divided by "
            f"another rule: {', '.join(changed)}; photos would move between train and test: "
            f"{_ADVICE}"
        )


def _read_description(previous: str) -> dict[str, Any]:
    place = storage.join(previous, DATASET_FILE)
    try:
        content = json.loads(storage.read(place))
    except OSError as error:
        raise ConfigError(
            f"--previous {previous}: cannot be read ({error.strerror}); expected the examples "
            "folder of an earlier run"
        ) from error
    except ValueError as error:
        raise ConfigError(f"--previous {place}: not a data set description ({error})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"--previous {place}: not a data set description")
    return content


def _rule(previous: str, content: Any) -> SplitRule:
    try:
        return build(SplitRule, content)
    except UserError as error:
        raise ConfigError(f"--previous {previous}: split_rule: {error}") from error


def check_moves(previous: str, ledger: "Ledger") -> None:
    """Refuses a division that tests on what an earlier data set trained on, or the other way.

    A photo may be set aside now and may have been then.

    Raises:
        DataError: Names the first photo that would move.
    """
    try:
        text = storage.read(storage.join(previous, LEDGER_FILE)).decode()
        rows = csv.DictReader(io.StringIO(text, newline=""))
        before = {bytes.fromhex(row["sha256"]): row["split"] for row in rows if row["split"]}
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise ConfigError(
            f"--previous {previous}: its {LEDGER_FILE} cannot be read ({error})"
        ) from error
    moved = []
    for index in ledger.usable().tolist():
        split = SPLITS[ledger.split[index]]
        earlier = before.get(ledger.sha256[index].tobytes(), split)
        if earlier != split and "test" in {earlier, split}:
            moved.append(f"{ledger.photos[index].name} from {earlier} to {split}")
    if moved:
        raise DataError(
            f"{len(moved)} photos of {previous} would move to or from the test split, the first is "
            f"{moved[0]}: {_ADVICE}"
        )
