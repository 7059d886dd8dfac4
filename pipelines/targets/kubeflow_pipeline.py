"""The graph as Kubeflow Pipelines runs it on GKE: its pods, their nodes, and images by digest."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import yaml

from components.common.errors import ConfigError
from components.common.extras import how_to_install
from components.images import GPU, TPU
from components.train_model.jobset import POD_NAME, POD_UID, PodsConfig
from pipelines.image_lock import ImageLock, pin_images
from pipelines.targets import tpus
from pipelines.targets.kubeflow_config import KubeflowTarget, PodConfig, TrainPodConfig
from pipelines.targets.target_files import BACKOFF, HOSTS_TASK, TRAIN_TASK, accelerator_of

# Source: kueue.sigs.k8s.io/docs/tasks/run/plain_pods.
_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
# Source: cloud.google.com/kubernetes-engine/docs/concepts/spot-vms.
_SPOT_LABEL = "cloud.google.com/gke-spot"
_GPU_LABEL = "cloud.google.com/gke-accelerator"
_GPU_RESOURCE = "nvidia.com/gpu"
# By what an admission policy knows the pods of the steps; see docs/gke-tpu.md.
_PART_OF = "app.kubernetes.io/part-of"
# All that a step writes outside its outputs is here, so that the root may be read-only.
_SCRATCH = "/tmp"  # noqa: S108
# The pod that makes the pods of several hosts.
_MAKER = PodConfig(cpu="500m", memory="1Gi")


def compile_kubeflow(
    parameters: dict[str, Any], target: KubeflowTarget, lock: ImageLock | None = None
) -> list[dict[str, Any]]:
    """Compiles the pipeline for Kubeflow Pipelines.

    Args:
        parameters: Defaults of the pipeline's parameters.
        target: Pods and accounts.
        lock: Images to take by digest; without it they are taken by name.

    Returns:
        The pipeline specification and the platform specification, as plain data: the two documents
        of a package.

    Raises:
        ConfigError: kfp-kubernetes is not installed, or the lock has not all images.
    """
    from pipelines.targets.compiled import compile_to_text

    parameters = parameters | {"accelerator": accelerator_of(target.train.accelerator)}
    documents = list(yaml.safe_load_all(compile_to_text(_pipeline(target), parameters)))
    return [pin_images(one, lock) for one in documents] if lock else documents


def to_text(documents: list[dict[str, Any]]) -> str:
    """A package as YAML."""
    text: str = yaml.safe_dump_all(documents)
    return text


def _pipeline(target: KubeflowTarget) -> Any:
    from kfp import dsl

    from pipelines.flowers import DESCRIPTION, NAME, graph_with

    body = graph_with(_training(target), dsl.PIPELINE_JOB_NAME_PLACEHOLDER)
    return dsl.pipeline(name=NAME, description=DESCRIPTION)(_with_pods(body, target))


def _training(target: KubeflowTarget) -> Any:
    """What trains: a pod, or a task that makes the pods of several hosts."""
    from components.train_model.component import train_model, train_model_on_hosts

    if target.train.hosts == 1:
        return train_model
    return functools.partial(train_model_on_hosts, pods=_pods_of_hosts(target))


def _pods_of_hosts(target: KubeflowTarget) -> dict[str, Any]:
    """The pods that train together, as the task is given them."""
    train = target.train
    assert train.tpu
    tolerations = [{"key": tpus.RESOURCE, "operator": "Exists", "effect": "NoSchedule"}]
    selector = {
        tpus.ACCELERATOR_LABEL: train.tpu.accelerator,
        tpus.TOPOLOGY_LABEL: train.tpu_topology,
    }
    if train.spot:
        selector[_SPOT_LABEL] = "true"
        tolerations.append(
            {"key": _SPOT_LABEL, "operator": "Equal", "value": "true", "effect": "NoSchedule"}
        )
    pods = PodsConfig(
        image=TPU,
        hosts=train.hosts,
        chips=train.tpu.chips,
        node_selector=selector,
        tolerations=tuple(tolerations),
        cpu=train.cpu,
        memory=train.memory,
        user=target.user,
        service_account=target.service_account,
        image_pull_secrets=target.image_pull_secrets,
        launcher=train.launcher,
        queue=target.queue,
        restarts=train.retries,
        timeout_hours=train.timeout_hours,
        labels={_PART_OF: "flowers"},
    )
    content = dataclasses.asdict(pods)
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in content.items()
    }


def _with_pods(body: Callable[..., None], target: KubeflowTarget) -> Callable[..., None]:
    """A graph whose tasks run in the pods of a target; the parameters are the same."""

    @functools.wraps(body)
    def graph(*arguments: Any) -> None:
        from kfp.dsl.pipeline_context import Pipeline

        body(*arguments)
        for name, task in Pipeline.get_default_pipeline().tasks.items():
            _set_identity(task, target)
            if name == HOSTS_TASK:
                _set_maker_of_pods(task)
            else:
                _set_pod(task, target.train if name == TRAIN_TASK else target.pod(name))
            if name == TRAIN_TASK:
                _set_node(task, target.train, target.queue)
            if not target.caching:
                task.set_caching_options(False)

    return graph


def _set_identity(task: Any, target: KubeflowTarget) -> None:
    """Who the container is. That it gains no privilege is set by Kubeflow Pipelines itself."""
    kubernetes = _kubernetes()
    kubernetes.add_pod_label(task, _PART_OF, "flowers")
    kubernetes.set_security_context(
        task, run_as_user=target.user, run_as_group=target.user, run_as_non_root=True
    )
    kubernetes.empty_dir_mount(task, volume_name="scratch", mount_path=_SCRATCH)
    if target.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(target.image_pull_secrets))


def _set_pod(task: Any, pod: PodConfig) -> None:
    if pod.cpu:
        task.set_cpu_request(pod.cpu).set_cpu_limit(pod.cpu)
    if pod.memory:
        task.set_memory_request(pod.memory).set_memory_limit(pod.memory)
    if pod.retries:
        task.set_retry(pod.retries, **BACKOFF)
    if pod.timeout_hours:
        _kubernetes().set_timeout(task, round(pod.timeout_hours * 3600))


def _set_maker_of_pods(task: Any) -> None:
    """The pod that makes those of the hosts: it computes nothing, and ends after its pods.

    It is not tried again: its pods are, `retries` times all together.
    """
    kubernetes = _kubernetes()
    _set_pod(task, _MAKER)
    task.set_container_image(TPU)
    for variable, path in ((POD_NAME, "metadata.name"), (POD_UID, "metadata.uid")):
        kubernetes.use_field_path_as_env(task, variable, path)


def _set_node(task: Any, train: TrainPodConfig, queue: str) -> None:
    kubernetes = _kubernetes()
    if queue:
        kubernetes.add_pod_label(task, _QUEUE_LABEL, queue)
    if train.spot:
        kubernetes.add_node_selector(task, _SPOT_LABEL, "true")
        kubernetes.add_toleration(
            task, key=_SPOT_LABEL, operator="Equal", value="true", effect="NoSchedule"
        )
    if train.tpu:
        # The request is the limit: Kubernetes sets it so for what a node has a number of.
        task.set_accelerator_type(tpus.RESOURCE).set_accelerator_limit(train.tpu.chips)
        kubernetes.add_node_selector(task, tpus.ACCELERATOR_LABEL, train.tpu.accelerator)
        kubernetes.add_node_selector(task, tpus.TOPOLOGY_LABEL, train.tpu_topology)
        _tolerate(task, tpus.RESOURCE)
        task.set_container_image(TPU)
    elif train.accelerator:
        task.set_accelerator_type(_GPU_RESOURCE)
        task.set_accelerator_limit(train.accelerator_count or 1)
        kubernetes.add_node_selector(task, _GPU_LABEL, train.accelerator)
        _tolerate(task, _GPU_RESOURCE)
        task.set_container_image(GPU)


def _tolerate(task: Any, resource: str) -> None:
    _kubernetes().add_toleration(task, key=resource, operator="Exists", effect="NoSchedule")


def _kubernetes() -> Any:
    try:
        from kfp import kubernetes
    except ImportError as error:
        raise ConfigError(
            f"kfp-kubernetes is not installed: {how_to_install('kubeflow')}"
        ) from error
    return kubernetes
