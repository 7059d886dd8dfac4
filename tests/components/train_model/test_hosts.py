"""Two processes of this machine train one model, as two hosts do; run by make test-distributed."""

import hashlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from components.common.dataset import load_dataset
from components.common.models import load_model
from components.train_model.input_pipeline import eval_batches, read_examples
from tests.builders import TINY_MODEL, TINY_TRAIN, make_dataset
from tests.components.train_model.host import CASES

pytestmark = pytest.mark.distributed
RUNTIMES = ["jax", "tensorflow"]
COUNTS = {"train": 48, "validation": 13, "test": 8}
DENSE = {"name": "dense", "units": [8]}
# Enough that a training is still going on when it is looked at.
EPOCHS = 40


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "examples"
    return make_dataset(folder, counts=COUNTS, train_shards=3)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(*arguments, hosts=2):
    """Starts a command on every host."""
    place = {"FLOWERS_HOSTS": str(hosts), "FLOWERS_COORDINATOR": f"127.0.0.1:{free_port()}"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", *map(str, arguments)],
            env={**os.environ, **place, "FLOWERS_HOST": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(hosts)
    ]


def end(processes, timeout=600):
    """Exit codes and outputs of all."""
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return [process.returncode for process in processes], outputs


@pytest.fixture(scope="module", params=itertools.product(RUNTIMES, CASES), ids="-".join)
def trained(request, examples, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained")
    processes = start("tests.components.train_model.host", *request.param, examples, output)
    codes, outputs = end(processes)
    assert codes == [0, 0], outputs
    return output


def test_hosts_have_the_same_weights(trained):
    first, second = (np.load(trained / f"weights-{index}.npz") for index in (0, 1))
    assert len(first.files) > 10
    for name in first.files:
        np.testing.assert_array_equal(first[name], second[name])


def test_every_example_is_read_by_one_host_in_each_epoch(trained, examples):
    stored = Counter(
        hashlib.sha256(image.numpy().tobytes()).hexdigest()
        for image, _ in read_examples(load_dataset(examples), "train")
    )
    hosts = [(trained / f"seen-{index}.txt").read_text().splitlines() for index in (0, 1)]
    for epoch in range(2):
        batches = [line for host in hosts for line in host[6 * epoch : 6 * (epoch + 1)]]
        assert Counter(" ".join(batches).split()) == stored
    # Each has the same part in both.
    for host in hosts:
        assert sorted(" ".join(host[:6]).split()) == sorted(" ".join(host[6:]).split())


def test_validation_is_that_of_the_whole_split(trained, examples):
    """Thirteen examples on two hosts: padding counts for nothing."""
    history = json.loads((trained / "model" / "history.json").read_text())
    images, targets = next(iter(eval_batches(load_dataset(examples), "validation", 13)))
    answers = load_model(trained / "model").predict_on_batch(images)
    right = np.mean(np.argmax(answers, axis=1) == np.argmax(targets, axis=1))
    assert history["kept"]["val_accuracy"] == pytest.approx(right)
    loss = -np.mean(np.log(np.sum(answers * targets, axis=1)))
    assert history["kept"]["val_loss"] == pytest.approx(loss, rel=1e-4)
    assert history["devices"].startswith("2 CPUs of 2 hosts")


def history_of(checkpoint):
    state = checkpoint / "state.json"
    return json.loads(state.read_text())["history"] if state.exists() else []


def wait_for_epochs(checkpoint, epochs, processes):
    deadline = time.monotonic() + 600
    while len(history_of(checkpoint)) < epochs:
        if time.monotonic() > deadline or any(one.poll() is not None for one in processes):
            for process in processes:
                process.kill()
            pytest.fail(f"not {epochs} epochs: {end(processes)}")
        time.sleep(0.05)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_lost_and_preempted_hosts(runtime, examples, tmp_path):
    checkpoint, output = tmp_path / "checkpoint", tmp_path / "output"
    # Both hosts are given the same places: one of them writes.
    command = [
        "components.train_model",
        f"--examples={examples}",
        f"--augmented={examples}",
        f"--checkpoint={checkpoint}",
        f"--output={output}",
        f"--model-config={json.dumps(DENSE)}",
        f"--train-config={json.dumps(TINY_TRAIN | {'epochs': EPOCHS, 'keep': 'last'})}",
        f"--accelerator={json.dumps({'kind': 'cpu', 'runtime': runtime})}",
    ]

    # One host is killed: the other ends, soon, and says why.
    hosts = start(*command)
    wait_for_epochs(checkpoint, 2, hosts)
    hosts[1].kill()
    codes, outputs = end(hosts, timeout=60)
    assert codes == [75, -signal.SIGKILL]
    assert "train-model: exit 75: host 1 was lost" in outputs[0]
    assert not output.exists()
    before = history_of(checkpoint)

    # Both go on; one is told to end, and both save and end.
    hosts = start(*command)
    wait_for_epochs(checkpoint, len(before) + 1, hosts)
    hosts[1].terminate()
    codes, outputs = end(hosts)
    assert codes == [75, 75], outputs
    assert "told to end (SIGTERM)" in outputs[0] + outputs[1]
    preempted = history_of(checkpoint)
    assert preempted[: len(before)] == before

    hosts = start(*command)
    codes, outputs = end(hosts)
    assert codes == [0, 0], outputs
    assert f"goes on from {checkpoint}" in outputs[0]
    history = json.loads((output / "model" / "history.json").read_text())["history"]
    assert history[: len(preempted)] == preempted
    assert [epoch["epoch"] for epoch in history] == list(range(1, EPOCHS + 1))
    assert not list(tmp_path.glob(".*"))


def test_hosts_with_other_recipes_refuse_each_other(examples, tmp_path):
    hosts = []
    place = {"FLOWERS_HOSTS": "2", "FLOWERS_COORDINATOR": f"127.0.0.1:{free_port()}"}
    for index in range(2):
        train = TINY_TRAIN | {"seed": index}
        hosts.append(
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "components.train_model"),
                    *(f"--examples={examples}", f"--augmented={examples}"),
                    f"--output={tmp_path / 'output'}",
                    f"--model-config={json.dumps(TINY_MODEL)}",
                    f"--train-config={json.dumps(train)}",
                    '--accelerator={"kind": "cpu", "runtime": "jax"}',
                ],
                env={**os.environ, **place, "FLOWERS_HOST": str(index)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    codes, outputs = end(hosts)
    assert codes == [2, 2]
    assert all("expected the examples and the recipe of every other host" in one for one in outputs)
    assert not (tmp_path / "output").exists()
