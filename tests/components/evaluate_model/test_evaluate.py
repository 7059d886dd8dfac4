import hashlib
import json

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from components.common.dataset import fingerprint, load_dataset
from components.common.errors import DataError, FlowersError
from components.common.evaluation import load_evaluation, wilson_interval
from components.common.model_files import ModelMetadata, model_digest
from components.common.models import save_model
from components.common.tfrecords import read_shard
from components.evaluate_model.calibration import calibration_bins, calibration_error
from components.evaluate_model.evaluate import evaluate
from components.evaluate_model.report import Mistake, write_report
from components.train_model.input_pipeline import eval_batches
from tests.builders import encode, evaluation_of, make_dataset, make_model

# More than one batch, and the last one smaller.
COUNTS = {"train": 24, "validation": 9, "test": 70}


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "examples", counts=COUNTS)


@pytest.fixture(scope="module")
def model(tmp_path_factory, examples):
    return make_model(tmp_path_factory.mktemp("model") / "model", examples)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, examples, model):
    folder = tmp_path_factory.mktemp("evaluated")
    result = evaluate(examples, model, folder / "evaluation.json", folder / "report.html")
    return result, folder


def test_counts_every_example_once(evaluated):
    result, _ = evaluated
    assert result.examples == 70
    assert sum(map(sum, result.confusion)) == 70


def test_equals_a_plain_count(evaluated, examples, model):
    result, _ = evaluated
    net = keras.models.load_model(model / "model.keras", compile=False)
    expected = np.zeros((3, 3), int)
    losses = []
    for images, targets in eval_batches(load_dataset(examples), "test", 10):
        probabilities = net.predict_on_batch(images)
        for label, row in zip(np.argmax(targets, axis=1), probabilities, strict=True):
            expected[label, row.argmax()] += 1
            losses.append(-np.log(row[label]))
    np.testing.assert_array_equal(result.confusion, expected)
    assert result.correct == np.trace(expected)
    assert result.accuracy == np.trace(expected) / 70
    assert result.loss == pytest.approx(np.mean(losses), rel=1e-4)
    assert (result.accuracy_low, result.accuracy_high) == wilson_interval(result.correct, 70)


def test_precision_and_recall(evaluated):
    result, _ = evaluated
    confusion = np.array(result.confusion)
    for index, one in enumerate(result.classes):
        taken = confusion[:, index].sum()
        assert one.recall == confusion[index, index] / confusion[index].sum()
        assert one.precision == (confusion[index, index] / taken if taken else None)


def test_file_is_what_was_returned(evaluated):
    result, folder = evaluated
    assert load_evaluation(folder / "evaluation.json") == result


def test_names_model_and_data(evaluated, examples, model):
    result, _ = evaluated
    assert result.model_digest == model_digest(model)
    assert result.data_fingerprint == load_dataset(examples).fingerprint


def test_no_overlap_where_there_is_none(evaluated):
    assert evaluated[0].train_overlap == 0


def fingerprint_of(folder, splits):
    """Fingerprint of the records that lie in a folder."""
    return fingerprint(
        (split, hashlib.sha256(payload).digest())
        for split in splits
        for shard in (folder / split).iterdir()
        for payload in read_shard(shard)
    )


def test_test_images_in_train_are_counted(tmp_path, examples, model):
    leaky = make_dataset(tmp_path / "leaky", counts=COUNTS)
    description = json.loads((leaky / "dataset.json").read_text())
    for shard in (leaky / "test").iterdir():
        count = int(shard.stem.rpartition("-")[2])
        shard.rename(leaky / "train" / f"train-99999-of-99999-{count}.tfrec")
        description["counts"]["train"] += count
    for shard in (examples / "test").iterdir():
        (leaky / "test" / shard.name).write_bytes(shard.read_bytes())
    description["fingerprint"] = fingerprint_of(leaky, description["counts"])
    (leaky / "dataset.json").write_text(json.dumps(description))
    result = evaluate(leaky, model, tmp_path / "evaluation.json", tmp_path / "report.html")
    assert result.train_overlap == 70


def test_report_shows_mistakes_and_figures(evaluated):
    result, folder = evaluated
    page = (folder / "report.html").read_text()
    assert f"{result.correct} of 70" in page
    assert "taken for" in page
    assert "data:image/jpeg;base64," in page


def test_other_classes_are_refused(tmp_path, model):
    other = make_dataset(tmp_path / "other", class_names=("squares", "circles", "stripes"))
    with pytest.raises(DataError, match="class_names of the examples: expected"):
        evaluate(other, model, tmp_path / "evaluation.json", tmp_path / "report.html")
    assert not (tmp_path / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"image_size": 48}, "image_size of the examples: expected 32 .*, received 48"),
        ({"resize": "stretch"}, "resize of the examples: expected crop .*, received stretch"),
    ],
)
def test_other_squares_are_refused(tmp_path, model, other, message):
    examples = make_dataset(tmp_path / "other", **other)
    with pytest.raises(DataError, match=message):
        evaluate(examples, model, tmp_path / "evaluation.json", tmp_path / "report.html")


def test_probabilities_that_are_no_numbers(tmp_path, examples):
    dataset = load_dataset(examples)
    inputs = keras.Input([32, 32, 3], dtype="uint8")
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1.0)(inputs))
    net = keras.Model(inputs, keras.layers.Dense(3)(flat))
    net.layers[-1].set_weights([np.full((32 * 32 * 3, 3), np.nan), np.zeros(3)])
    (tmp_path / "model").mkdir()
    metadata = ModelMetadata(dataset.class_names, 32, dataset.fingerprint, "squeezenet", 1)
    save_model(net, metadata, tmp_path / "model")
    with pytest.raises(FlowersError, match="not finite"):
        evaluate(examples, tmp_path / "model", tmp_path / "evaluation", tmp_path / "report")
    assert not (tmp_path / "evaluation").exists()


def test_calibration_counts_every_example_once(evaluated):
    result, _ = evaluated
    assert sum(one.examples for one in result.calibration) == 70
    right = sum(one.examples * one.accuracy for one in result.calibration)
    assert right == pytest.approx(result.correct)
    assert all(one.low < one.confidence <= one.high for one in result.calibration)


def test_calibration_error_by_hand():
    bins = calibration_bins(np.array([1.0, 1.0, 0.5, 0.5]), np.array([True, False, True, True]))
    assert [(one.examples, one.accuracy) for one in bins] == [(2, 1.0), (2, 0.5)]
    assert calibration_error(bins) == pytest.approx(0.5)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1))
def test_calibration_error_is_a_share(pairs):
    bins = calibration_bins(np.array([c for c, _ in pairs]), np.array([h for _, h in pairs]))
    assert sum(one.examples for one in bins) == len(pairs)
    assert 0 <= calibration_error(bins) <= 1


def test_report_shows_where_the_net_looked(evaluated):
    page = (evaluated[1] / "report.html").read_text()
    assert page.count("Grad-CAM for") == 8
    assert page.count("(true)") == 24


def test_page_of_a_large_test_split_is_small(tmp_path):
    """Pictures are shrunk and bounded, and so are tables and charts of many classes."""
    names = tuple(f"class {number}" for number in range(300))
    confusion = np.random.default_rng(0).integers(0, 3, (300, 300)).tolist()
    noise = np.random.default_rng(1).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    jpeg = encode(Image.fromarray(noise), quality=95)
    shares = np.full(300, 1 / 300, np.float32)
    mistakes = [Mistake(jpeg, 1, shares, np.ones([4, 4], np.float32))] * 24
    write_report(evaluation_of(confusion, names), mistakes, tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 2e6
