"""The target file of Kubeflow Pipelines on GKE: all that differs between a cluster and the next."""

import dataclasses
import re
from urllib.parse import urlsplit

from components.common.config import Range, check, choose
from components.common.errors import ConfigError
from components.common.vertex import SCHEME
from components.deploy_model.config import ServingConfig, check_model_name
from components.train_model.jobset import AUTO, LAUNCHERS
from pipelines.targets.target_files import BUCKET, PLAIN_TASKS
from pipelines.targets.tpus import TpuMachine, check_slice

AUTHS = ("none", "token", "adc")
TOKEN_VARIABLE = "FLOWERS_KUBEFLOW_TOKEN"  # noqa: S105
# GPUs as the node label cloud.google.com/gke-accelerator has them.
# Source: cloud.google.com/kubernetes-engine/docs/how-to/gpus.
GPUS = (
    "nvidia-tesla-t4",
    "nvidia-tesla-v100",
    "nvidia-l4",
    "nvidia-tesla-a100",
    "nvidia-a100-80gb",
    "nvidia-h100-80gb",
)
# Source: kubernetes.io/docs/concepts/overview/working-with-objects/names (RFC 1123).
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_CPU = re.compile(r"[1-9]\d*m?|0?\.\d+|[1-9]\d*\.\d+")
_MEMORY = re.compile(r"[1-9]\d*(\.\d+)?([KMGT]i?)?")
_ROOT = re.compile(r"(s3|minio)://[^/]+(/.*)?")


def _check_name(key: str, value: str) -> None:
    if value and not _NAME.fullmatch(value):
        raise ConfigError(
            f"{key}: expected a Kubernetes name of lower-case letters, digits and -, received "
            f"{value!r}"
        )


@dataclasses.dataclass(frozen=True)
class PodConfig:
    """What the pod of a step asks for.

    Attributes:
        cpu: Cores, e.g. `4` or `500m`, requested and given at most; empty: what the namespace says.
        memory: E.g. `16G` or `16Gi`; likewise.
        retries: How often the step is tried again when it fails.
        timeout_hours: When the pod is ended; 0 for never.
    """

    cpu: str = ""
    memory: str = ""
    retries: int = 0
    timeout_hours: float = 0.0

    def __post_init__(self) -> None:
        for key, pattern, example in (("cpu", _CPU, "4 or 500m"), ("memory", _MEMORY, "16Gi")):
            value = getattr(self, key)
            if value and not pattern.fullmatch(value):
                raise ConfigError(
                    f"{key}: expected an amount such as {example}, received {value!r}"
                )
        check("retries", self.retries, Range(0, 10))
        check("timeout_hours", self.timeout_hours, Range(0, 168))


@dataclasses.dataclass(frozen=True)
class TrainPodConfig(PodConfig):
    """Training: the pod, and the accelerator of its node.

    Attributes:
        machine_type: Machine of the TPU nodes, e.g. `ct5lp-hightpu-4t`; goes with TPUs.
        accelerator: `TPU`, or a GPU such as `nvidia-tesla-t4`; empty for none.
        accelerator_count: GPUs, or TPU chips of the host; 0 for one GPU, or for all chips.
        tpu_topology: Topology of the slice, e.g. `2x2`.
        spot: Whether the node may be taken away, at a lower price.
        checkpoint_steps: Steps between two checkpoints of training within an epoch; 0 for none.
        launcher: What makes the pods of several hosts: `jobset`, `trainjob`, or `auto` for a
            TrainJob where Kubeflow Trainer is installed and a JobSet elsewhere.
    """

    machine_type: str = ""
    accelerator: str = ""
    accelerator_count: int = 0
    tpu_topology: str = ""
    spot: bool = False
    checkpoint_steps: int = 0
    launcher: str = AUTO

    def __post_init__(self) -> None:
        super().__post_init__()
        check("checkpoint_steps", self.checkpoint_steps, Range(0))
        choose("launcher", self.launcher, LAUNCHERS)
        check("accelerator_count", self.accelerator_count, Range(0, 16))
        if self.accelerator == "TPU":
            check_slice(self.machine_type, self.tpu_topology, self.accelerator_count)
            return
        for key in ("machine_type", "tpu_topology"):
            if getattr(self, key):
                raise ConfigError(
                    f"{key}: goes with accelerator: TPU, received {getattr(self, key)!r}"
                )
        if self.accelerator:
            choose("accelerator", self.accelerator, ("TPU", *GPUS))
        elif self.accelerator_count:
            raise ConfigError("accelerator_count: goes with an accelerator")

    @property
    def tpu(self) -> TpuMachine | None:
        """The host of the TPUs; None without TPUs."""
        if self.accelerator != "TPU":
            return None
        return check_slice(self.machine_type, self.tpu_topology, self.accelerator_count)

    @property
    def hosts(self) -> int:
        """Hosts that train together; those of a slice of several are pods that the task makes."""
        return self.tpu.hosts(self.tpu_topology) if self.tpu else 1


@dataclasses.dataclass(frozen=True)
class KubeflowTarget:
    """Where and how runs on Kubeflow Pipelines run.

    Attributes:
        host: Address of Kubeflow Pipelines, e.g. `http://127.0.0.1:8080` behind
            `kubectl port-forward`, or `https://...`.
        namespace: Namespace of the runs in a multi-user installation; empty for a single-user one.
        auth: What the client shows: `none`; `token`, which stands in `FLOWERS_KUBEFLOW_TOKEN`; or
            `adc`, Google's application default credentials.
        experiment: Experiment that runs belong to; it is made where it is absent.
        pipeline_root: `gs://`, `s3://` or `minio://` folder for the outputs of the steps; empty for
            that of the installation.
        service_account: Kubernetes service account the steps run as; empty for the installation's.
        image_pull_secrets: Secrets to pull images with.
        user: User and group id of the steps; that of the images, which is not root.
        kueue: Whether Kueue hands out the accelerators of this cluster; then a queue must be
            named.
        queue: Local queue of Kueue that the training pod waits in.
        caching: Whether a step whose inputs did not change is skipped. Ingestion and deployment
            look at the world and never are.
        registry: `vertex://PROJECT/REGION` to register and deploy a model that passed; empty for
            nowhere.
        model_name: Name of the model and of its endpoint.
        tasks: Pods of plain tasks, by the name of the task.
        train: The pod that trains.
        serving: What serves the model.
    """

    host: str
    namespace: str = ""
    auth: str = "none"
    experiment: str = "flowers"
    pipeline_root: str = ""
    service_account: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    user: int = 10001
    kueue: bool = False
    queue: str = ""
    caching: bool = True
    registry: str = ""
    model_name: str = "flowers"
    tasks: dict[str, PodConfig] = dataclasses.field(default_factory=dict)
    train: TrainPodConfig = dataclasses.field(default_factory=TrainPodConfig)
    serving: ServingConfig = dataclasses.field(default_factory=ServingConfig)

    def __post_init__(self) -> None:
        self._check_host()
        choose("auth", self.auth, AUTHS)
        check_model_name(self.model_name)
        root = self.pipeline_root
        if root and not (BUCKET.fullmatch(root) or _ROOT.fullmatch(root)):
            raise ConfigError(f"pipeline_root: expected gs://BUCKET/FOLDER, received {root!r}")
        if self.train.hosts > 1 and not root.startswith("gs://"):
            raise ConfigError(
                f"pipeline_root: the {self.train.hosts} hosts of {self.train.tpu_topology} share "
                f"gs:// folders, received {root!r}; give gs://BUCKET/FOLDER, or a slice of one host"
            )
        if self.train.checkpoint_steps and not root.startswith("gs://"):
            raise ConfigError(
                "train.checkpoint_steps: goes with a pipeline_root in gs://, which alone keeps "
                f"checkpoints, received {self.train.checkpoint_steps} with {root!r}"
            )
        for key in ("namespace", "service_account", "queue"):
            _check_name(key, getattr(self, key))
        for secret in self.image_pull_secrets:
            _check_name("image_pull_secrets", secret)
        # Pod security refuses root.
        check("user", self.user, Range(1, 2**31 - 1))
        if self.kueue and not self.queue:
            raise ConfigError(
                "queue: missing, and kueue: true needs one; `kubectl get localqueues` lists them"
            )
        if self.registry and not self.registry.startswith(SCHEME):
            raise ConfigError(
                f"registry: expected {SCHEME}PROJECT/REGION, received {self.registry!r}"
            )
        if not self.experiment:
            raise ConfigError("experiment: expected a name, received ''")
        for task in self.tasks:
            choose("tasks", task, PLAIN_TASKS)

    def _check_host(self) -> None:
        parts = urlsplit(self.host)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(
                f"host: expected an address such as http://127.0.0.1:8080, received {self.host!r}"
            )
        if self.auth != "none" and parts.scheme == "http" and not _is_here(parts.hostname):
            raise ConfigError(
                f"host: a credential goes over https only, received {self.host!r} with auth: "
                f"{self.auth}"
            )

    def pod(self, task: str) -> PodConfig:
        """What the pod of a task asks for."""
        return self.tasks.get(task, PodConfig())


def _is_here(host: str) -> bool:
    return host in {"127.0.0.1", "localhost", "::1"}
