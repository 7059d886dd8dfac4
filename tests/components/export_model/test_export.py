import importlib.util
import io
import json
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.common.dataset import load_dataset
from components.common.errors import ConfigError, DataError, FlowersError
from components.common.model_files import ModelMetadata
from components.common.models import load_model, save_model
from components.common.tfrecords import read_shard
from components.evaluate_model.evaluate import evaluate
from components.export_model import export as export_module
from components.export_model.checks import Tally
from components.export_model.config import ExportConfig, Origin
from components.export_model.export import Outputs, export
from components.export_model.formats import Written
from components.export_model.photos import find_rights
from components.ingest_examples import synthetic
from components.ingest_examples.photos import to_square
from tests.builders import bless, make_dataset, make_model

# Loads the SavedModel as a user would, and could not find this project if it tried.
PLAIN = """
import json, sys
import tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
photo = open(sys.argv[2], "rb").read()
answer = serve(image_bytes=tf.constant([photo, photo]))
assert "components" not in sys.modules
print(json.dumps({
    "probabilities": answer["probabilities"].numpy().tolist(),
    "class_names": [[n.decode() for n in row] for row in answer["class_names"].numpy().tolist()],
    "label": [name.decode() for name in answer["label"].numpy().tolist()],
}))
"""


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    counts = {"train": 24, "validation": 9, "test": 70}
    return make_dataset(tmp_path_factory.mktemp("data") / "examples", counts=counts)


@pytest.fixture(scope="module")
def model(tmp_path_factory, examples):
    return make_model(tmp_path_factory.mktemp("model") / "model", examples)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory, examples, model):
    folder = tmp_path_factory.mktemp("evaluated")
    evaluate(examples, model, folder / "evaluation.json", folder / "report.html")
    return folder / "evaluation.json"


def blessed(evaluation):
    """The verdict of an open gate, beside the evaluation."""
    return bless(evaluation, evaluation.with_name("verdict.json"))


def outputs_in(folder):
    return Outputs(folder / "saved_model", folder / "exports", folder / "report.html")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A place of photos with a licence and a manifest that names photographers."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "LICENSE.txt").write_text("CC BY 4.0,\nsee the names.\n\na.jpg by Ada\n")
    (folder / "MANIFEST.csv").write_text("path,author\na.jpg,Ada\nb.jpg,Bo|b\nc.jpg,Ada\n")
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory, examples, model, evaluation, photos):
    """Every format, and what was found out about each."""
    outputs = outputs_in(tmp_path_factory.mktemp("exported"))
    config = ExportConfig(onnx=True, calibration_photos=10)
    origin = Origin(str(photos), "MANIFEST.csv", {"name": "squeezenet"}, {"epochs": 2})
    return outputs, export(
        examples, model, evaluation, blessed(evaluation), outputs, config, origin
    )


@pytest.fixture(scope="module")
def saved_model(exported):
    return exported[0].saved_model


@pytest.fixture(scope="module")
def serve(saved_model):
    return tf.saved_model.load(str(saved_model)).signatures["serving_default"]


def encoded(image, form="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_loads_with_plain_tensorflow_alone(saved_model, tmp_path):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(synthetic.render_jpeg("tulips", 0, 0))
    script = tmp_path / "load.py"
    script.write_text(PLAIN)
    # -I leaves the working folder out of the path; -S would leave TensorFlow out too.
    command = [sys.executable, "-I", str(script), str(saved_model), str(photo)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    answer = json.loads(finished.stdout)
    assert np.shape(answer["probabilities"]) == (2, 3)
    assert answer["class_names"] == [["circles", "squares", "stripes"]] * 2
    best = int(np.argmax(answer["probabilities"][0]))
    assert answer["label"] == [answer["class_names"][0][best]] * 2


def test_says_what_the_evaluated_model_says(serve, examples, model):
    net = load_model(model)
    for shard in load_dataset(examples).shards("test"):
        for payload in read_shard(shard):
            features = tf.io.parse_single_example(
                payload, {"image": tf.io.FixedLenFeature([], tf.string)}
            )
            pixels = tf.io.decode_jpeg(features["image"], dct_method="INTEGER_ACCURATE")
            expected = net.predict_on_batch(pixels[tf.newaxis])
            received = serve(image_bytes=features["image"][tf.newaxis])["probabilities"]
            np.testing.assert_allclose(received, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (33, 200), (640, 480), (20, 20)])
def test_takes_photos_of_any_size(serve, size):
    photo = synthetic.render_flower("roses", 1, 0).resize(size)
    probabilities = serve(image_bytes=tf.constant([encoded(photo)]))["probabilities"].numpy()
    assert probabilities.shape == (1, 3)
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-5)


def test_photos_of_different_sizes_in_one_batch(serve):
    photos = [synthetic.render_jpeg("daisy", index, 0) for index in range(3)]
    together = serve(image_bytes=tf.constant(photos))["probabilities"].numpy()
    alone = [serve(image_bytes=tf.constant([photo]))["probabilities"].numpy() for photo in photos]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-6)


def test_takes_png_too(serve):
    photo = synthetic.render_flower("tulips", 2, 0)
    png = serve(image_bytes=tf.constant([encoded(photo, "PNG")]))["probabilities"].numpy()
    jpeg = encoded(photo, quality=100, subsampling=0)
    np.testing.assert_allclose(
        png, serve(image_bytes=tf.constant([jpeg]))["probabilities"].numpy(), atol=0.02
    )


def test_prepares_a_photo_as_ingestion_does(serve, model):
    photo = synthetic.render_flower("sunflowers", 3, 0)
    jpeg = encoded(photo, quality=95, subsampling=0)
    prepared = to_square(np.asarray(Image.open(io.BytesIO(jpeg))), 32)
    expected = load_model(model).predict_on_batch(prepared[np.newaxis])
    received = serve(image_bytes=tf.constant([jpeg]))["probabilities"].numpy()
    np.testing.assert_allclose(received, expected, atol=0.01)


def test_metadata_lies_beside_the_model(saved_model, evaluation):
    metadata = json.loads((saved_model / "assets.extra" / "flowers.json").read_text())
    scores = json.loads(evaluation.read_text())
    assert metadata["accuracy"] == scores["accuracy"]
    assert metadata["class_names"] == ["circles", "squares", "stripes"]
    assert metadata["model_digest"] == scores["model_digest"]


def test_evaluation_of_another_model_is_refused(tmp_path, examples, evaluation):
    other = make_model(tmp_path / "other", examples)
    with pytest.raises(DataError, match="the evaluation is of another model"):
        export(examples, other, evaluation, blessed(evaluation), outputs_in(tmp_path))
    assert not (tmp_path / "saved_model").exists()


def test_evaluation_on_other_data_is_refused(tmp_path, evaluation, model):
    other = make_dataset(tmp_path / "other", counts={"train": 24, "validation": 9, "test": 8})
    with pytest.raises(DataError, match="the evaluation is of another data set"):
        export(other, model, evaluation, blessed(evaluation), outputs_in(tmp_path))


def make_light_meter(folder, dataset):
    """A model whose answer depends on how bright a photo is."""
    inputs = keras.Input([32, 32, 3], dtype="uint8")
    light = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 127.5, -1.0)(inputs))
    net = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(light))
    net.layers[-1].set_weights([np.array([[50.0, 0.0, -50.0]] * 3), np.array([0.0, -99.0, 0.0])])
    folder.mkdir()
    metadata = ModelMetadata(
        dataset.class_names, 32, dataset.fingerprint, "squeezenet", 12, resize=dataset.resize
    )
    save_model(net, metadata, folder)
    return folder


@pytest.mark.parametrize(("resize", "light"), [("crop", 0.0), ("stretch", 0.75)])
def test_photo_becomes_a_square_as_its_photos_did(tmp_path, resize, light):
    dataset = make_dataset(tmp_path / "examples", resize=resize)
    meter = make_light_meter(tmp_path / "model", load_dataset(dataset))
    evaluation = tmp_path / "evaluation.json"
    evaluate(dataset, meter, evaluation, tmp_path / "evaluation.html")
    outputs = outputs_in(tmp_path)
    export(dataset, meter, evaluation, blessed(evaluation), outputs, ExportConfig(litert=False))
    photo = np.full((32, 128, 3), 255, np.uint8)
    photo[:, 48:80] = 0
    served = tf.saved_model.load(str(outputs.saved_model)).signatures["serving_default"]
    content = encoded(Image.fromarray(photo), "PNG")
    received = served(image_bytes=tf.constant([content]))["probabilities"].numpy()
    plain = np.full((1, 32, 32, 3), round(255 * light), np.uint8)
    np.testing.assert_allclose(received, load_model(meter).predict_on_batch(plain), atol=0.02)
    written = json.loads((outputs.saved_model / "assets.extra" / "flowers.json").read_text())
    assert written["resize"] == resize
    line = {"crop": "cropped to its middle square", "stretch": "stretched to a square"}[resize]
    card = outputs.saved_model / "assets.extra" / "model_card.md"
    assert f"one photo of any size, {line} and resized to 32 pixels" in card.read_text()


def test_model_that_changed_on_the_way_out_is_refused(tmp_path, examples, monkeypatch):
    """In practice the preprocessing differs by accident; here it turns photos to negatives."""
    meter = make_light_meter(tmp_path / "model", load_dataset(examples))
    evaluate(examples, meter, tmp_path / "evaluation.json", tmp_path / "evaluation.html")
    plain = export_module._preprocess
    monkeypatch.setattr(export_module, "_preprocess", lambda *arguments: 255 - plain(*arguments))
    config = ExportConfig(litert=False)
    evaluation = tmp_path / "evaluation.json"
    verdict = blessed(evaluation)
    with pytest.raises(FlowersError, match="disagrees with the evaluated one on"):
        export(examples, meter, evaluation, verdict, outputs_in(tmp_path), config)
    assert not (tmp_path / "saved_model").exists()


class TestFormats:
    def test_every_format_was_asked_about_every_test_photo(self, exported):
        outputs, checks = exported
        names = ["SavedModel", "Keras", "LiteRT float", "LiteRT int8", "ONNX"]
        assert [check.name for check in checks] == names
        assert {check.examples for check in checks} == {70}
        assert json.loads((outputs.exports / "exports.json").read_text())[1]["name"] == "Keras"
        for check in checks[1:]:
            assert check.size == (outputs.exports / check.file).stat().st_size

    def test_float_formats_say_the_same(self, exported):
        for check in exported[1]:
            if check.name != "LiteRT int8":
                assert check.agreement == 1.0
                assert check.largest_difference < 1e-4

    def test_net_that_resizes_its_images(self, tmp_path, examples):
        folder = make_model(tmp_path / "model", examples, test_size=24)
        evaluation = tmp_path / "evaluation.json"
        evaluate(examples, folder, evaluation, tmp_path / "evaluation.html")
        checks = export(
            examples,
            folder,
            evaluation,
            blessed(evaluation),
            outputs_in(tmp_path),
            ExportConfig(onnx=True, calibration_photos=10),
        )
        for check in checks:
            assert check.agreement == 1.0 or check.name == "LiteRT int8"
            assert check.largest_difference < (0.1 if check.name == "LiteRT int8" else 1e-4)

    def test_int8_takes_bytes(self, exported):
        outputs, _ = exported
        interpreter = interpreter_of(outputs.exports / "model_int8.tflite")
        (inputs,) = interpreter.get_input_details()
        assert inputs["dtype"] == np.uint8
        assert inputs["quantization"] == (pytest.approx(1.0, abs=0.05), 0)

    def test_lite_file_says_what_the_net_says(self, exported, examples, model):
        shard = load_dataset(examples).shards("test")[0]
        payload = next(iter(read_shard(shard)))
        jpeg = tf.io.parse_single_example(payload, {"image": tf.io.FixedLenFeature([], tf.string)})
        image = tf.io.decode_jpeg(jpeg["image"], dct_method="INTEGER_ACCURATE").numpy()[np.newaxis]
        interpreter = interpreter_of(exported[0].exports / "model.tflite")
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image.astype("float32"))
        interpreter.invoke()
        received = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        np.testing.assert_allclose(received, load_model(model).predict_on_batch(image), atol=1e-5)

    def test_images_signature_explains_too(self, saved_model):
        loaded = tf.saved_model.load(str(saved_model))
        images = tf.constant(np.full([2, 32, 32, 3], 7, np.uint8))
        answer = loaded.signatures["explain"](images=images)
        plain = loaded.signatures["classify"](images=images)
        np.testing.assert_allclose(answer["probabilities"], plain["probabilities"], atol=1e-6)
        assert answer["heat_map"].shape[0] == 2

    def test_page_lists_the_formats_and_the_card(self, exported):
        page = exported[0].report.read_text()
        assert "LiteRT int8" in page
        assert "# Model card" in page


def interpreter_of(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        interpreter = tf.lite.Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    return interpreter


@pytest.mark.parametrize(("wrong", "flagged"), [(0, False), (1, False), (2, True)])
def test_more_than_a_point_lost_is_flagged(tmp_path, wrong, flagged):
    path = tmp_path / "model"
    path.write_bytes(b"12345")
    tally = Tally(Written("x", path, lambda images: images, tolerance=0.01))
    labels = np.zeros(100, int)
    expected = np.tile([0.9, 0.1], (100, 1))
    received = expected.copy()
    received[:wrong] = [0.2, 0.8]
    tally.add(expected, received, labels)
    check = tally.check()
    assert check.flagged is flagged
    assert check.accuracy_difference == pytest.approx(-wrong / 100)
    assert check.agreement == (100 - wrong) / 100
    assert check.size == 5


def test_answer_that_is_no_number_is_no_answer(tmp_path):
    """Of a photo of class 0, too, which is what an argmax makes of it."""
    (tmp_path / "model").write_bytes(b"12345")
    tally = Tally(Written("x", tmp_path / "model", lambda images: images, tolerance=0.01))
    expected = np.tile([0.9, 0.1], (10, 1))
    received = expected.copy()
    received[0] = np.nan
    tally.add(expected, received, np.zeros(10, int))
    check = tally.check()
    assert check.flagged
    assert (check.agreement, check.accuracy, check.largest_difference) == (0.9, 0.9, 1.0)


class TestCard:
    def test_travels_with_the_model(self, exported):
        outputs, _ = exported
        for name in ("model_card.md", "model_card.json", "PHOTOS_LICENSE.txt"):
            copies = [outputs.exports / name, outputs.saved_model / "assets.extra" / name]
            assert copies[0].read_text() == copies[1].read_text()

    def test_says_what_is_known(self, exported, evaluation, examples):
        outputs, checks = exported
        card = json.loads((outputs.exports / "model_card.json").read_text())
        scores = json.loads(evaluation.read_text())
        assert card["metrics"]["accuracy"] == scores["accuracy"]
        assert card["data"]["fingerprint"] == load_dataset(examples).fingerprint
        assert card["data"]["credits"] == {"Ada": 2, "Bo|b": 1}
        assert card["data"]["licence"] == "CC BY 4.0, see the names."
        assert card["recipe"] == {"model": {"name": "squeezenet"}, "train": {"epochs": 2}}
        for one, score in zip(card["metrics"]["classes"], scores["classes"], strict=True):
            low, high = one["recall_interval"]
            assert low - 1e-9 <= score["recall"] <= high + 1e-9
        assert [one["name"] for one in card["formats"]] == [check.name for check in checks]

    def test_is_markdown_that_a_name_cannot_break(self, exported):
        text = (exported[0].exports / "model_card.md").read_text()
        assert "Ada (2), Bo\\|b (1)" in text
        table = [line for line in text.splitlines() if line.startswith("| circles")]
        assert len(table) == 1

    def test_own_words_go_first(self):
        assert find_rights("", "", "all mine").licence == "all mine"
        assert find_rights("synthetic://flowers", "", "").licence.startswith("drawn by")
        assert find_rights("/nowhere", "none.csv", "").licence == ""


def test_onnx_without_its_packages_is_one_line(tmp_path, examples, model, evaluation, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    find = importlib.util.find_spec
    hidden = lambda name: None if name == "tf2onnx" else find(name)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    with pytest.raises(
        ConfigError, match=r"needs tf2onnx: .*, pip install --editable '\.\[onnx\]', or"
    ):
        export(
            examples,
            model,
            evaluation,
            blessed(evaluation),
            outputs_in(tmp_path),
            ExportConfig(onnx=True),
        )
