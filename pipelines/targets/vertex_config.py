"""The target file of Vertex AI: all that differs between a project and the next."""

import dataclasses
import re

from components.common.config import Range, check, choose
from components.common.errors import ConfigError
from components.common.vertex import SCHEME, check_project, check_region
from components.deploy_model.config import ServingConfig, check_model_name
from pipelines.targets.machines import check_accelerator, cpu_and_memory
from pipelines.targets.target_files import BUCKET, PLAIN_TASKS

_ACCOUNT = re.compile(r"[a-z0-9-]+@[a-z0-9.-]+\.gserviceaccount\.com")
_KEY = re.compile(r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+")
_NETWORK = re.compile(r"projects/\d+/global/networks/[a-z0-9-]+")
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}=[a-z0-9_-]{0,63}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """A plain task.

    Attributes:
        machine_type: Sets CPU and memory, e.g. `e2-standard-8`; empty: Vertex AI's smallest.
        retries: How often it is tried again when it fails.
    """

    machine_type: str = ""
    retries: int = 0

    def __post_init__(self) -> None:
        if self.machine_type:
            cpu_and_memory(self.machine_type)
        check("retries", self.retries, Range(0, 10))


@dataclasses.dataclass(frozen=True)
class TrainTargetConfig:
    """Training: a plain task on a CPU, a CustomJob with an accelerator.

    Attributes:
        machine_type: E.g. `e2-standard-8`, `n1-standard-8` with a T4, `ct5lp-hightpu-4t`.
        accelerator: A GPU such as `NVIDIA_TESLA_T4`, or `TPU`; empty for none.
        accelerator_count: Number of GPUs.
        tpu_topology: Topology of the TPUs of one host, e.g. `2x2`.
        spot: Whether the machine may be taken away, at a lower price; goes with an accelerator.
        disk_gb: Size of the boot disk; goes with an accelerator.
        disk_type: `pd-ssd` or `pd-standard`.
        timeout_hours: When the CustomJob is ended; goes with an accelerator.
        retries: How often it is tried again when it fails.
        checkpoint_steps: Steps between two checkpoints of training within an epoch; 0 for none.
    """

    machine_type: str = "e2-standard-8"
    accelerator: str = ""
    accelerator_count: int = 1
    tpu_topology: str = ""
    spot: bool = False
    disk_gb: int = 100
    disk_type: str = "pd-ssd"
    timeout_hours: float = 24.0
    retries: int = 0
    checkpoint_steps: int = 0

    def __post_init__(self) -> None:
        check_accelerator(
            self.machine_type, self.accelerator, self.accelerator_count, self.tpu_topology
        )
        check("disk_gb", self.disk_gb, Range(100, 64000))
        choose("disk_type", self.disk_type, ("pd-ssd", "pd-standard"))
        check("timeout_hours", self.timeout_hours, Range(0.1, 168))
        check("retries", self.retries, Range(0, 10))
        check("checkpoint_steps", self.checkpoint_steps, Range(0))
        if self.spot and not self.accelerator:
            raise ConfigError(
                "spot: goes with an accelerator, since a plain task cannot ask for it"
            )


@dataclasses.dataclass(frozen=True)
class VertexTarget:
    """Where and how runs on Vertex AI run.

    Attributes:
        project: Id of the Google Cloud project.
        region: E.g. `europe-west4`.
        pipeline_root: `gs://` folder for the outputs of the steps.
        service_account: Account the steps run as; empty: the project's default for Compute Engine.
        network: `projects/NUMBER/global/networks/NAME` to peer with; empty for none.
        encryption_key: Cloud KMS key of the run, the model and the endpoint; empty: Google's own.
        labels: Labels of every run.
        experiment: Vertex AI experiment that runs belong to; empty for none.
        caching: Whether a step whose inputs did not change is skipped. Ingestion and deployment
            look at the world and never are.
        notify: Addresses that get an e-mail when a run ends.
        deploy: Whether a model that passed the gate is registered and deployed.
        model_name: Name of the model and of its endpoint.
        tasks: Machines and retries of plain tasks, by the name of the task.
        train: The machine that trains.
        serving: What serves the model.
    """

    project: str
    region: str
    pipeline_root: str
    service_account: str = ""
    network: str = ""
    encryption_key: str = ""
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    experiment: str = ""
    caching: bool = True
    notify: tuple[str, ...] = ()
    deploy: bool = True
    model_name: str = "flowers"
    tasks: dict[str, TaskConfig] = dataclasses.field(default_factory=dict)
    train: TrainTargetConfig = dataclasses.field(default_factory=TrainTargetConfig)
    serving: ServingConfig = dataclasses.field(default_factory=ServingConfig)

    def __post_init__(self) -> None:
        check_project(self.project)
        check_region(self.region)
        check_model_name(self.model_name)
        for name, pattern, example in (
            ("pipeline_root", BUCKET, "gs://BUCKET/FOLDER"),
            ("service_account", _ACCOUNT, "NAME@PROJECT.iam.gserviceaccount.com"),
            ("network", _NETWORK, "projects/NUMBER/global/networks/NAME"),
            ("encryption_key", _KEY, "projects/P/locations/R/keyRings/K/cryptoKeys/C"),
        ):
            value = getattr(self, name)
            if (value or name == "pipeline_root") and not pattern.fullmatch(value):
                raise ConfigError(f"{name}: expected {example}, received {value!r}")
        for key, value in self.labels.items():
            if not _LABEL.fullmatch(f"{key}={value}"):
                raise ConfigError(
                    f"labels.{key}: expected lower-case letters, digits, - and _, received "
                    f"{value!r}"
                )
        for address in self.notify:
            if not _EMAIL.fullmatch(address):
                raise ConfigError(f"notify: expected an e-mail address, received {address!r}")
        for task in self.tasks:
            choose("tasks", task, PLAIN_TASKS)

    @property
    def registry(self) -> str:
        """Where `deploy_model` puts models; empty for nowhere."""
        return f"{SCHEME}{self.project}/{self.region}" if self.deploy else ""
