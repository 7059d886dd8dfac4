from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from components.common.dataset import load_dataset
from components.common.policy import AugmentPolicy
from components.train_model.input_pipeline import eval_batches, read_examples, train_batches
from tests.builders import make_dataset

COUNTS = {"train": 21, "validation": 9, "test": 5}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return load_dataset(make_dataset(tmp_path_factory.mktemp("data") / "examples", counts=COUNTS))


def keys(images):
    return [image.tobytes() for image in images.numpy()]


def test_shapes_are_static(dataset):
    images, labels = train_batches(dataset, 4, AugmentPolicy(), seed=1).element_spec
    assert images == tf.TensorSpec([4, 32, 32, 3], tf.uint8)
    assert labels == tf.TensorSpec([4], tf.int64)


def test_every_example_once_in_an_epoch(dataset):
    batches = train_batches(dataset, 7, None, seed=1).take(3)
    seen = [key for images, _ in batches for key in keys(images)]
    stored = [image.numpy().tobytes() for image, _ in read_examples(dataset, "train")]
    assert Counter(seen) == Counter(stored)


def test_order_changes_with_the_epoch(dataset):
    epochs = [keys(images) for images, _ in train_batches(dataset, 21, None, seed=1).take(2)]
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1])


@pytest.mark.parametrize("policy", [None, AugmentPolicy()])
def test_seed_decides_all(dataset, policy):
    def first(seed):
        return [keys(images) for images, _ in train_batches(dataset, 5, policy, seed).take(6)]

    assert first(3) == first(3)
    assert first(3) != first(4)


def test_augmentation_is_new_in_every_epoch(dataset):
    batches = [
        set(keys(images)) for images, _ in train_batches(dataset, 21, AugmentPolicy(), 1).take(2)
    ]
    assert not batches[0] & batches[1]


def test_evaluation_keeps_the_last_smaller_batch(dataset):
    sizes = [len(labels) for _, labels in eval_batches(dataset, "validation", 4)]
    assert sizes == [4, 4, 1]


def test_labels_stay_with_their_images(dataset):
    stored = {
        image.numpy().tobytes(): int(label) for image, label in read_examples(dataset, "train")
    }
    for images, labels in train_batches(dataset, 7, None, seed=1).take(3):
        assert [stored[key] for key in keys(images)] == labels.numpy().tolist()


def test_lost_record_is_noticed(tmp_path):
    folder = make_dataset(tmp_path / "examples", counts=COUNTS)
    shard = sorted((folder / "train").iterdir())[0]
    records = list(tf.data.TFRecordDataset(str(shard)))
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for record in records[:-1]:
            writer.write(record.numpy())
    with pytest.raises(tf.errors.OpError, match="expected to contain 21 elements"):
        list(read_examples(load_dataset(folder), "train"))


def test_images_are_whole_bytes(dataset):
    image, _ = next(iter(read_examples(dataset, "test")))
    assert image.dtype == tf.uint8
    assert np.ptp(image.numpy()) > 0
