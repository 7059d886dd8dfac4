"""The devices that a model is trained on, and the runtime that makes them work together.

Imports nothing heavy at the top: Keras takes its backend from the environment once, when it is
imported, so whoever trains opens the devices first.
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.common.config import Range, build, check, choose, read_mapping
from components.common.errors import ConfigError
from components.common.processes import count_cores
from components.common.progress import say
from components.common.step import import_tensorflow_quietly
from components.train_model.config import TrainConfig
from components.train_model.hosts import ALONE, Hosts, read_hosts
from components.train_model.link import STEP, Link, joined
from components.train_model.preemption import Preemption

AUTO, TPU, GPU, CPU = "auto", "tpu", "gpu", "cpu"
JAX, TENSORFLOW = "jax", "tensorflow"
KINDS = (AUTO, TPU, GPU, CPU)
RUNTIMES = (AUTO, JAX, TENSORFLOW)
_BACKEND = "KERAS_BACKEND"
_NO_METADATA = "TPU_SKIP_MDS_QUERY"
_PCI = Path("/sys/bus/pci/devices")
# Source: jax/_src/hardware_utils.py: Google's vendor id, and the devices that are TPU chips.
_GOOGLE = "0x1ae0"
_CHIPS = {"0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076"}


@dataclasses.dataclass(frozen=True)
class AcceleratorConfig:
    """What a model is trained on.

    Attributes:
        kind: `tpu`, `gpu`, `cpu`, or `auto` for the first of these that is there.
        runtime: `jax`, `tensorflow`, or `auto`: JAX for TPUs, TensorFlow for the rest.
        replicas: Devices of each host that share a batch; 0 for all there are. On a CPU that many
            devices are made of one, which shows how a training behaves on as many.
    """

    kind: str = AUTO
    runtime: str = AUTO
    replicas: int = 0

    def __post_init__(self) -> None:
        choose("kind", self.kind, KINDS)
        choose("runtime", self.runtime, RUNTIMES)
        check("replicas", self.replicas, Range(0, 4096))


def parse_accelerator(text: str | None) -> AcceleratorConfig:
    """Reads what stands behind `--accelerator`.

    Args:
        text: A kind, such as `tpu`; or a YAML or JSON file, or JSON, with the keys of
            `AcceleratorConfig`. None for the defaults.

    Raises:
        ConfigError: A key or a value is wrong.
    """
    if text is None:
        return AcceleratorConfig()
    is_text = text.lstrip().startswith("{") or "." in text or "/" in text
    values = read_mapping(text) if is_text else {"kind": text}
    return build(AcceleratorConfig, values, "accelerator")


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """Devices that are ready.

    Attributes:
        kind: `tpu`, `gpu` or `cpu`.
        runtime: `jax` or `tensorflow`: Keras's backend.
        replicas: Devices that share a batch, over all hosts.
        hosts: The place of this process.
        link: The line to the other hosts; None where there are none.
        strategy: `keras.distribution.DataParallel`, a `tf.distribute.Strategy`, or None for one
            device.
        preemption: Whether the machine is being taken away.
    """

    kind: str
    runtime: str
    replicas: int = 1
    hosts: Hosts = ALONE
    link: Link | None = None
    strategy: Any = None
    preemption: Preemption = dataclasses.field(default_factory=Preemption)

    def building(self) -> contextlib.AbstractContextManager[Any]:
        """Within it a model is built, and compiled, for these devices."""
        scope: contextlib.AbstractContextManager[Any] = (
            contextlib.nullcontext() if self.strategy is None else self.strategy.scope()
        )
        return scope

    def training(self) -> contextlib.AbstractContextManager[Any]:
        """Within it a model is trained; TensorFlow's models know their strategy by then."""
        return contextlib.nullcontext() if self.runtime == TENSORFLOW else self.building()

    @property
    def is_split(self) -> bool:
        """Whether TensorFlow splits a batch among replicas, each of which runs the step."""
        return self.runtime == TENSORFLOW and self.strategy is not None

    def any_preempted(self) -> bool:
        """Whether some host was told to end; all hosts have to ask at the same step."""
        if self.link is None:
            return self.preemption.asked
        return any(self.link.gather(self.preemption.asked))

    def describe(self) -> str:
        """The devices in words, for people."""
        number = "one" if self.replicas == 1 else str(self.replicas)
        word = self.kind.upper() + ("" if self.replicas == 1 else "s")
        hosts = f" of {self.hosts.count} hosts" if self.hosts.count > 1 else ""
        return f"{number} {word}{hosts}, {'JAX' if self.runtime == JAX else 'TensorFlow'}"


@contextlib.contextmanager
def open_accelerator(
    config: AcceleratorConfig, hosts: Hosts | None = None, training: TrainConfig | None = None
) -> Iterator[Accelerator]:
    """Makes the devices ready, together with all hosts, and chooses Keras's backend.

    Args:
        config: Which devices.
        hosts: The place of this process; None to take it from the environment.
        training: What this process is for, so that its ghost batches share the cores of a CPU;
            None to leave threads as they are.

    Raises:
        ConfigError: A device or a library that was named is not there, and says what was looked
            for; or the batch cannot be divided among the devices.
        RetryError: Not all hosts came.
    """
    hosts = read_hosts(os.environ) if hosts is None else hosts
    preemption = Preemption()
    with preemption.listening(), joined(hosts) as link:
        kind = _choose_kind(config)
        runtime = _choose_runtime(config, kind)
        _check_backend(runtime)
        if not count_tpu_chips():
            # libtpu would ask Google Cloud's metadata server for its chips, for many minutes.
            os.environ.setdefault(_NO_METADATA, "1")
        import_tensorflow_quietly(runtime)
        opener = _open_jax if runtime == JAX else _open_tensorflow
        found, replicas, strategy = opener(config, kind, link)
        parts = training.ghost_batches(replicas) if training is not None else 1
        if found == CPU and runtime == TENSORFLOW and strategy is None:
            _share_cores(parts)
        preemption.listen()
        ready = Accelerator(found, runtime, replicas, hosts, link, strategy, preemption)
        if hosts.is_first and ready.describe() != Accelerator(CPU, TENSORFLOW).describe():
            say(STEP, f"trains on {ready.describe()}")
        yield ready


def _choose_kind(config: AcceleratorConfig) -> str:
    """The kind that is named, or TPUs where there are any; else a runtime knows best."""
    if config.kind != AUTO:
        return config.kind
    chips = count_tpu_chips()
    if not chips:
        return AUTO
    if importlib.util.find_spec("libtpu") is None:
        say(STEP, f"{chips} TPU chips are here, and no libtpu: they are not used")
        return AUTO
    return TPU


def count_tpu_chips(devices: Path = _PCI) -> int:
    """TPU chips of this machine, as its PCI bus tells."""
    return sum(
        path.read_text(encoding="ascii").strip() == _GOOGLE
        and (path.parent / "device").read_text(encoding="ascii").strip() in _CHIPS
        for path in devices.glob("*/vendor")
    )


def _choose_runtime(config: AcceleratorConfig, kind: str) -> str:
    has_jax = importlib.util.find_spec("jax") is not None
    runtime = config.runtime
    if runtime == AUTO:
        # The image with TensorFlow's TPU support has no JAX: they cannot share a process.
        runtime = JAX if kind == TPU and has_jax else TENSORFLOW
        if kind != TPU and os.environ.get(_BACKEND) == JAX:
            runtime = JAX
    if runtime == JAX and not has_jax:
        raise ConfigError(
            "accelerator.runtime: expected tensorflow where JAX is not installed, received jax; "
            "pip install jax, or take the image for TPUs"
        )
    return runtime


def _check_backend(runtime: str) -> None:
    loaded = sys.modules.get("keras")
    if loaded is not None and (received := loaded.backend.backend()) != runtime:
        raise ConfigError(
            f"accelerator.runtime: expected {received}, which Keras already runs on in this "
            f"process, received {runtime}; start the step in a process of its own"
        )


def _missing(kind: str, looked_for: str) -> ConfigError:
    return ConfigError(
        f"accelerator.kind: received {kind}, and there is none here: looked for {looked_for}"
    )


def _open_jax(config: AcceleratorConfig, kind: str, link: Link | None) -> tuple[str, int, Any]:
    """Devices for Keras's JAX backend: a batch lies over all of them, and one step runs on all."""
    import jax
    import tensorflow as tf

    # TensorFlow reads the examples, and would take the memory of GPUs for that.
    if tf.config.list_physical_devices("GPU"):
        tf.config.set_visible_devices([], "GPU")
    if kind == TPU and not count_tpu_chips():
        raise _missing(TPU, f"TPU chips on the PCI bus ({_PCI})")
    if kind == CPU:
        jax.config.update("jax_platforms", CPU)
    # Of no account where JAX finds another device.
    if kind in {AUTO, CPU} and config.replicas:
        _before_first_use(jax.config.update, "jax_num_cpu_devices", config.replicas)
    if link is not None:
        _join_jax(link)
    found = str(jax.default_backend())
    if kind not in {AUTO, found}:
        raise _missing(kind, f"it with JAX {jax.__version__}, which sees devices of {found} only")
    here = jax.local_device_count()
    local = _check_replicas(config.replicas, here, found, whole=found == TPU or link is not None)
    replicas = local if link is None else jax.device_count()
    if replicas == 1:
        return found, 1, None
    import keras

    devices = keras.distribution.list_devices(found)[:replicas]
    # Each host brings its own examples.
    strategy = keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)
    return found, replicas, strategy


def _join_jax(link: Link) -> None:
    """Makes one set of devices of those of all hosts."""
    import jax

    address = f"{link.addresses()[0]}:{_free_port()}" if link.hosts.is_first else ""
    jax.distributed.initialize(link.from_first(address), link.hosts.count, link.hosts.index)


def _open_tensorflow(
    config: AcceleratorConfig, kind: str, link: Link | None
) -> tuple[str, int, Any]:
    """Devices for Keras's TensorFlow backend: each replica runs the step on its part of a batch."""
    if kind == TPU:
        return _open_tensorflow_tpu(config, link)
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if kind == GPU and not gpus:
        raise _missing(GPU, f"CUDA devices with TensorFlow {tf.__version__}")
    if kind == CPU and gpus:
        _before_first_use(tf.config.set_visible_devices, [], "GPU")
    if kind != CPU and gpus:
        found, count = GPU, _check_replicas(config.replicas, len(gpus), GPU, whole=False)
        if count < len(gpus):
            _before_first_use(tf.config.set_visible_devices, gpus[:count], "GPU")
    else:
        found, count = CPU, config.replicas or 1
    if link is not None:
        return _join_tensorflow(link, found, count)
    if found == CPU and count > 1:
        _divide_cpu(count)
    if count == 1:
        return found, 1, None
    names = [f"{found.upper()}:{index}" for index in range(count)]
    return found, count, tf.distribute.MirroredStrategy(names)


def _share_cores(parts: int) -> None:
    """Gives each part of a step, which does not wait for the others, a core of its own.

    Where there are fewer parts than cores, every operation is divided among all of them, as where
    there are no parts.
    """
    cores = count_cores()
    if parts < max(cores, 2):
        return
    import tensorflow as tf

    _before_first_use(tf.config.threading.set_intra_op_parallelism_threads, 1)
    _before_first_use(tf.config.threading.set_inter_op_parallelism_threads, cores)


def _divide_cpu(count: int) -> None:
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    if len(tf.config.get_logical_device_configuration(cpu) or ()) != count:
        parts = [tf.config.LogicalDeviceConfiguration()] * count
        _before_first_use(tf.config.set_logical_device_configuration, cpu, parts)


def _join_tensorflow(link: Link, found: str, count: int) -> tuple[str, int, Any]:
    """Makes one strategy of the devices of all hosts."""
    import tensorflow as tf

    if found == CPU and count > 1:
        raise ConfigError(
            "accelerator.replicas: expected at most 1 on the CPU of each of several hosts with "
            f"runtime tensorflow, received {count}; runtime jax takes more"
        )
    # Every host is reached where host 0 sees it.
    ports = link.gather(_free_port())
    names = link.from_first(link.addresses() if link.hosts.is_first else None)
    workers = [f"{name}:{port}" for name, port in zip(names, ports, strict=True)]
    task = {"type": "worker", "index": link.hosts.index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
    communication = tf.distribute.experimental.CommunicationOptions(
        implementation=tf.distribute.experimental.CommunicationImplementation.AUTO
    )
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=communication)
    return found, strategy.num_replicas_in_sync, strategy


def _open_tensorflow_tpu(config: AcceleratorConfig, link: Link | None) -> tuple[str, int, Any]:
    if link is not None:
        raise ConfigError(
            "accelerator.runtime: expected jax for TPUs of several hosts, received tensorflow, "
            "which has one process for all of them"
        )
    import tensorflow as tf

    name = os.environ.get("TPU_NAME", "local")
    looked_for = f"the TPU {name} with TensorFlow {tf.__version__}"
    if name == "local" and not count_tpu_chips():
        raise _missing(TPU, f"TPU chips on the PCI bus ({_PCI})")
    try:
        # The resolver by itself finds a TPU where there is none.
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(tpu=name)
        strategy = tf.distribute.TPUStrategy(resolver)
    except (ValueError, tf.errors.NotFoundError, tf.errors.InternalError) as error:
        raise _missing(TPU, f"{looked_for} ({' '.join(str(error).split())[:200]})") from error
    count = strategy.num_replicas_in_sync
    _check_replicas(config.replicas, count, TPU, whole=True)
    return TPU, count, strategy


def _check_replicas(asked: int, here: int, kind: str, *, whole: bool) -> int:
    """How many devices of this host to take; where they go together only, all of them."""
    if asked > here or (whole and asked not in {0, here}):
        raise ConfigError(
            f"accelerator.replicas: expected {'' if whole else 'at most '}{here}, the {kind} "
            f"devices of this host, received {asked}"
        )
    return asked or here


def _before_first_use(function: Any, *arguments: Any) -> None:
    """Sets what a runtime takes before it has used its devices, and not after."""
    try:
        function(*arguments)
    except RuntimeError as error:
        raise ConfigError(
            "accelerator: the devices of this process have been used, and cannot be divided or "
            f"hidden any more; start the step in a process of its own ({error})"
        ) from error


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("", 0))
        port: int = one.getsockname()[1]
        return port
