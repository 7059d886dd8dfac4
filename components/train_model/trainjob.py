"""The TrainJob that trains on several hosts where Kubeflow Trainer is installed.

A TrainJob runs what a runtime describes, so each has a runtime of its own, whose template is the
JobSet that would be made without Trainer. Its controller makes that JobSet under the name of the
TrainJob, so pods find one another and are found by the same names either way.

Fields: pkg/apis/trainer/v1alpha1/trainjob_types.go and trainingruntime_types.go of
github.com/kubeflow/trainer; what the controller does with them: pkg/runtime/core/trainingruntime.go
and pkg/runtime/framework/plugins/jobset/builder.go.
"""

import copy
from typing import Any

from components.train_model.jobset import QUEUE_LABEL, Kind

_GROUP, _VERSION = "trainer.kubeflow.org", "v1alpha1"
TRAINJOB = Kind(_GROUP, _VERSION, "trainjobs", "TrainJob", done="Complete")
RUNTIME = Kind(_GROUP, _VERSION, "trainingruntimes", "TrainingRuntime")
# By this label and this name Trainer knows the job and the container that train.
_ANCESTOR, _TRAINER, _CONTAINER = "trainer.kubeflow.org/trainjob-ancestor-step", "trainer", "node"


def make_trainjob(jobset: dict[str, Any]) -> list[dict[str, Any]]:
    """A runtime and the TrainJob of it, as plain data for the API, in the order to make them.

    Args:
        jobset: What `make_jobset` returned; the TrainJob takes its name, its owner and its place.
    """
    metadata, spec = copy.deepcopy(jobset["metadata"]), copy.deepcopy(jobset["spec"])
    annotations = metadata.pop("annotations")
    # A TrainJob waits in a queue itself; its JobSet does not wait once more.
    labels = {key: value for key, value in metadata["labels"].items() if key != QUEUE_LABEL}
    # The controller would make anew a JobSet that the cluster forgot.
    del spec["ttlSecondsAfterFinished"]
    (job,) = spec["replicatedJobs"]
    job["template"]["metadata"] = {"labels": {_ANCESTOR: _TRAINER}}
    (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
    container["name"] = _CONTAINER
    template = {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}
    runtime = {
        "apiVersion": RUNTIME.api_version,
        "kind": RUNTIME.name,
        "metadata": metadata | {"labels": labels},
        "spec": {
            "mlPolicy": {"numNodes": job["template"]["spec"]["completions"]},
            "template": template,
        },
    }
    reference = {"apiGroup": RUNTIME.group, "kind": RUNTIME.name, "name": metadata["name"]}
    trainjob = {
        "apiVersion": TRAINJOB.api_version,
        "kind": TRAINJOB.name,
        "metadata": metadata,
        "spec": {"runtimeRef": reference},
    }
    return [runtime, trainjob]
