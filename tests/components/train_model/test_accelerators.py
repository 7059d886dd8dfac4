import json
import os
import subprocess
import sys

import pytest

from components.common.config import build
from components.common.errors import ConfigError
from components.train_model.accelerators import (
    Accelerator,
    AcceleratorConfig,
    count_tpu_chips,
    open_accelerator,
    parse_accelerator,
)
from components.train_model.config import TrainConfig
from components.train_model.hosts import Hosts
from tests.builders import TINY_MODEL, TINY_TRAIN, make_dataset

BASE = {"epochs": 1, "schedule": {"name": "constant", "peak": 0.1}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, AcceleratorConfig()),
        ("tpu", AcceleratorConfig("tpu")),
        ('{"kind": "gpu", "runtime": "jax", "replicas": 2}', AcceleratorConfig("gpu", "jax", 2)),
    ],
)
def test_parse(text, expected):
    assert parse_accelerator(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("npu", "accelerator.kind: expected one of auto, tpu, gpu, cpu, received 'npu'"),
        ('{"runtime": "torch"}', "accelerator.runtime: expected one of auto, jax, tensorflow"),
        ('{"replicas": -1}', "accelerator.replicas: expected 0 to"),
        ('{"chips": 4}', "accelerator.chips: unknown key"),
        ("nowhere.yaml", "nowhere.yaml: cannot be read"),
    ],
)
def test_wrong_accelerator(text, words):
    with pytest.raises(ConfigError, match=words):
        parse_accelerator(text)


def test_auto_takes_what_is_here():
    with open_accelerator(AcceleratorConfig()) as found:
        assert (found.kind, found.runtime, found.replicas) == ("cpu", "tensorflow", 1)
        assert found.strategy is None


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (AcceleratorConfig("tpu", "tensorflow"), r"received tpu.*TPU chips on the PCI bus"),
        (AcceleratorConfig("gpu"), r"received gpu.*CUDA devices with TensorFlow"),
        (AcceleratorConfig("cpu", "jax"), "expected tensorflow, which Keras already runs on"),
        (AcceleratorConfig("cpu", "tensorflow", 3), "devices of this process have been used"),
    ],
)
def test_what_is_not_here_is_refused(config, words):
    import keras  # noqa: F401
    import tensorflow as tf

    tf.config.list_logical_devices()
    with pytest.raises(ConfigError, match=words), open_accelerator(config):
        pass


def test_chips_are_counted_on_the_bus(tmp_path):
    devices = [("0x1ae0", "0x0063")] * 4 + [("0x1ae0", "0x0042"), ("0x10de", "0x0063")]
    for number, (vendor, device) in enumerate(devices):
        folder = tmp_path / f"0000:00:{number:02d}.0"
        folder.mkdir()
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "device").write_text(f"{device}\n")
    assert count_tpu_chips(tmp_path) == 4
    assert count_tpu_chips(tmp_path / "nothing") == 0


def test_devices_in_words():
    assert Accelerator("cpu", "tensorflow").describe() == "one CPU, TensorFlow"
    hosts = Hosts(2, 0, "a:1")
    assert Accelerator("tpu", "jax", 16, hosts).describe() == "16 TPUs of 2 hosts, JAX"


class TestBatchSize:
    def test_given_for_all_replicas(self):
        config = build(TrainConfig, BASE | {"global_batch_size": 32})
        assert [config.batch_size(replicas) for replicas in (1, 4, 32)] == [32, 32, 32]

    def test_given_for_each_replica(self):
        config = build(TrainConfig, BASE | {"batch_per_replica": 16})
        assert [config.batch_size(replicas) for replicas in (1, 8)] == [16, 128]

    def test_that_replicas_do_not_divide(self):
        config = build(TrainConfig, BASE | {"global_batch_size": 30})
        with pytest.raises(ConfigError, match="expected a multiple of the 8 replicas, received 30"):
            config.batch_size(8)

    def test_whose_neighbours_would_be_on_two_replicas(self):
        config = build(TrainConfig, BASE | {"batch_per_replica": 3, "mixup": 0.2})
        assert config.batch_size(1) == 3
        with pytest.raises(ConfigError, match=r"train.batch_per_replica: expected an even number"):
            config.batch_size(2)

    def test_in_ghost_batches(self):
        config = build(TrainConfig, BASE | {"global_batch_size": 64, "ghost_batch_size": 32})
        assert [config.ghost_batches(replicas) for replicas in (1, 8)] == [2, 2]

    def test_no_larger_than_a_ghost_batch(self):
        config = build(TrainConfig, BASE | {"global_batch_size": 16, "ghost_batch_size": 32})
        assert config.ghost_batches(1) == 1

    def test_that_ghost_batches_do_not_divide(self):
        config = build(TrainConfig, BASE | {"global_batch_size": 48, "ghost_batch_size": 32})
        with pytest.raises(ConfigError, match="expected a divisor of the 48 examples of a batch"):
            config.batch_size(1)

    def test_over_each_replica(self):
        config = build(TrainConfig, BASE | {"global_batch_size": 64, "batch_norm": "per_replica"})
        assert [config.ghost_batches(replicas) for replicas in (1, 8)] == [1, 8]

    @pytest.mark.parametrize("both", [{}, {"global_batch_size": 8, "batch_per_replica": 8}])
    def test_given_twice_or_never(self, both):
        with pytest.raises(ConfigError, match="expected either it or batch_per_replica"):
            build(TrainConfig, BASE | both)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "examples")


@pytest.mark.parametrize(
    ("cores", "parts", "expected"),
    [(2, 2, [1, 2]), (2, 4, [1, 2]), (4, 2, [0, 0]), (1, 1, [0, 0]), (2, 1, [0, 0])],
)
def test_ghost_batches_share_the_cores(cores, parts, expected):
    """Threads of an operation, and operations at a time; 0 is TensorFlow's own choice."""
    code = f"""
from components.common.config import build
from components.train_model import accelerators
from components.train_model.config import TrainConfig
accelerators.count_cores = lambda: {cores}
sizes = {{"global_batch_size": 8 * {parts}, "ghost_batch_size": 8}}
training = build(TrainConfig, {BASE} | sizes)
devices = accelerators.AcceleratorConfig("cpu", "tensorflow")
with accelerators.open_accelerator(devices, training=training):
    from tensorflow import config
    threads = config.threading
    print(threads.get_intra_op_parallelism_threads(), threads.get_inter_op_parallelism_threads())
"""
    environment = {name: text for name, text in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert [int(word) for word in done.stdout.split()[-2:]] == expected


BY_COMMAND = """
from components.train_model.__main__ import command
command.main([
    f"--examples={examples}", f"--augmented={examples}", f"--output={output}",
    f"--model-config={json.dumps(model)}", f"--train-config={json.dumps(training)}",
    "--accelerator=cpu",
], standalone_mode=False)
"""
BY_PIPELINE = """
from kfp import dsl
from components.common.lineage import stamp
from components.train_model.component import train_model
data = dsl.Dataset(uri=examples)
stamp(data)
names = {"model": dsl.Model, "metrics": dsl.Metrics, "report": dsl.HTML}
made = {name: kind(uri=f"{output}-{name}") for name, kind in names.items()}
train_model.python_func(
    data, data, model, training, "", 0, {"kind": "cpu", "runtime": "auto", "replicas": 0}, **made
)
"""


@pytest.mark.parametrize("way", [BY_COMMAND, BY_PIPELINE], ids=["command", "pipeline"])
def test_step_shares_the_cores(examples, tmp_path, way):
    """A step begins otherwise in a pipeline than by its command, and trains in the same way."""
    code = f"""
import json
from components.train_model import accelerators
accelerators.count_cores = lambda: 2
examples, output = {str(examples)!r}, {str(tmp_path / "out")!r}
model, training = {TINY_MODEL}, {TINY_TRAIN | {"epochs": 1, "ghost_batch_size": 4}}
{way}
from tensorflow import config
print(config.threading.get_intra_op_parallelism_threads())
"""
    environment = {name: text for name, text in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "kept epoch 1 of 1" in done.stdout
    assert done.stdout.split()[-1] == "1"


def test_part_of_a_ghost_batch_on_a_replica_is_refused(examples, tmp_path):
    accelerator = '{"kind": "cpu", "runtime": "tensorflow", "replicas": 4}'
    done = step(examples, tmp_path / "out", accelerator, ghost_batch_size=4)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "train-model: exit 2: train.ghost_batch_size: expected a divisor of the 2 examples of each "
        "replica, received 4; runtime jax takes any divisor of a batch"
    )
    assert not (tmp_path / "out").exists()


def test_frozen_means_need_no_whole_ghost_batch_on_a_replica(
    dataset_folder, model_folder, tmp_path
):
    """`mobilenet_v2` on several GPUs: its ghost batches are for the cores of a CPU."""
    accelerator = '{"kind": "cpu", "runtime": "tensorflow", "replicas": 4}'
    model, changes = {"weights": str(model_folder)}, {"batch_norm": "frozen", "ghost_batch_size": 4}
    done = step(dataset_folder, tmp_path / "out", accelerator, model, **changes)
    assert done.returncode == 0, done.stderr


def step(examples, output, accelerator, model=None, **changes):
    """`flowers step train`, in a process of its own."""
    command = [
        *(sys.executable, "-m", "components.train_model"),
        *(f"--examples={examples}", f"--augmented={examples}", f"--output={output}"),
        f"--model-config={json.dumps(TINY_MODEL | (model or {}))}",
        f"--train-config={json.dumps(TINY_TRAIN | changes)}",
        f"--accelerator={accelerator}",
    ]
    environment = {name: text for name, text in os.environ.items() if name != "KERAS_BACKEND"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


# What is here when no kind is named is a CPU too.
@pytest.mark.parametrize("kind", ["cpu", "auto"])
def test_batch_is_refused_before_training(examples, tmp_path, kind):
    devices = json.dumps({"kind": kind, "runtime": "jax", "replicas": 3})
    done = step(examples, tmp_path / "out", devices)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "train-model: exit 2: train.global_batch_size: expected a multiple of the 3 replicas, "
        "received 8"
    )
    assert not (tmp_path / "out").exists()


def test_named_device_that_is_missing(examples, tmp_path):
    done = step(examples, tmp_path / "out", "tpu")
    assert done.returncode == 2
    assert "accelerator.kind: received tpu, and there is none here" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
