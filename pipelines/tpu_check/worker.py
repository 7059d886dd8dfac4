"""Compiles train steps for a TPU that is not there; a process of its own, for `check` to talk to.

    python -m pipelines.tpu_check.worker

The first line of standard input is a `Task`, each further one asks something: `{"batch": 16}` is
answered with a `Compiled` or a `Refused`, `{"input": true}` with the rate of the input pipeline.

This is the only file that uses inner parts of JAX and Keras, whose versions are pinned.
"""

import os

# Before the first import of Keras and JAX. The devices of this process are CPUs; only the compiler
# is that of a TPU, which would otherwise ask Google Cloud's metadata server which one it has.
os.environ.update(
    KERAS_BACKEND="jax",
    JAX_PLATFORMS="cpu",
    TPU_SKIP_MDS_QUERY="1",
    ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    TF_CPP_MIN_LOG_LEVEL="3",
)

import dataclasses
import importlib.metadata
import json
import re
import sys
import time
from typing import Any, TextIO

import jax
import keras
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from components.common.config import build
from components.common.errors import FlowersError
from components.train_model.architectures import ModelConfig
from components.train_model.augmented_model import DRAWS, AugmentedModel
from components.train_model.building import build_net, wrap_for_training
from components.train_model.config import TrainConfig
from components.train_model.fitting import compile_model
from components.train_model.plan import Plan
from components.train_model.precision import choose_precision
from pipelines.tpu_check.hlo import all_reduce_bytes, hbm_bytes, heaviest
from pipelines.tpu_check.input_rate import measure_input_rate
from pipelines.tpu_check.messages import Compiled, Refused, Task

_HEAVIEST = 5
# Any: the length of an epoch is a number in the schedule, and shapes nothing.
_STEPS_PER_EPOCH = 100
_MEMORY = re.compile(r"RESOURCE_EXHAUSTED|[Rr]an out of memory|exceed\w* (?:the )?HBM")
_OPS = (
    re.compile(r"primitive '?([\w-]+)'?"),
    re.compile(r"custom[- ]call target:? '?\"?([\w.:$-]+)"),
    re.compile(r"%[\w.-]+ = \S+ ([\w-]+)\("),
    re.compile(r"[Uu]nsupported (?:HLO )?(?:op\w*|instruction):? '?%?([\w.-]+)"),
    re.compile(r"\b([a-z_]+) is only implemented on"),
)


def make_models(task: Task, batch: int) -> tuple[list[AugmentedModel], str]:
    """Builds and compiles the model as the training step does, with random weights.

    Returns:
        The model as the recipe's `train` trains it, and again for a later phase with larger images,
        which needs more memory, where a phase of the head alone, or of smaller crops, needs less;
        and the precision.
    """
    architecture = build(ModelConfig, task.model_config, "model")
    config = build(TrainConfig, task.train_config, "train")
    config = dataclasses.replace(config, global_batch_size=0, batch_per_replica=batch)
    precision = choose_precision(config.precision, "tpu", architecture.bfloat16_pays_on_cpu())
    plan = Plan(config, _STEPS_PER_EPOCH, task.cores)
    models: list[AugmentedModel] = []
    largest = 0
    for phase in plan.phases:
        size = phase.config.train_size(task.image_size)
        if not (phase.is_main or models) or size <= largest:
            continue
        largest = size
        net = build_net(architecture, config, task.image_size, task.classes, precision)
        model = wrap_for_training(net, architecture, config, task.cores, split=False)
        compile_model(model, plan, phase)
        models.append(model)
    return models, precision


def compile_step(model: keras.Model, task: Task, batch: int) -> Any:
    """Compiles what `fit` runs on the JAX backend, the batch split over all cores.

    Args:
        model: A compiled model that takes images and draws.
        task: The slice and the size of the images.
        batch: Images per core.

    Returns:
        JAX's compiled function.

    Raises:
        Exception: Whatever JAX, Keras or the compiler raises.
    """
    mesh = Mesh(describe(task), ("batch",))
    replicated, split = (NamedSharding(mesh, PartitionSpec(*one)) for one in ((), ("batch",)))
    images = batch * task.cores
    shapes = (
        ((images, task.image_size, task.image_size, 3), np.uint8),
        ((images, DRAWS), np.float32),
        ((images, task.classes), np.float32),
    )
    zeros = [np.zeros(*shape) for shape in shapes]
    # Makes the variables of the metrics, as `fit` does before its first step.
    model._symbolic_build(data_batch=((zeros[0], zeros[1]), zeros[2]))
    state = tuple(
        [_shape(variable.value, replicated) for variable in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    )
    pixels, draws, targets = (_shape(one, split) for one in zeros)
    traced = jax.jit(model.train_step, donate_argnums=0).trace(state, ((pixels, draws), targets))
    return traced.lower(lowering_platforms=("tpu",)).compile()


def describe(task: Task) -> Any:
    """The cores of a slice, as the compiler knows them.

    Raises:
        FlowersError: It knows another number than our table.
    """
    options: dict[str, Any] = {}
    if task.topology.endswith(":1x1"):
        # It takes a host for one of four chips.
        options["chips_per_host_bounds"] = (1, 1, 1)
    if task.topology.startswith("v4:"):
        # Both TensorCores of a chip as one device, as JAX has them on a machine with TPUs.
        options["chip_config_name"] = "megacore"
    found = topologies.get_topology_desc(
        platform="tpu", topology_name=task.topology, **options
    ).devices
    if len(found) != task.cores:
        raise FlowersError(
            f"{task.topology}: expected {task.cores} cores, the compiler knows {len(found)}"
        )
    return np.array(found)


def _shape(array: Any, sharding: Any) -> Any:
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)


def try_step(task: Task, batch: int) -> Compiled | Refused:
    """Compiles a train step and says what came of it."""
    keras.backend.clear_session()
    models, precision = make_models(task, batch)
    began = time.perf_counter()
    try:
        steps = [compile_step(model, task, batch) for model in models]
    except FlowersError:
        raise
    except Exception as error:
        return refusal(batch, error)
    compiled = steps[0]
    cost, text = compiled.cost_analysis(), compiled.as_text()
    return Compiled(
        batch_per_core=batch,
        flops=float(cost["flops"]),
        bytes_accessed=float(cost["bytes accessed"]),
        # Operands that an operation reads a part of count whole in the text.
        hbm_bytes=min(hbm_bytes(text), float(cost["bytes accessed"])),
        peak_bytes=float(max(_peak(step.memory_analysis()) for step in steps)),
        all_reduce_bytes=all_reduce_bytes(text),
        heaviest=heaviest(text, _HEAVIEST),
        seconds=time.perf_counter() - began,
        precision=precision,
        parameters=models[0].net.count_params(),
        compiler=importlib.metadata.version("libtpu"),
    )


def _peak(memory: Any) -> int:
    """The peak, which is at least what is there from beginning to end."""
    lasting = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.generated_code_size_in_bytes
    )
    together: int = lasting + memory.temp_size_in_bytes
    return max(together, getattr(memory, "peak_memory_in_bytes", 0))


def refusal(batch: int, error: BaseException) -> Refused:
    """Puts into one line what a compiler says in many."""
    text = " ".join(str(error).split()) or type(error).__name__
    memory = bool(_MEMORY.search(text))
    found = next((match for one in _OPS if (match := one.search(text))), None)
    op = found[1] if found and not memory else ""
    return Refused(batch, op, text[:400], memory)


def main() -> None:
    """Answers until standard input ends."""
    # Libraries print; what is printed goes to standard error, and the answers to where they belong.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    task = Task(**json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        _answer(task, json.loads(line), answers)


def _answer(task: Task, question: dict[str, Any], answers: TextIO) -> None:
    try:
        if "batch" in question:
            answer = dataclasses.asdict(try_step(task, int(question["batch"])))
        else:
            config = build(TrainConfig, task.train_config, "train")
            answer = {"images_per_second": measure_input_rate(config, task.image_size)}
    except FlowersError as error:
        answer = {"error": str(error), "exit_code": error.exit_code}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
