"""Submits the pipeline to Vertex AI, and waits for its end."""

import functools
import time
from collections.abc import Callable
from typing import Any

from components.common.errors import FlowersError
from components.common.patience import NotFoundError
from components.common.step import is_step
from components.common.vertex import Vertex
from pipelines.targets.preflight import check_api, find_problems
from pipelines.targets.runs import Progress, Step, follow, refuse
from pipelines.targets.vertex_config import VertexTarget
from pipelines.targets.vertex_pipeline import pipeline_job


def console_url(vertex: Vertex, job_id: str) -> str:
    """Where a person looks at a run."""
    return (
        f"https://console.cloud.google.com/vertex-ai/locations/{vertex.region}/pipelines/runs/"
        f"{job_id}?project={vertex.project}"
    )


def create_request(
    vertex: Vertex,
    spec: dict[str, Any],
    parameters: dict[str, Any],
    target: VertexTarget,
    job_id: str,
) -> dict[str, Any]:
    """The request that makes a run, as the REST API has it."""
    return {
        "parent": vertex.parent,
        "pipelineJobId": job_id,
        "pipelineJob": pipeline_job(spec, parameters, target),
    }


def check(vertex: Vertex, target: VertexTarget, spec: dict[str, Any]) -> None:
    """Refuses to go on where something is missing.

    Raises:
        ConfigError: Names all that is missing.
    """
    refuse(find_problems(spec, target.pipeline_root, lambda: check_api(vertex)))


def submit(vertex: Vertex, request: dict[str, Any]) -> str:
    """Makes a run, once, however often the answer is lost.

    Args:
        vertex: The clients.
        request: What `create_request` returned.

    Returns:
        Resource name of the run.
    """
    from google.cloud import aiplatform_v1

    client = vertex.client("PipelineServiceClient")
    name = f"{vertex.parent}/pipelineJobs/{request['pipelineJobId']}"
    vertex.ensure(
        lambda: vertex.find(client.get_pipeline_job, {"name": name}),
        client.create_pipeline_job,
        aiplatform_v1.CreatePipelineJobRequest(
            parent=request["parent"],
            pipeline_job_id=request["pipelineJobId"],
            pipeline_job=to_message(request["pipelineJob"]),
        ),
        "creation of the run",
    )
    return name


def to_message(job: dict[str, Any]) -> Any:
    """A `PipelineJob` of the client from plain data; an unknown key is refused."""
    from google.cloud import aiplatform_v1
    from google.protobuf import json_format

    message = aiplatform_v1.PipelineJob()
    json_format.ParseDict(job, aiplatform_v1.PipelineJob.pb(message))
    return message


def join_experiment(
    vertex: Vertex, job_id: str, experiment: str, warn: Callable[[str], None]
) -> None:
    """Adds a run to an experiment, if there is one and it can.

    Args:
        vertex: The project and region.
        job_id: Of a run that is submitted. It goes on in any case, and may cost something, so that
            a failure here must not keep anybody from waiting for it.
        experiment: Its name; "" for none.
        warn: Is told in one line what went wrong.
    """
    if not experiment:
        return
    try:
        add_to_experiment(vertex, job_id, experiment)
    except FlowersError as error:
        warn(f"warning: the run is not in experiment {experiment}: {error}")


def add_to_experiment(vertex: Vertex, job_id: str, experiment: str) -> None:
    """Adds a run to an experiment, which is made where it is absent.

    Raises:
        NotFoundError: Vertex AI has not made the context of the run yet.
    """
    client = vertex.client("MetadataServiceClient")
    contexts = f"{vertex.parent}/metadataStores/default/contexts"
    name = f"{contexts}/{experiment}"

    def find(which: str) -> Callable[[], Any]:
        return lambda: vertex.find(client.get_context, {"name": which})

    if find(name)() is None:
        vertex.ensure(
            find(name),
            client.create_context,
            {
                "parent": contexts.rpartition("/")[0],
                "context_id": experiment,
                "context": {
                    "display_name": experiment,
                    "schema_title": "system.Experiment",
                    "schema_version": "0.0.1",
                },
            },
            f"creation of experiment {experiment}",
        )
    run = f"{contexts}/{job_id}"
    # Vertex AI makes the context of a run when it starts it.
    deadline = time.monotonic() + vertex.patience.settle
    while find(run)() is None:
        if time.monotonic() > deadline:
            raise NotFoundError(
                f"the run is submitted, and could not be added to experiment {experiment}: "
                "Vertex AI has not made its context yet"
            )
        time.sleep(vertex.patience.poll)

    def added() -> bool | None:
        parents = vertex.read(client.get_context, {"name": run}).parent_contexts
        return any(one.endswith(f"/contexts/{experiment}") for one in parents) or None

    vertex.ensure(
        added,
        client.add_context_children,
        {"context": name, "child_contexts": [run]},
        f"adding the run to experiment {experiment}",
    )


def wait(vertex: Vertex, name: str, tell: Callable[[str], None]) -> tuple[int, str]:
    """Waits for the end of a run and tells each change of a task.

    Args:
        vertex: The clients.
        name: Resource name of the run.
        tell: Takes one line.

    Returns:
        Exit code of the run as that of `flowers run`, and the last line.
    """
    client = vertex.client("PipelineServiceClient")
    return follow(
        lambda: _progress(vertex.read(client.get_pipeline_job, {"name": name})),
        tell,
        vertex.patience.poll,
    )


def _progress(job: Any) -> Progress:
    steps = [
        Step(task.task_name, task.state.name.lower().replace("_", " "), task.error.message)
        for task in job.job_detail.task_details
        if is_step(task.task_name)
    ]
    state = job.state.name.removeprefix("PIPELINE_STATE_").lower()
    return Progress(state, steps, job.error.message, functools.partial(_reason, job))


def _reason(job: Any, task_name: str, output: str) -> str:
    """What a step wrote into the metadata of its artifact."""
    for task in job.job_detail.task_details:
        if task.task_name == task_name and output in task.outputs:
            for artifact in task.outputs[output].artifacts:
                reason = dict(artifact.metadata or {}).get("reason")
                if reason:
                    return str(reason)
    return ""
