"""SIGTERM: a training saves, ends with exit code 75, and goes on when it is started again."""

import json
import signal
import subprocess
import sys

import pytest

from components.common.errors import RetryError
from components.train_model.preemption import Preemption
from tests.builders import TINY_MODEL, TINY_TRAIN, make_dataset


def test_signal_ends_at_once_what_has_nothing_to_save():
    preemption = Preemption()
    with preemption.listening():
        # As the libraries do that join hosts.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with preemption.held():
            signal.raise_signal(signal.SIGTERM)
            assert preemption.asked
        with pytest.raises(RetryError, match="nothing to save; start the same again"):
            signal.raise_signal(signal.SIGTERM)


def test_signal_is_left_as_it_was():
    before = signal.getsignal(signal.SIGTERM)
    with Preemption().listening():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("saved", [True, False])
def test_training_gives_way(tmp_path, saved):
    examples = make_dataset(tmp_path / "examples")
    checkpoint, output = tmp_path / "checkpoint", tmp_path / "output"
    command = [
        *(sys.executable, "-m", "components.train_model"),
        *(f"--examples={examples}", f"--augmented={examples}", f"--output={output}"),
        f"--model-config={json.dumps(TINY_MODEL)}",
        f"--train-config={json.dumps(TINY_TRAIN | {'epochs': 100_000})}",
        *([f"--checkpoint={checkpoint}"] if saved else []),
    ]
    for _ in range(2 if saved else 1):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            for line in process.stdout:
                if " epochs, loss" in line:
                    break
            process.terminate()
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 75
        last = errors.splitlines()[-1]
        assert last.startswith("train-model: exit 75: told to end (SIGTERM) after")
        told = ", saved in" if saved else ", which are lost: no --checkpoint; start again with one"
        assert told in last
        assert not output.exists()
    if saved:
        state = json.loads((checkpoint / "state.json").read_text())
        position = state["position"]
        assert f"after {position['epoch']} epochs and {position['step']} steps" in last
        assert [one["epoch"] for one in state["history"]] == list(range(1, position["epoch"] + 1))
