import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from components.common.dataset import load_dataset
from components.common.policy import AugmentPolicy
from components.common.tfrecords import shard_name
from components.train_model.augmented_model import DRAWS
from components.train_model.config import ConstantConfig, TrainConfig
from components.train_model.hosts import Hosts
from components.train_model.input_pipeline import (
    decode_examples,
    eval_batches,
    find_pieces,
    read_examples,
    train_batches,
    weighted_batches,
)
from tests.builders import make_dataset

BASE = TrainConfig(
    epochs=1, global_batch_size=7, schedule=ConstantConfig(peak=0.1), seed=1, policy=None
)
COUNTS = {"train": 21, "validation": 9, "test": 5}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return load_dataset(make_dataset(tmp_path_factory.mktemp("data") / "examples", counts=COUNTS))


def batches(dataset, batch_size=7, policy=None, seed=1, first_step=0, begin=0, **changes):
    config = dataclasses.replace(
        BASE, global_batch_size=batch_size, policy=policy, seed=seed, **changes
    )
    return train_batches(dataset, config, first_step, begin=begin)


def content(batches):
    """Everything in some batches, to compare."""
    return [
        (keys(images), draws.numpy().tolist(), targets.numpy().tolist())
        for (images, draws), targets in batches
    ]


def keys(images):
    return [image.tobytes() for image in images.numpy()]


def test_shapes_are_static(dataset):
    (images, draws), targets = batches(dataset, 4, AugmentPolicy()).element_spec
    assert images == tf.TensorSpec([4, 32, 32, 3], tf.uint8)
    assert draws == tf.TensorSpec([4, DRAWS], tf.float32)
    assert targets == tf.TensorSpec([4, 3], tf.float32)


def test_no_tuner_holds_up_the_end_of_a_pipeline(dataset):
    weighted = weighted_batches(dataset, "validation", 4, replicas=2)
    for made in (batches(dataset), eval_batches(dataset, "validation", 4), weighted.batches):
        assert made.options().autotune.enabled is False


def test_every_example_once_in_an_epoch(dataset):
    epoch = batches(dataset).take(3)
    seen = [key for (images, _), _ in epoch for key in keys(images)]
    stored = [image.numpy().tobytes() for image, _ in read_examples(dataset, "train")]
    assert Counter(seen) == Counter(stored)


def test_order_changes_with_the_epoch(dataset):
    epochs = [keys(images) for (images, _), _ in batches(dataset, 21).take(2)]
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1])


def test_seed_decides_all(dataset):
    def first(seed):
        return content(batches(dataset, 5, seed=seed, mixup=0.2).take(6))

    assert first(3) == first(3)
    assert first(3) != first(4)


def test_draws_are_new_in_every_step(dataset):
    draws = [draws.numpy() for (_, draws), _ in batches(dataset, 7).take(6)]
    assert len({float(row[0]) for step in draws for row in step}) == 42


def test_evaluation_keeps_the_last_smaller_batch(dataset):
    sizes = [len(labels) for _, labels in eval_batches(dataset, "validation", 4)]
    assert sizes == [4, 4, 1]


def test_labels_stay_with_their_images(dataset):
    stored = {
        image.numpy().tobytes(): int(label) for image, label in read_examples(dataset, "train")
    }
    for (images, _), targets in batches(dataset).take(3):
        assert [stored[key] for key in keys(images)] == np.argmax(targets, axis=1).tolist()


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


@pytest.mark.parametrize("changes", [{}, {"mixup": 0.2, "cutmix": 1.0}])
def test_training_that_goes_on_sees_what_it_would_have_seen(dataset, changes):
    whole = content(batches(dataset, 5, **changes).take(9))
    rest = batches(dataset, 5, first_step=6, **changes).take(3)
    assert content(rest) == whole[6:]


def test_phase_shuffles_on_its_own_and_draws_on(dataset):
    whole = content(batches(dataset, 7).take(6))
    phase = content(batches(dataset, 7, first_step=3, begin=3).take(3))
    assert content(batches(dataset, 7, first_step=4, begin=3).take(2)) == phase[1:]
    (before, drawn), (images, draws) = (
        ([image for part in epoch for image in part[0]], [part[1] for part in epoch])
        for epoch in (whole[3:], phase)
    )
    assert sorted(images) == sorted(before)
    assert images != before
    assert draws == drawn
    # Nor is it the order in which the training began.
    assert images != [image for part in whole[:3] for image in part[0]]


def test_mixed_targets_still_add_to_one(dataset):
    for _, targets in batches(dataset, mixup=0.4, cutmix=1.0).take(6):
        np.testing.assert_allclose(tf.reduce_sum(targets, axis=1), np.ones(7), rtol=1e-6)


@given(st.lists(st.integers(1, 40), max_size=8), st.integers(1, 12))
def test_every_record_is_in_the_piece_of_one_host(counts, hosts):
    shards = [
        Path(shard_name("train", index, len(counts), count)) for index, count in enumerate(counts)
    ]
    read, sizes = [], []
    for index in range(hosts):
        part = Hosts(hosts, index, "a:1").share(sum(counts))
        pieces = find_pieces(shards, part)
        records = [(one.path, one.skip + at) for one in pieces for at in range(one.take)]
        read += records
        sizes.append(len(records))
    assert read == [
        (path, at) for path, count in zip(shards, counts, strict=True) for at in range(count)
    ]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("count", [2, 3, 5])
def test_hosts_read_every_example_once_in_an_epoch(dataset, count):
    stored = [image.numpy().tobytes() for image, _ in read_examples(dataset, "train")]
    parts = [
        [image.numpy().tobytes() for image, _ in decode_examples(dataset, "train", host)]
        for host in hosts_of(count)
    ]
    assert [key for part in parts for key in part] == stored
    config = dataclasses.replace(BASE, global_batch_size=count)
    for host, part in zip(hosts_of(count), parts, strict=True):
        epoch = train_batches(dataset, config, replicas=count, hosts=host).take(len(part))
        assert Counter(key for (images, _), _ in epoch for key in keys(images)) == Counter(part)


def hosts_of(count):
    return [Hosts(count, index, "a:1") for index in range(count)]


def test_hosts_draw_otherwise(dataset):
    config = dataclasses.replace(BASE, global_batch_size=4)
    draws = [
        next(iter(train_batches(dataset, config, replicas=2, hosts=host)))[0][1].numpy()
        for host in hosts_of(2)
    ]
    assert not np.intersect1d(draws[0][:, 0], draws[1][:, 0]).size


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("multiple", [1, 3])
def test_weights_leave_padding_out(dataset, count, multiple):
    """Every example once, all hosts alike, and a mean over all batches is one over the split."""
    seen, weights, targets = [], [], []
    for host in hosts_of(count):
        padded = weighted_batches(
            dataset, "validation", 8, replicas=2 * count, hosts=host, steps_multiple=multiple
        )
        assert padded.steps % multiple == 0
        for images, labels, weight in padded.batches.take(padded.steps):
            assert len(images) % 2 == 0
            seen += [key for key, one in zip(keys(images), weight, strict=True) if one]
            weights += weight.numpy().tolist()
            targets += labels.numpy().tolist()
    stored = [image.numpy().tobytes() for image, _ in read_examples(dataset, "validation")]
    assert Counter(seen) == Counter(stored)
    assert np.mean(weights) == pytest.approx(1.0)
    shares = np.mean(np.array(targets) * np.array(weights)[:, None], axis=0)
    assert shares == pytest.approx([1 / 3] * 3)
