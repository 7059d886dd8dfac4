"""Digests that hold the chain together, and what they refuse."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from components.common.dataset import load_dataset, save_dataset
from components.common.errors import DataError, GateClosedError
from components.common.lineage import check_records, check_stamps, digest, saved_model_digest, stamp
from components.common.verdict import load_verdict, require_blessing
from tests.builders import bless, make_dataset


@dataclasses.dataclass
class Artifact:
    """What KFP hands a step."""

    path: str
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "made" / "inner").mkdir(parents=True)
    (tmp_path / "made" / "a").write_bytes(b"1")
    (tmp_path / "made" / "inner" / "b").write_bytes(b"2")
    return tmp_path / "made"


def changed_content(folder):
    (folder / "inner" / "b").write_bytes(b"3")


def changed_name(folder):
    (folder / "a").rename(folder / "c")


def file_more(folder):
    (folder / "more").write_bytes(b"")


def file_less(folder):
    (folder / "a").unlink()


def moved_border(folder):
    """The same bytes one after the other, divided otherwise."""
    (folder / "a").write_bytes(b"12")
    (folder / "inner" / "b").write_bytes(b"")


@pytest.mark.parametrize(
    "change", [changed_content, changed_name, file_more, file_less, moved_border]
)
def test_artifact_that_was_changed_is_refused(folder, change):
    artifact = Artifact(str(folder))
    stamp(artifact)
    check_stamps(made=artifact)
    change(folder)
    with pytest.raises(DataError, match="made: expected what its step wrote, digest"):
        check_stamps(made=artifact)


def test_artifact_without_a_stamp_is_refused(folder):
    with pytest.raises(DataError, match="digest unknown"):
        check_stamps(made=Artifact(str(folder)))


def test_artifact_that_is_gone_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        check_stamps(made=Artifact(str(tmp_path / "none"), {"digest": "1"}))


def test_data_set_is_its_description(dataset_folder):
    description = (dataset_folder / "dataset.json").read_bytes()
    assert digest(dataset_folder) == digest(dataset_folder / "dataset.json")
    assert json.loads(description)["fingerprint"] == load_dataset(dataset_folder).fingerprint


def test_what_is_said_of_a_saved_model_is_no_part_of_it(folder):
    before = saved_model_digest(folder)
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "flowers.json").write_text("{}")
    assert saved_model_digest(folder) == before
    (folder / "a").write_bytes(b"other")
    assert saved_model_digest(folder) != before


@pytest.fixture
def copy(dataset_folder, tmp_path):
    return Path(shutil.copytree(dataset_folder, tmp_path / "copy"))


def test_records_as_they_were_written_pass(copy):
    check_records(load_dataset(copy))


def test_records_of_another_data_set_are_refused(copy, tmp_path):
    other = make_dataset(tmp_path / "other", counts={"train": 24, "validation": 9, "test": 27})
    # Behind those that the other two splits take there, so other photos.
    (ours,), (theirs,) = (list((one / "validation").iterdir()) for one in (copy, other))
    shutil.copyfile(theirs, ours)
    check_records(load_dataset(copy))
    (test,) = (copy / "test").iterdir()
    shutil.copyfile(theirs, test)
    with pytest.raises(DataError, match="expected records with fingerprint"):
        check_records(load_dataset(copy))


def test_class_names_in_another_order_are_refused(copy):
    dataset = load_dataset(copy)
    save_dataset(dataclasses.replace(dataset, class_names=dataset.class_names[::-1]), copy)
    with pytest.raises(DataError, match="expected labels in the order"):
        check_records(load_dataset(copy))


class TestBlessing:
    @pytest.fixture
    def evaluation(self, tmp_path):
        path = tmp_path / "evaluation.json"
        path.write_text("{}")
        return path

    def test_open_gate(self, evaluation, tmp_path):
        verdict = bless(evaluation, tmp_path / "verdict.json")
        assert require_blessing(verdict, evaluation) == load_verdict(verdict)

    def test_closed_gate(self, evaluation, tmp_path):
        verdict = bless(evaluation, tmp_path / "verdict.json")
        content = json.loads(verdict.read_text()) | {"blessed": False, "reason": "too bad"}
        verdict.write_text(json.dumps(content))
        with pytest.raises(GateClosedError, match="gate closed: too bad"):
            require_blessing(verdict, evaluation)

    def test_evaluation_that_was_changed_since(self, evaluation, tmp_path):
        verdict = bless(evaluation, tmp_path / "verdict.json")
        evaluation.write_text("{ }")
        with pytest.raises(DataError, match="the verdict is of another evaluation"):
            require_blessing(verdict, evaluation)

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"blessed": "yes"}'])
    def test_damaged_verdict(self, evaluation, tmp_path, content):
        (tmp_path / "verdict.json").write_text(content)
        with pytest.raises(DataError, match="expected gate_model's JSON file"):
            require_blessing(tmp_path / "verdict.json", evaluation)
