"""The JobSet that trains one model on several hosts: one pod for each host of a slice of TPUs.

Fields: api/jobset/v1alpha2/jobset_types.go of github.com/kubernetes-sigs/jobset; of its template,
the Job of batch/v1. Names of pods in DNS: jobset.sigs.k8s.io/docs/concepts ("JobSet network"). GKE
tells the pods of an indexed Job with a headless service their place in the slice by itself
(cloud.google.com/kubernetes-engine/docs/concepts/tpus).
"""

import dataclasses
import json
from typing import Any

from components.common.config import Range, check, choose
from components.train_model.hosts import COORDINATOR, COUNT, INDEX


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of things that the API server keeps.

    Attributes:
        group: Group of its API.
        version: Version of that.
        plural: What it is called in addresses.
        name: What it is called in a manifest.
        done: Condition of one that ended well.
    """

    group: str
    version: str
    plural: str
    name: str
    done: str = ""

    @property
    def api_version(self) -> str:
        """As a manifest has it."""
        return f"{self.group}/{self.version}"


JOBSET = Kind("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet", done="Completed")
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
# What makes the pods of several hosts; `auto` is a TrainJob where Kubeflow Trainer is installed.
AUTO, BY_JOBSET, BY_TRAINJOB = "auto", "jobset", "trainjob"
LAUNCHERS = (AUTO, BY_JOBSET, BY_TRAINJOB)
NAME_LABEL = "jobset.sigs.k8s.io/jobset-name"
INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
JOB = "hosts"
# What a target sets for the pod that makes a JobSet, so that Kubernetes deletes both together.
POD_NAME, POD_UID = "FLOWERS_POD_NAME", "FLOWERS_POD_UID"
# Where JAX's own coordination service listens unless it is told otherwise.
_PORT = 8476
_EXCLUSIVE = "alpha.jobset.sigs.k8s.io/exclusive-topology"
_NODE_POOL = "cloud.google.com/gke-nodepool"
_SCRATCH = "/tmp"  # noqa: S108
# As long as a spot node is given before it is taken away; training saves its checkpoint meanwhile.
# Source: cloud.google.com/kubernetes-engine/docs/concepts/spot-vms.
_GRACE_SECONDS = 25
# When the cluster forgets a JobSet that nobody deleted.
_KEEP_SECONDS = 24 * 3600


@dataclasses.dataclass(frozen=True, kw_only=True)
class PodsConfig:
    """The pods that train together; what a target file says of them.

    Attributes:
        image: Image of every pod.
        hosts: Number of pods.
        chips: TPU chips of each.
        node_selector: Labels of their nodes.
        tolerations: Taints that they bear, as Kubernetes has them.
        cpu: Cores of each, e.g. `24`; empty: what the namespace says.
        memory: Of each, e.g. `40Gi`; likewise.
        user: User and group id.
        service_account: Kubernetes service account; empty for the namespace's.
        image_pull_secrets: Secrets to pull the image with.
        launcher: `jobset`, `trainjob`, or `auto` for a TrainJob where there are any.
        queue: Local queue of Kueue; empty for none.
        restarts: How often all pods start anew, from the last checkpoint, when one is lost.
        timeout_hours: When they are ended; 0 for never.
        labels: Labels of JobSet and pods.
    """

    image: str
    hosts: int
    chips: int
    node_selector: dict[str, str] = dataclasses.field(default_factory=dict)
    tolerations: tuple[dict[str, str], ...] = ()
    cpu: str = ""
    memory: str = ""
    user: int = 10001
    service_account: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    launcher: str = AUTO
    queue: str = ""
    restarts: int = 0
    timeout_hours: float = 0.0
    labels: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check("hosts", self.hosts, Range(2, 1024))
        check("chips", self.chips, Range(1, 16))
        check("user", self.user, Range(1, 2**31 - 1))
        choose("launcher", self.launcher, LAUNCHERS)


def make_jobset(
    config: PodsConfig,
    name: str,
    namespace: str,
    command: list[str],
    owner: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The JobSet, as plain data for the API.

    Args:
        config: Its pods.
        name: Name that no other has.
        namespace: Where it is made.
        command: What every pod runs.
        owner: Reference to the pod that makes it; with that pod, Kubernetes deletes it too.
    """
    labels = config.labels | ({QUEUE_LABEL: config.queue} if config.queue else {})
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "labels": labels,
        # One slice is one node pool, and takes all pods of one Job.
        "annotations": {_EXCLUSIVE: _NODE_POOL},
    }
    if owner:
        metadata["ownerReferences"] = [owner]
    job: dict[str, Any] = {
        "completionMode": "Indexed",
        "completions": config.hosts,
        "parallelism": config.hosts,
        # A pod alone cannot come back: the others wait for the one they started with.
        "backoffLimit": 0,
        "template": {
            "metadata": {"labels": config.labels},
            "spec": _pod(config, name, command),
        },
    }
    if config.timeout_hours:
        job["activeDeadlineSeconds"] = round(config.timeout_hours * 3600)
    return {
        "apiVersion": JOBSET.api_version,
        "kind": JOBSET.name,
        "metadata": metadata,
        "spec": {
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": {"maxRestarts": config.restarts},
            "ttlSecondsAfterFinished": _KEEP_SECONDS,
            "replicatedJobs": [{"name": JOB, "replicas": 1, "template": {"spec": job}}],
        },
    }


def _pod(config: PodsConfig, name: str, command: list[str]) -> dict[str, Any]:
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": config.user,
            "runAsGroup": config.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": config.node_selector,
        "tolerations": list(config.tolerations),
        "containers": [_container(config, name, command)],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    }
    if config.service_account:
        pod["serviceAccountName"] = config.service_account
    if config.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": one} for one in config.image_pull_secrets]
    return pod


def _container(config: PodsConfig, name: str, command: list[str]) -> dict[str, Any]:
    amounts = {key: value for key in ("cpu", "memory") if (value := getattr(config, key))}
    chips = {"google.com/tpu": str(config.chips)}
    index = f"metadata.annotations['{INDEX_ANNOTATION}']"
    return {
        "name": "main",
        "image": config.image,
        "command": command,
        "env": [
            {"name": COUNT, "value": str(config.hosts)},
            {"name": INDEX, "valueFrom": {"fieldRef": {"fieldPath": index}}},
            {"name": COORDINATOR, "value": f"{name}-{JOB}-0-0.{name}:{_PORT}"},
        ],
        "ports": [{"containerPort": _PORT}],
        "resources": {"requests": amounts | chips, "limits": amounts | chips},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "scratch", "mountPath": _SCRATCH}],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def pod_command(
    *,
    examples: str,
    augmented: str,
    output: str,
    model_config: dict[str, Any],
    train_config: dict[str, Any],
    accelerator: dict[str, Any],
    checkpoint: str,
    checkpoint_steps: int,
) -> list[str]:
    """What every pod runs; places are `gs://` URIs."""
    return [
        *("python", "-m", "components.train_model.pod"),
        *("--examples", examples, "--augmented", augmented, "--output", output),
        *("--checkpoint", checkpoint, "--checkpoint-steps", str(checkpoint_steps)),
        *("--model-config", json.dumps(model_config, sort_keys=True)),
        *("--train-config", json.dumps(train_config, sort_keys=True)),
        *("--accelerator", json.dumps(accelerator, sort_keys=True)),
    ]
