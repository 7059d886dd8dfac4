"""The real compiler of TPUs, in an environment of its own: `make test-tpu-check`."""

import json
import os
import subprocess
import textwrap
from pathlib import Path

import pytest

from components.common.config import build
from components.train_model.architectures import ModelConfig
from components.train_model.models import build_model
from pipelines.recipe import load_recipe
from tests.multiplications import multiplications

pytestmark = [pytest.mark.tpu_check, pytest.mark.timeout(900)]
# The smallest recipe and a slice of four cores: as little to compile as there is.
CHECK = ["tpu", "check", "--recipe", "quick", "--no-largest-batch", "--json"]
BATCH = 8


@pytest.fixture(scope="module")
def python(repository):
    given = os.environ.get("FLOWERS_TPU_PYTHON")
    assert given, "make test-tpu-check says which Python has the compiler"
    return repository / Path(given)


def call(python, *arguments):
    return subprocess.run(
        [python, *arguments], capture_output=True, text=True, timeout=800, check=False
    )


@pytest.fixture(scope="module")
def report(python):
    finished = call(
        python, "-m", "pipelines", *CHECK, "--topology", "v5e:2x2", "--batch-per-core", str(BATCH)
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_arithmetic_is_that_of_the_net(report):
    recipe = load_recipe("quick")
    net = build_model(build(ModelConfig, load_plain(recipe), "model"), 64, 5)
    # Forwards, and twice backwards; two operations for each multiplication with its sum.
    expected = 3 * 2 * multiplications(net) * BATCH
    assert report["compiled"]["flops"] == pytest.approx(expected, rel=0.35)
    assert report["compiled"]["parameters"] == net.count_params()


def load_plain(recipe):
    from pipelines.recipe import plain

    return plain(recipe.model)


def test_every_gradient_goes_round_once(report):
    parameters = report["compiled"]["parameters"]
    # In bfloat16 or float32, with what BatchNorm and the metrics send beside them.
    assert 2 * parameters <= report["compiled"]["all_reduce_bytes"] <= 1.3 * 4 * parameters


def test_memory_holds_the_weights_and_the_batch(report):
    compiled = report["compiled"]
    # Weights and the two moments of AdamW, and the images.
    least = 3 * 4 * compiled["parameters"] + BATCH * 64 * 64 * 3
    assert least <= compiled["peak_bytes"] <= report["hbm_per_core"]
    assert compiled["hbm_bytes"] <= compiled["bytes_accessed"]
    assert report["input_images_per_second_per_cpu"] > 100


def test_larger_images_of_the_last_phase_have_to_fit_too(python, report):
    refine = "{epochs: 1, schedule: {name: constant, peak: 0.1}, crop_size: 128}"
    changes = [f"--set=train.refine={refine}", "--topology=v5e:2x2", f"--batch-per-core={BATCH}"]
    finished = call(python, "-m", "pipelines", *CHECK, *changes)
    assert finished.returncode == 0, finished.stderr
    compiled = json.loads(finished.stdout)["compiled"]
    assert compiled["flops"] == pytest.approx(report["compiled"]["flops"])
    assert compiled["peak_bytes"] > 1.5 * report["compiled"]["peak_bytes"]


def test_figures_are_not_those_of_the_smaller_crops_at_first(python, report):
    changes = ["--set=train.progressive_resizing={crop_size: 32}", f"--batch-per-core={BATCH}"]
    finished = call(python, "-m", "pipelines", *CHECK, *changes, "--topology=v5e:2x2")
    assert finished.returncode == 0, finished.stderr
    compiled = json.loads(finished.stdout)["compiled"]
    assert compiled["flops"] == pytest.approx(report["compiled"]["flops"])


def test_batch_that_does_not_fit_ends_with_3(python):
    finished = call(
        python, "-m", "pipelines", *CHECK, "--topology", "v5e:1x1", "--batch-per-core", "65536"
    )
    assert finished.returncode == 3
    (line,) = finished.stderr.splitlines()
    assert line.startswith("flowers: 65536 images a core on v5e:1x1 do not fit into 16.00 GiB")


def test_batch_that_the_recipe_cannot_divide_ends_with_2(python):
    changes = ["--set=train.ghost_batch_size=16", "--topology=v5e:2x2", "--batch-per-core=5"]
    finished = call(python, "-m", "pipelines", *CHECK, *changes)
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    assert line == (
        "flowers: train.ghost_batch_size: expected a divisor of the 20 examples of a batch, "
        "received 16"
    )


def test_operation_that_a_tpu_lacks_is_named(python):
    """No recipe has one, so one is put behind the net."""
    code = textwrap.dedent("""
        from pipelines.tpu_check import worker
        import jax.numpy as jnp, keras
        from pipelines.recipe import load_recipe
        from pipelines.targets.tpu_chips import parse_slice
        from pipelines.tpu_check.check import make_task, require

        class Odd(keras.layers.Layer):
            def call(self, inputs):
                values = jnp.linalg.eig(jnp.eye(3))[0]
                return inputs * keras.ops.cast(jnp.abs(values).sum(), inputs.dtype)

        build = worker.build_net
        def with_odd(*arguments):
            net = build(*arguments)
            return keras.Model(net.input, Odd()(net.output))
        worker.build_net = with_odd

        where = parse_slice("v5e:1x1")
        outcome = worker.try_step(make_task(load_recipe("quick"), where, 5), 8)
        try:
            require(outcome, where)
        except Exception as error:
            print("REFUSED", error.exit_code, error)
    """)
    finished = call(python, "-c", code)
    (line,) = [one for one in finished.stdout.splitlines() if one.startswith("REFUSED")]
    assert line.startswith("REFUSED 3 the operation eig does not compile for v5e:1x1")
