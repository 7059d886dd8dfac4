"""What tasks are found to need beside the folder of their run."""

import importlib.util

import pytest

from components.common.errors import ConfigError
from components.export_model.config import ExportConfig
from components.ingest_examples.config import PhotosConfig
from components.train_model.architectures import MobilenetV2Config
from pipelines.targets.runners import SubprocessRunner, find_inputs, find_weights

SYNTHETIC = PhotosConfig("synthetic://flowers")


def model(weights="none"):
    return MobilenetV2Config(name="mobilenet_v2", weights=weights)


def test_photos_manifest_and_weights_are_found_once(tmp_path):
    photos, elsewhere, weights = (tmp_path / name for name in ("photos", "m.csv", "w.weights.h5"))
    photos.mkdir()
    elsewhere.touch()
    weights.touch()
    (photos / "inside.csv").touch()
    (photos / "w.weights.h5").touch()
    inside = PhotosConfig(str(photos), "inside.csv", "author")
    assert find_inputs(SYNTHETIC, model()).paths == ()
    assert find_inputs(PhotosConfig(str(photos)), model()).paths == (photos,)
    assert find_inputs(inside, model()).paths == (photos,)
    assert find_inputs(inside, model(str(photos / "w.weights.h5"))).paths == (photos,)
    beside = PhotosConfig(str(photos), str(elsewhere), "author")
    assert find_inputs(beside, model(str(weights))).paths == (elsewhere, photos, weights)


def test_earlier_examples_and_what_lies_beside_an_import_file_are_found(tmp_path):
    rows, earlier = tmp_path / "import" / "rows.csv", tmp_path / "earlier"
    rows.parent.mkdir()
    rows.touch()
    earlier.mkdir()
    photos = PhotosConfig(str(rows), previous=str(earlier))
    assert find_inputs(photos, model()).paths == (earlier, rows.parent)


@pytest.mark.parametrize(
    ("photos", "networked"),
    [
        (SYNTHETIC, False),
        (PhotosConfig("gs://bucket/photos"), True),
        (PhotosConfig("import.jsonl"), True),
        (PhotosConfig("photos", "gs://bucket/m.csv", "author"), True),
        (PhotosConfig("photos", previous="gs://bucket/examples"), True),
        (PhotosConfig("photos"), False),
    ],
)
def test_ingestion_has_the_network_where_its_photos_need_it(photos, networked):
    assert ("ingest_examples" in find_inputs(photos, model()).networked) == networked


@pytest.mark.parametrize(
    ("weights", "networked"),
    [("none", set()), ("imagenet", {"train_model"}), ("gs://b/w.weights.h5", {"train_model"})],
)
def test_training_has_the_network_where_its_weights_need_it(weights, networked):
    assert find_inputs(SYNTHETIC, model(weights)).networked == networked | {"deploy_model"}


def test_weights_are_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.weights.h5").touch()
    assert find_weights(model("w.weights.h5")) == tmp_path / "w.weights.h5"
    assert find_weights(model("imagenet")) is None


def test_absent_weights_are_found_before_the_run():
    with pytest.raises(
        ConfigError, match=r"model.weights: expected none, imagenet, .* w.h5, which"
    ):
        find_weights(model("w.h5"))


def test_onnx_without_its_packages_is_refused_before_a_run(monkeypatch):
    find = importlib.util.find_spec
    hidden = lambda name: None if name == "tf2onnx" else find(name)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    wanted = find_inputs(SYNTHETIC, model(), ExportConfig(onnx=True))
    with pytest.raises(ConfigError, match=r"export\.onnx: needs tf2onnx: .*\[onnx\]"):
        SubprocessRunner().check(wanted)
    assert SubprocessRunner().check(find_inputs(SYNTHETIC, model(), ExportConfig())) == {}
