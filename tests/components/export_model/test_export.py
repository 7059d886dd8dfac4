import io
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.common.dataset import load_dataset
from components.common.errors import DataError, FlowersError
from components.common.models import ModelMetadata, load_model, save_model
from components.common.tfrecords import read_shard
from components.evaluate_model.evaluate import evaluate
from components.export_model import export as export_module
from components.export_model.export import export
from components.ingest_examples import synthetic
from components.ingest_examples.photos import fill
from tests.builders import make_dataset, make_model

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


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory, examples, model, evaluation):
    folder = tmp_path_factory.mktemp("exported") / "saved_model"
    export(examples, model, evaluation, folder)
    return folder


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
    prepared = fill(np.asarray(Image.open(io.BytesIO(jpeg))), 32)
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
        export(examples, other, evaluation, tmp_path / "saved_model")
    assert not (tmp_path / "saved_model").exists()


def test_evaluation_on_other_data_is_refused(tmp_path, evaluation, model):
    other = make_dataset(tmp_path / "other", counts={"train": 24, "validation": 9, "test": 8})
    with pytest.raises(DataError, match="the evaluation is of another data set"):
        export(other, model, evaluation, tmp_path / "saved_model")


def make_light_meter(folder, dataset):
    """A model whose answer depends on how bright a photo is."""
    inputs = keras.Input([32, 32, 3], dtype="uint8")
    light = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 127.5, -1.0)(inputs))
    net = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(light))
    net.layers[-1].set_weights([np.array([[50.0, 0.0, -50.0]] * 3), np.array([0.0, -99.0, 0.0])])
    folder.mkdir()
    metadata = ModelMetadata(dataset.class_names, 32, dataset.fingerprint, "squeezenet", 12)
    save_model(net, metadata, folder)
    return folder


def test_model_that_changed_on_the_way_out_is_refused(tmp_path, examples, monkeypatch):
    """In practice the preprocessing differs by accident; here it turns photos to negatives."""
    meter = make_light_meter(tmp_path / "model", load_dataset(examples))
    evaluate(examples, meter, tmp_path / "evaluation.json", tmp_path / "report.html")
    plain = export_module._preprocess
    monkeypatch.setattr(
        export_module, "_preprocess", lambda encoded, size: 255 - plain(encoded, size)
    )
    with pytest.raises(FlowersError, match="disagrees with the evaluated one on"):
        export(examples, meter, tmp_path / "evaluation.json", tmp_path / "saved_model")
    assert not (tmp_path / "saved_model").exists()
