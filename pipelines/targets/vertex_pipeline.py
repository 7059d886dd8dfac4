"""The graph as Vertex AI runs it: with its machines, its exit task, and images by digest."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import yaml

from components.common.config import to_json
from components.images import GPU, TPU
from pipelines.image_lock import ImageLock, pin_images
from pipelines.targets.machines import cpu_and_memory
from pipelines.targets.target_files import BACKOFF, TRAIN_TASK, accelerator_of
from pipelines.targets.vertex_config import TrainTargetConfig, VertexTarget


def compile_vertex(
    parameters: dict[str, Any], target: VertexTarget, lock: ImageLock | None = None
) -> dict[str, Any]:
    """Compiles the pipeline for Vertex AI.

    Args:
        parameters: Defaults of the pipeline's parameters.
        target: Machines and accounts.
        lock: Images to take by digest; without it they are taken by name.

    Returns:
        The pipeline specification, as plain data.

    Raises:
        ConfigError: The lock has not all images.
    """
    from pipelines.targets.compiled import compile_to_text

    parameters = parameters | {"accelerator": accelerator_of(target.train.accelerator)}
    spec: dict[str, Any] = yaml.safe_load(compile_to_text(_pipeline(target), parameters))
    _set_machines(spec, target)
    if not target.caching:
        _forbid_caching(spec)
    return pin_images(spec, lock) if lock else spec


def _pipeline(target: VertexTarget) -> Any:
    from kfp import dsl

    from components.summarize_run.component import summarize_run
    from components.train_model.component import train_model
    from pipelines.flowers import DESCRIPTION, NAME, graph_with

    train = _as_custom_job(train_model, target) if target.train.accelerator else train_model
    body = graph_with(train, dsl.PIPELINE_JOB_NAME_PLACEHOLDER)
    graph = _with_exit_task(body, summarize_run)
    if not target.notify:
        return dsl.pipeline(name=NAME, description=DESCRIPTION)(graph)
    # KFP has one exit task for a graph, so the e-mail is that of a graph around it.
    from google_cloud_pipeline_components.v1.vertex_notification_email import (
        VertexNotificationEmailOp,
    )

    inner = dsl.pipeline(name=f"{NAME}-run", description=DESCRIPTION)(graph)
    signature = inspect.signature(body)

    def call(*arguments: Any) -> None:
        inner(**signature.bind(*arguments).arguments)

    functools.update_wrapper(call, body)
    notify = functools.partial(VertexNotificationEmailOp, recipients=list(target.notify))
    return dsl.pipeline(name=NAME, description=DESCRIPTION)(_with_exit_task(call, notify))


def _with_exit_task(body: Callable[..., None], exit_task: Callable[[], Any]) -> Callable[..., None]:
    """A graph that runs `exit_task` at its end, whatever happens; the parameters are the same."""

    @functools.wraps(body)
    def graph(*arguments: Any) -> None:
        from kfp import dsl

        ending = exit_task()
        with dsl.ExitHandler(ending, name="run"):
            body(*arguments)

    return graph


# What Google's wrapper calls the task that was the training.
_TRAIN_JOB = "custom-training-job"


def _as_custom_job(component: Any, target: VertexTarget) -> Any:
    """Training as a CustomJob, which can name a machine, a disk, spot and a TPU topology."""
    from google_cloud_pipeline_components.v1.custom_job import (
        create_custom_training_job_from_component,
    )

    train = target.train
    gpu = train.accelerator if train.accelerator != "TPU" else ""
    job = create_custom_training_job_from_component(
        component,
        machine_type=train.machine_type,
        accelerator_type=gpu,
        accelerator_count=train.accelerator_count if gpu else 0,
        boot_disk_type=train.disk_type,
        boot_disk_size_gb=train.disk_gb,
        timeout=f"{train.timeout_hours * 3600:.0f}s",
        strategy="SPOT" if train.spot else "STANDARD",
        # A machine that is taken away comes back and starts the step anew.
        restart_job_on_worker_restart=train.spot,
        service_account=target.service_account,
        network=target.network,
        encryption_spec_key_name=target.encryption_key,
        labels=target.labels,
    )
    return _with_workers(job, train)


def _with_workers(job: Any, train: TrainTargetConfig) -> Any:
    """Sets what the wrapper has no arguments for: the image and the topology of TPUs."""
    from google.protobuf import json_format
    from kfp import components

    spec = json_format.MessageToDict(job.pipeline_spec)
    holders = [spec["root"], *spec["components"].values()]
    for holder in holders:
        parameters = holder.get("inputDefinitions", {}).get("parameters", {})
        for pool in parameters.get("worker_pool_specs", {}).get("defaultValue", []):
            pool["container_spec"]["image_uri"] = GPU
            if train.tpu_topology:
                pool["machine_spec"]["tpu_topology"] = train.tpu_topology
                pool["container_spec"]["image_uri"] = TPU
    return components.load_component_from_text(yaml.safe_dump(spec))


def _set_machines(spec: dict[str, Any], target: VertexTarget) -> None:
    """Puts CPU, memory and retries where KFP would put them."""
    machines = {name: one.machine_type for name, one in target.tasks.items() if one.machine_type}
    retries = {name: one.retries for name, one in target.tasks.items()}
    if target.train.accelerator:
        retries[_TRAIN_JOB] = target.train.retries
    else:
        retries[TRAIN_TASK] = target.train.retries
        machines[TRAIN_TASK] = target.train.machine_type
    for task, machine in machines.items():
        cpu, memory = cpu_and_memory(machine)
        container = spec["deploymentSpec"]["executors"][f"exec-{task}"]["container"]
        container["resources"] = {
            "cpuLimit": float(cpu),
            "memoryLimit": float(memory.removesuffix("G")),
            "resourceCpuLimit": cpu,
            "resourceMemoryLimit": memory,
        }
    for name, holder in _tasks(spec):
        if retries.get(name):
            holder["retryPolicy"] = {
                "backoffDuration": BACKOFF["backoff_duration"],
                "backoffFactor": BACKOFF["backoff_factor"],
                "backoffMaxDuration": BACKOFF["backoff_max_duration"],
                "maxRetryCount": retries[name],
            }


def _forbid_caching(spec: dict[str, Any]) -> None:
    for _, task in _tasks(spec):
        task["cachingOptions"] = {}


def _tasks(spec: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every task of every graph in a specification."""
    graphs = [spec["root"], *spec["components"].values()]
    return [task for graph in graphs for task in graph.get("dag", {}).get("tasks", {}).items()]


def pipeline_job(
    spec: dict[str, Any], parameters: dict[str, Any], target: VertexTarget
) -> dict[str, Any]:
    """A `PipelineJob` for the API, as plain data.

    Args:
        spec: What `compile_vertex` returned.
        parameters: Values of parameters that differ from the defaults.
        target: Accounts and places.
    """
    job: dict[str, Any] = {
        "displayName": spec["pipelineInfo"]["name"],
        "pipelineSpec": spec,
        "labels": {"flowers": "run"} | target.labels,
        "runtimeConfig": {
            "gcsOutputDirectory": target.pipeline_root,
            "parameterValues": parameters,
        },
    }
    if target.service_account:
        job["serviceAccount"] = target.service_account
    if target.network:
        job["network"] = target.network
    if target.encryption_key:
        job["encryptionSpec"] = {"kmsKeyName": target.encryption_key}
    return job


def images_of(spec: dict[str, Any]) -> set[str]:
    """Every image that tasks and CustomJobs of a specification run in."""
    executors = spec["deploymentSpec"]["executors"].values()
    holders = [spec["root"], *spec["components"].values()]
    parameters = (one.get("inputDefinitions", {}).get("parameters", {}) for one in holders)
    pools = (one.get("worker_pool_specs", {}).get("defaultValue", []) for one in parameters)
    return {one["container"]["image"] for one in executors if "container" in one} | {
        pool["container_spec"]["image_uri"] for group in pools for pool in group
    }


def to_text(spec: dict[str, Any]) -> str:
    """The specification as YAML."""
    text: str = yaml.safe_dump(spec)
    return text


def dry_run(method: str, request: dict[str, Any]) -> str:
    """A request as it would be sent."""
    return f"{method}\n{to_json(request)}"
