"""Tests of a model on disk: what is written is read, and what is damaged is not."""

import dataclasses
import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from components.common.dataset import load_dataset
from components.common.errors import DataError
from components.common.model_files import METADATA_FILE, MODEL_FILE, load_metadata, model_digest
from components.common.models import load_model, save_model
from tests.builders import CLASS_NAMES, make_model


@pytest.fixture
def copy(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def rewrite(path: Path, member: str, content: bytes | None) -> None:
    """Replaces one member of a zip file, or leaves it out."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members.pop(member)
    with zipfile.ZipFile(path, "w") as archive:
        for name, body in members.items():
            archive.writestr(name, body)
        if content is not None:
            archive.writestr(member, content)


def test_saved_model_predicts_the_same(model_folder: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    model = load_model(model_folder)
    save_model(model, load_metadata(model_folder), tmp_path)
    again = load_model(tmp_path).predict_on_batch(images)
    assert np.array_equal(again, model.predict_on_batch(images))
    assert np.allclose(again.sum(axis=1), 1.0)


def test_loaded_model_has_no_optimizer(model_folder: Path) -> None:
    assert not load_model(model_folder).compiled


def test_metadata_describes_the_model(model_folder: Path, dataset_folder: Path) -> None:
    metadata, model = load_metadata(model_folder), load_model(model_folder)
    assert metadata.class_names == CLASS_NAMES
    assert metadata.image_size == 32
    assert metadata.architecture == "squeezenet"
    assert metadata.parameters == model.count_params()
    assert metadata.data_fingerprint == load_dataset(dataset_folder).fingerprint


def test_metadata_is_read_as_it_was_written(model_folder: Path, tmp_path: Path) -> None:
    metadata = load_metadata(model_folder)
    save_model(load_model(model_folder), metadata, tmp_path)
    digest = hashlib.sha256((tmp_path / MODEL_FILE).read_bytes()).hexdigest()
    assert load_metadata(tmp_path) == dataclasses.replace(metadata, digest=digest)


def test_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected the model folder of train_model"):
        load_model(tmp_path / "absent")


def test_absent_model_is_refused(copy: Path) -> None:
    (copy / MODEL_FILE).unlink()
    with pytest.raises(DataError, match=r"model .*model\.keras: expected a Keras file"):
        load_model(copy)


@pytest.mark.parametrize("content", [b"", b"no model", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"])
def test_file_that_is_no_model_is_refused(copy: Path, content: bytes) -> None:
    (copy / MODEL_FILE).write_bytes(content)
    with pytest.raises(DataError, match="expected a Keras file"):
        load_model(copy)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_cut_model_is_refused(copy: Path, kept: float) -> None:
    content = (copy / MODEL_FILE).read_bytes()
    (copy / MODEL_FILE).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match="expected a Keras file"):
        load_model(copy)


@pytest.mark.parametrize("part", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_model_with_damaged_bytes_is_refused(copy: Path, part: float) -> None:
    content = bytearray((copy / MODEL_FILE).read_bytes())
    start = int(part * len(content))
    content[start : start + 64] = bytes(byte ^ 0xFF for byte in content[start : start + 64])
    (copy / MODEL_FILE).write_bytes(content)
    with pytest.raises(DataError, match="expected a Keras file"):
        load_model(copy)


@pytest.mark.parametrize("member", ["config.json", "model.weights.h5"])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]"])
def test_model_with_a_wrong_member_is_refused(
    copy: Path, member: str, content: bytes | None
) -> None:
    rewrite(copy / MODEL_FILE, member, content)
    with pytest.raises(DataError, match="expected a Keras file"):
        load_model(copy)


def test_model_with_weights_of_another_is_refused(
    copy: Path, dataset_folder: Path, tmp_path: Path
) -> None:
    other = make_model(tmp_path / "other", dataset_folder, stages=[[[2, 4]], [[2, 8]]])
    with zipfile.ZipFile(other / MODEL_FILE) as archive:
        rewrite(copy / MODEL_FILE, "model.weights.h5", archive.read("model.weights.h5"))
    with pytest.raises(DataError, match="expected a Keras file"):
        load_model(copy)


def test_model_with_code_of_its_own_is_refused(model_folder: Path, tmp_path: Path) -> None:
    inputs = keras.Input([4])
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1.0)(inputs))
    save_model(model, load_metadata(model_folder), tmp_path)
    with pytest.raises(DataError, match=r"expected a Keras file of known layers .*[Ll]ambda"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "content",
    [None, "", "{", "[]", "{}", '{"class_names": "abc"}'],
)
def test_damaged_metadata_is_refused(copy: Path, content: str | None) -> None:
    (copy / METADATA_FILE).unlink()
    if content is not None:
        (copy / METADATA_FILE).write_text(content)
    with pytest.raises(DataError, match="expected the model folder of train_model"):
        load_metadata(copy)


def test_digest_is_that_of_the_file(model_folder: Path) -> None:
    content = (model_folder / MODEL_FILE).read_bytes()
    assert model_digest(model_folder) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("position", [0, 100, -1])
def test_digest_of_a_changed_model_is_refused(copy: Path, position: int) -> None:
    content = bytearray((copy / MODEL_FILE).read_bytes())
    content[position] ^= 1
    (copy / MODEL_FILE).write_bytes(content)
    with pytest.raises(DataError, match="it was changed or damaged, so train the model anew"):
        model_digest(copy)


def test_model_without_a_digest_is_refused(copy: Path) -> None:
    content = json.loads((copy / METADATA_FILE).read_text(encoding="utf-8"))
    del content["digest"]
    (copy / METADATA_FILE).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match="expected a Keras file"):
        load_model(copy)


def test_digest_of_an_absent_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected the model folder of train_model"):
        model_digest(tmp_path)
