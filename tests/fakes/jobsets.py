"""Schemas of JobSets and TrainJobs, and a local API server of Kubernetes that plays their pods.

Fields of the schema, by their structs in api/jobset/v1alpha2/jobset_types.go of
github.com/kubernetes-sigs/jobset: JobSetSpec (replicatedJobs, network, failurePolicy,
ttlSecondsAfterFinished), Network (enableDNSHostnames, publishNotReadyAddresses), FailurePolicy
(maxRestarts), ReplicatedJob (name, replicas, template); of the template, JobSpec in
staging/src/k8s.io/api/batch/v1/types.go of github.com/kubernetes/kubernetes. The webhook
(jobset_webhook.go) wants names of pods, `<jobset>-<job>-<replica>-<index>`, of at most 63 letters.
The pod of the template is checked by kubernetes-validate.

TrainJobs and their runtimes, by pkg/apis/trainer/v1alpha1 of github.com/kubeflow/trainer:
TrainJobSpec (runtimeRef), RuntimeRef (apiGroup, kind, name), TrainingRuntimeSpec (mlPolicy,
template), MLPolicy (numNodes), JobSetTemplateSpec (metadata, spec); names are labels of RFC 1035.
The controller makes a JobSet of the TrainJob's name from the template, and a TrainJob of a runtime
that is not there is refused (pkg/runtime/core/trainingruntime.go).
"""

import contextlib
import copy
import threading
from collections.abc import Iterator
from typing import Any

import jsonschema
import kubernetes_validate

from tests.fakes.servers import FakeHandler, serve

# A release of Kubernetes that GKE has.
KUBERNETES = "1.33"
_NAME = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_COUNT = {"type": "integer", "minimum": 0}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": False,
    }


def _kind(api_version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return _object(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": api_version},
        kind={"const": kind},
        metadata=_object(
            ["name", "namespace"],
            name=_NAME,
            namespace=_NAME,
            labels=_TEXTS,
            annotations=_TEXTS,
            ownerReferences={
                "type": "array",
                "items": _object(
                    ["apiVersion", "kind", "name", "uid"],
                    apiVersion={"type": "string"},
                    kind={"type": "string"},
                    name=_NAME,
                    uid={"type": "string"},
                ),
            },
        ),
        spec=spec,
    )


_JOBSET_SPEC = _object(
    ["replicatedJobs"],
    network=_object(
        [],
        enableDNSHostnames={"type": "boolean"},
        publishNotReadyAddresses={"type": "boolean"},
        subdomain=_NAME,
    ),
    failurePolicy=_object([], maxRestarts=_COUNT),
    ttlSecondsAfterFinished=_COUNT,
    replicatedJobs={
        "type": "array",
        "minItems": 1,
        "items": _object(
            ["name", "template"],
            name=_NAME,
            replicas=_COUNT,
            template=_object(
                ["spec"],
                metadata={"type": "object"},
                spec=_object(
                    ["template"],
                    completionMode={"enum": ["Indexed", "NonIndexed"]},
                    completions=_COUNT,
                    parallelism=_COUNT,
                    backoffLimit=_COUNT,
                    activeDeadlineSeconds={"type": "integer", "minimum": 1},
                    template=_object(["spec"], metadata=_object([], labels=_TEXTS), spec={}),
                ),
            ),
        ),
    },
)
SCHEMA = _kind("jobset.x-k8s.io/v1alpha2", "JobSet", _JOBSET_SPEC)
_TRAINER = "trainer.kubeflow.org/v1alpha1"
RUNTIME_SCHEMA = _kind(
    _TRAINER,
    "TrainingRuntime",
    _object(
        ["template"],
        mlPolicy=_object([], numNodes={"type": "integer", "minimum": 1}),
        template=_object(
            ["spec"], metadata=_object([], labels=_TEXTS, annotations=_TEXTS), spec=_JOBSET_SPEC
        ),
    ),
)
TRAINJOB_SCHEMA = _kind(
    _TRAINER,
    "TrainJob",
    _object(
        ["runtimeRef"],
        runtimeRef=_object(
            ["name"],
            name=_NAME,
            apiGroup={"const": "trainer.kubeflow.org"},
            kind={"enum": ["TrainingRuntime", "ClusterTrainingRuntime"]},
        ),
        suspend={"type": "boolean"},
    ),
)


def validate_jobset(jobset: dict[str, Any]) -> None:
    """Refuses what the CRD, its webhook or the API of pods would refuse."""
    jsonschema.validate(jobset, SCHEMA)
    _validate_pods(jobset)


def validate_trainjob(runtime: dict[str, Any], trainjob: dict[str, Any]) -> dict[str, Any]:
    """Refuses what the CRDs would refuse; returns the JobSet that the controller makes."""
    jsonschema.validate(runtime, RUNTIME_SCHEMA)
    jsonschema.validate(trainjob, TRAINJOB_SCHEMA)
    assert trainjob["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    template = copy.deepcopy(runtime["spec"]["template"])
    count = runtime["spec"]["mlPolicy"]["numNodes"]
    for one in template["spec"]["replicatedJobs"]:
        labels = one["template"].get("metadata", {}).get("labels", {})
        if labels.get("trainer.kubeflow.org/trainjob-ancestor-step") == "trainer":
            one["template"]["spec"].update(completions=count, parallelism=count)
    names = {key: trainjob["metadata"][key] for key in ("name", "namespace")}
    jobset = {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": names | template.get("metadata", {}),
        "spec": template["spec"],
    }
    validate_jobset(jobset)
    return jobset


def _validate_pods(jobset: dict[str, Any]) -> None:
    for one in jobset["spec"]["replicatedJobs"]:
        job = one["template"]["spec"]
        longest = f"{jobset['metadata']['name']}-{one['name']}-0-{job['completions'] - 1}"
        assert len(longest) <= 63, longest
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": longest, **job["template"].get("metadata", {})},
            "spec": job["template"]["spec"],
        }
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


class FakeCluster:
    """The JobSets and TrainJobs of a cluster, and their pods.

    Attributes:
        faults: Number of a request -> its fault; counted from 0.
        installed: Whether the cluster knows JobSets.
        trainer: Whether it knows TrainJobs.
        allowed: Whether the account may make them.
        kubernetes: Our client of it.
        play: Moves a JobSet on, before it is shown; a test replaces it.
    """

    def __init__(self) -> None:
        self.jobsets: dict[str, dict[str, Any]] = {}
        self.made: list[dict[str, Any]] = []
        self.pods: dict[str, list[dict[str, Any]]] = {}
        self.logs: dict[str, list[str]] = {}
        self.unreadable: dict[str, int] = {}
        self.faults: dict[int, str] = {}
        self.requests: list[str] = []
        self.runtimes: dict[str, dict[str, Any]] = {}
        self.trainjobs: dict[str, dict[str, Any]] = {}
        self.installed = self.allowed = True
        self.trainer = False
        self.kubernetes: Any = None
        self.lock = threading.RLock()
        self.looks = 0
        self.clock = 0

    def play(self, jobset: dict[str, Any]) -> None:
        """All hosts train, and end well."""
        {1: self.start, 2: self.complete}.get(self.looks, lambda _jobset: None)(jobset)

    def start(self, jobset: dict[str, Any]) -> None:
        name = jobset["metadata"]["name"]
        job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
        self.pods[name] = [
            {
                "metadata": {
                    "name": f"{name}-hosts-0-{host}-x{self.clock}",
                    "annotations": {"batch.kubernetes.io/job-completion-index": str(host)},
                },
                "status": {"phase": "Running"},
            }
            for host in range(job["completions"])
        ]

    def say(self, jobset: dict[str, Any], host: int, line: str) -> None:
        pod = self.pods[jobset["metadata"]["name"]][host]["metadata"]["name"]
        self.clock += 1
        stamp = f"2030-01-01T00:00:{self.clock:02d}.000000000Z"
        self.logs.setdefault(pod, []).append(f"{stamp} {line}")

    def end_pod(self, jobset: dict[str, Any], host: int, exit_code: int, reason: str) -> None:
        self.clock += 1
        terminated = {
            "exitCode": exit_code,
            "reason": reason,
            "finishedAt": f"2030-01-01T00:00:{self.clock:02d}Z",
        }
        status = {
            "phase": "Failed" if exit_code else "Succeeded",
            "containerStatuses": [
                {
                    "name": "main",
                    "image": "image",
                    "imageID": "",
                    "ready": False,
                    "restartCount": 0,
                    "state": {"terminated": terminated},
                }
            ],
        }
        self.pods[jobset["metadata"]["name"]][host]["status"] = status

    def lose_pod(self, jobset: dict[str, Any], host: int) -> None:
        pod = self.pods[jobset["metadata"]["name"]][host]
        pod["status"] = {"phase": "Failed", "reason": "NodeLost"}

    def complete(self, jobset: dict[str, Any]) -> None:
        for host in range(len(self.pods[jobset["metadata"]["name"]])):
            self.end_pod(jobset, host, 0, "Completed")
        self.condition(jobset, "Completed", "jobset completed successfully")

    def condition(self, jobset: dict[str, Any], kind: str, message: str) -> None:
        jobset.setdefault("status", {})["conditions"] = [
            {"type": kind, "status": "True", "reason": kind, "message": message}
        ]

    def result(self, method: str, path: str, body: Any, query: dict[str, str]) -> tuple[int, Any]:
        parts = path.strip("/").split("/")
        if parts == ["apis"]:
            return 200, self.groups()
        if parts[0] == "apis":
            return self.custom_result(method, parts, body)
        if parts[-1] == "log":
            assert int(query["sinceSeconds"]) > 0
            if status := self.unreadable.get(parts[-2], 0):
                return status, _status(status, "no log")
            return 200, "\n".join(self.logs.get(parts[-2], []))
        name = query["labelSelector"].removeprefix("jobset.sigs.k8s.io/jobset-name=")
        return 200, {"kind": "PodList", "apiVersion": "v1", "items": self.pods.get(name, [])}

    def groups(self) -> dict[str, Any]:
        known = {"jobset.x-k8s.io/v1alpha2": self.installed, _TRAINER: self.trainer}
        found = [name.split("/") for name, there in known.items() if there]
        groups = [
            {
                "name": group,
                "versions": [{"groupVersion": f"{group}/{version}", "version": version}],
            }
            for group, version in [("apps", "v1"), *found]
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}

    def custom_result(self, method: str, parts: list[str], body: Any) -> tuple[int, Any]:
        kinds = {
            "jobset.x-k8s.io/v1alpha2/jobsets": (self.installed, self.jobsets),
            f"{_TRAINER}/trainjobs": (self.trainer, self.trainjobs),
            f"{_TRAINER}/trainingruntimes": (self.trainer, self.runtimes),
        }
        known, things = kinds["/".join([*parts[1:3], parts[5]])]
        if not known:
            return 404, _status(404, "page not found")
        if not self.allowed:
            return 403, _status(403, "Forbidden")
        if method == "POST":
            return self.create(body, things)
        name = parts[-1]
        if name not in things:
            return 404, _status(404, "NotFound")
        if method == "DELETE":
            return self.delete(name, things)
        # What is watched moves on: a TrainJob, or a JobSet that belongs to none.
        if things is not self.runtimes and (things is self.trainjobs or name not in self.trainjobs):
            self.looks += 1
            self.play(self.jobsets[name])
        if things is self.trainjobs:
            self.mirror(name)
        return 200, things[name]

    def delete(self, name: str, things: dict[str, Any]) -> tuple[int, Any]:
        if things is self.runtimes:
            assert name not in self.trainjobs, "a runtime in use stays"
        del things[name]
        if things is self.trainjobs:
            self.jobsets.pop(name, None)
        return 200, _status(200, "Success")

    def mirror(self, name: str) -> None:
        """What a TrainJob says of its JobSet."""
        said = self.jobsets[name].get("status", {}).get("conditions", [])
        self.trainjobs[name]["status"] = {
            "conditions": [
                one | {"type": {"Completed": "Complete"}.get(one["type"], one["type"])}
                for one in said
            ]
        }

    def create(self, body: dict[str, Any], things: dict[str, Any]) -> tuple[int, Any]:
        name = body["metadata"]["name"]
        if name in things:
            return 409, _status(409, "AlreadyExists")
        try:
            if things is self.jobsets:
                validate_jobset(body)
            elif things is self.runtimes:
                jsonschema.validate(body, RUNTIME_SCHEMA)
            else:
                runtime = self.runtimes[body["spec"]["runtimeRef"]["name"]]
                self.jobsets[name] = validate_trainjob(runtime, body)
        except Exception as error:
            return 422, _status(422, str(error))
        things[name] = body
        self.made.append(copy.deepcopy(body))
        return 201, body


def _status(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "code": code, "message": message}


class _Handler(FakeHandler):
    def result(self, path, body, query):
        return self.fake.result(self.command, path, body, query)

    def error(self, code, message, status):
        return _status(code, message)

    def render(self, content):
        return content if isinstance(content, str) else super().render(content)


@contextlib.contextmanager
def serve_cluster() -> Iterator[tuple[FakeCluster, str]]:
    """A cluster and its address."""
    fake = FakeCluster()
    with serve(_Handler, fake) as address:
        yield fake, address
