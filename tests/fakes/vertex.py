"""A local server that speaks the REST of Vertex AI, keeps state, and can be told to fail.

It refuses what the real one refuses: unknown fields, an illegal cron, traffic that does not add to
100, a parent that is absent, an id that is taken. Faults are given per request, by its number.
"""

import base64
import contextlib
import datetime
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

from cronsim import CronSim, CronSimError
from google.cloud import aiplatform_v1 as v1
from google.protobuf import json_format

from tests.fakes.servers import FakeHandler, serve

PROJECT, REGION = "my-project", "europe-west4"
PARENT = f"projects/{PROJECT}/locations/{REGION}"
FAULTS = ("429", "500", "503", "aborted", "lost")
_MACHINES = re.compile(r"(n1|n2|e2|c2|c3|a2|a3|g2|ct5lp|ct6e)-[a-z]+(-\w+)?")


class RefusedError(Exception):
    """What the server answers in place of a result."""

    def __init__(self, code, status, message):
        super().__init__(message)
        self.code, self.status, self.message = code, status, message


def invalid(message):
    return RefusedError(400, "INVALID_ARGUMENT", message)


def absent(name):
    return RefusedError(404, "NOT_FOUND", f"{name} is not found")


def taken(name):
    return RefusedError(409, "ALREADY_EXISTS", f"{name} already exists")


def parse(kind, content):
    """A message of the API from JSON; an unknown field is refused."""
    try:
        return json_format.ParseDict(content, kind.pb(kind()))
    except json_format.ParseError as error:
        raise invalid(f"Invalid JSON payload received: {error}") from None


def plain(message):
    return json_format.MessageToDict(message)


class FakeVertex:
    """The state of one project in one region.

    Attributes:
        predictor: (artifact URI, photo) -> what the model says, as plain data.
        wrong: Versions whose endpoint answers something else.
        faults: Number of a request -> its fault; counted from 0.
        failing_operations: Verb of a method -> message its operations end with.
        held_operations: Verbs of methods whose operations go on until `finish` is called.
        lagging: So many predictions still come from the version that sorts first.
    """

    def __init__(self):
        self.host = ""
        self.models, self.endpoints, self.operations = {}, {}, {}
        self.evaluations, self.jobs, self.schedules = {}, {}, {}
        self.predictor: Callable[[str, bytes], dict[str, Any]] = lambda uri, photo: {}
        self.wrong, self.faults, self.failing_operations = set(), {}, {}
        self.held_operations, self.lagging = set(), 0
        self.requests, self.number, self.asked = [], 0, 0
        self.contexts = {}
        self.buckets = {"bucket": {"storage.objects.create", "storage.objects.get"}}
        self.buckets["bucket"].add("storage.objects.list")
        self.images = set()
        self.token_is_expired = False
        self.lock = threading.RLock()

    # What tests look at.

    def versions(self, model="flowers"):
        return list(self.models.get(model, {}))

    def traffic(self, endpoint="flowers"):
        """Version -> percent, for what is up."""
        if endpoint not in self.endpoints:
            return {}
        message = self.endpoints[endpoint]
        return {
            deployed.model_version_id: message.traffic_split.get(deployed.id, 0)
            for deployed in message.deployed_models
        }

    def aliases(self, model="flowers"):
        return {
            alias: number
            for number, version in self.models.get(model, {}).items()
            for alias in version.version_aliases
        }

    # Models.

    def upload_model(self, body, _query):
        request = parse(v1.UploadModelRequest, body)
        model = request.model
        if not model.display_name or not model.artifact_uri.startswith("gs://"):
            raise invalid("model needs a display_name and an artifact_uri")
        if request.parent_model:
            name = request.parent_model.rpartition("/")[2]
            if name not in self.models:
                raise absent(request.parent_model)
        else:
            name = request.model_id or self.new_id()
            if name in self.models:
                raise taken(name)
        check_labels(model.labels)

        def work():
            versions = self.models.setdefault(name, {})
            number = str(max(map(int, versions), default=0) + 1)
            model.name = f"{PARENT}/models/{name}"
            model.version_id = number
            if number == "1":
                model.version_aliases.append("default")
            versions[number] = model

        return self.operate("upload", work, f"models/{name}")

    def model(self, name):
        name, _, number = name.partition("@")
        if name not in self.models:
            raise absent(name)
        versions = self.models[name]
        if not number:
            return next(v for v in versions.values() if "default" in v.version_aliases)
        for version, message in versions.items():
            if number == version or number in message.version_aliases:
                return message
        raise absent(f"{name}@{number}")

    def get_model(self, _body, _query, name):
        return plain(self.model(name))

    def list_versions(self, _body, _query, name):
        if name not in self.models:
            raise absent(name)
        return {"models": [plain(version) for version in self.models[name].values()]}

    def merge_aliases(self, body, _query, name):
        version = self.model(name)
        for alias in body["versionAliases"]:
            bare = alias.removeprefix("-")
            if alias == "-default":
                raise invalid("the default alias can be moved, not removed")
            for other in self.models[name.partition("@")[0]].values():
                if bare in other.version_aliases and not alias.startswith("-"):
                    other.version_aliases.remove(bare)
            if alias.startswith("-"):
                if bare in version.version_aliases:
                    version.version_aliases.remove(bare)
            else:
                version.version_aliases.append(bare)
        return plain(version)

    def delete_version(self, _body, _query, name):
        version = self.model(name)
        number = version.version_id
        if "default" in version.version_aliases:
            raise invalid("the default version cannot be deleted")
        if number in self.traffic():
            raise invalid("the version is deployed")
        return self.operate(
            "deleteVersion", lambda: self.models[name.partition("@")[0]].pop(number)
        )

    def import_evaluation(self, body, _query, name):
        self.model(name)
        evaluation = parse(v1.ModelEvaluation, body["modelEvaluation"])
        key = self.new_id()
        evaluation.name = f"{PARENT}/models/{name}/evaluations/{key}"
        self.evaluations.setdefault(name, []).append(evaluation)
        return plain(evaluation)

    def list_evaluations(self, _body, _query, name):
        self.model(name)
        return {"modelEvaluations": [plain(one) for one in self.evaluations.get(name, [])]}

    # Endpoints.

    def create_endpoint(self, body, query):
        endpoint = parse(v1.Endpoint, body)
        name = query.get("endpointId") or self.new_id()
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?|[1-9]\d{0,8}", name):
            raise invalid(f"endpoint id {name!r}")
        if name in self.endpoints:
            raise taken(name)
        endpoint.name = f"{PARENT}/endpoints/{name}"
        self.touch(endpoint)
        return self.operate("createEndpoint", lambda: self.endpoints.update({name: endpoint}))

    def endpoint(self, name):
        if name not in self.endpoints:
            raise absent(name)
        return self.endpoints[name]

    def get_endpoint(self, _body, _query, name):
        return plain(self.endpoint(name))

    def update_endpoint(self, body, query, name):
        endpoint, new = self.endpoint(name), parse(v1.Endpoint, body)
        if new.etag and new.etag != endpoint.etag:
            raise RefusedError(409, "ABORTED", "the endpoint was changed meanwhile")
        self.touch(endpoint)
        for field in query["updateMask"].split(","):
            if field in {"trafficSplit", "traffic_split"}:
                self.check_split(endpoint, new.traffic_split)
                endpoint.traffic_split.clear()
                endpoint.traffic_split.update(new.traffic_split)
            elif field == "labels":
                check_labels(new.labels)
                endpoint.labels.clear()
                endpoint.labels.update(new.labels)
            else:
                raise invalid(f"update_mask: {field}")
        return plain(endpoint)

    def touch(self, endpoint):
        endpoint.etag = f"etag-{self.new_id()}"

    def check_split(self, endpoint, split, also=()):
        ids = {deployed.id for deployed in endpoint.deployed_models} | set(also)
        if set(split) - ids:
            raise invalid(f"traffic_split names {sorted(set(split) - ids)}, which is not deployed")
        if split and sum(split.values()) != 100:
            raise invalid(f"traffic_split adds to {sum(split.values())}, and must to 100")

    def deploy_model(self, body, _query, name):
        endpoint = self.endpoint(name)
        request = parse(v1.DeployModelRequest, body)
        deployed = request.deployed_model
        model = self.model(deployed.model.rpartition("/")[2])
        machine = deployed.dedicated_resources.machine_spec.machine_type
        if not _MACHINES.fullmatch(machine):
            raise invalid(f"machine type {machine!r} is not supported")
        if deployed.id and not re.fullmatch(r"[1-9]\d{0,9}", deployed.id):
            raise invalid(f"deployed model id {deployed.id!r}")
        if deployed.id in {one.id for one in endpoint.deployed_models}:
            raise taken(f"deployed model {deployed.id}")
        self.check_split(endpoint, request.traffic_split, ("0",))

        def work():
            self.touch(endpoint)
            deployed.id = deployed.id or self.new_id()
            deployed.model_version_id = model.version_id
            deployed.model = model.name
            endpoint.deployed_models.append(deployed)
            if request.traffic_split:
                split = dict(request.traffic_split)
                if "0" in split:
                    split[deployed.id] = split.pop("0")
                endpoint.traffic_split.clear()
                endpoint.traffic_split.update(split)

        return self.operate("deployModel", work)

    def undeploy_model(self, body, _query, name):
        endpoint = self.endpoint(name)
        key = parse(v1.UndeployModelRequest, body).deployed_model_id
        found = [one for one in endpoint.deployed_models if one.id == key]
        if not found:
            raise invalid(f"deployed model {key} is not on the endpoint")
        if endpoint.traffic_split.get(key, 0) and len(endpoint.deployed_models) > 1:
            raise invalid(f"deployed model {key} has traffic")

        def work():
            self.touch(endpoint)
            endpoint.deployed_models.remove(found[0])
            endpoint.traffic_split.pop(key, None)

        return self.operate("undeployModel", work)

    def predict(self, body, _query, name):
        endpoint = self.endpoint(name)
        if not endpoint.traffic_split:
            raise RefusedError(400, "FAILED_PRECONDITION", "the endpoint has no deployed model")
        # Every share is kept exactly over a hundred requests, and is spread out.
        place = (self.asked * 37) % 100
        self.asked += 1
        for key in sorted(endpoint.traffic_split):
            place -= endpoint.traffic_split[key]
            if place < 0:
                break
        if self.lagging:
            self.lagging, key = self.lagging - 1, min(one.id for one in endpoint.deployed_models)
        deployed = next(one for one in endpoint.deployed_models if one.id == key)
        version = self.models[name][deployed.model_version_id]
        photos = [base64.b64decode(one["image_bytes"]["b64"]) for one in body["instances"]]
        answers = [self.predictor(version.artifact_uri, photo) for photo in photos]
        if deployed.model_version_id in self.wrong:
            answers = [{**one, "probabilities": one["probabilities"][::-1]} for one in answers]
        return {
            "predictions": answers,
            "deployedModelId": key,
            "model": deployed.model,
            "modelVersionId": deployed.model_version_id,
        }

    # Pipeline jobs.

    def create_job(self, body, query):
        job = parse(v1.PipelineJob, body)
        check_job(job)
        name = query.get("pipelineJobId") or f"{job.display_name or 'job'}-{self.new_id()}"
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,126}[a-z0-9]", name):
            raise invalid(f"pipeline job id {name!r}")
        if name in self.jobs:
            raise taken(name)
        job.name = f"{PARENT}/pipelineJobs/{name}"
        job.state = v1.PipelineState.PIPELINE_STATE_PENDING
        self.jobs[name] = job
        return plain(job)

    def get_job(self, _body, _query, name):
        if name not in self.jobs:
            raise absent(name)
        job = self.jobs[name]
        answer = plain(job)
        self.advance(job)
        return answer

    def advance(self, job):
        """Nothing by itself; a test replaces it to play a run."""

    def list_jobs(self, _body, _query):
        return {"pipelineJobs": [plain(job) for job in self.jobs.values()]}

    # Schedules.

    def create_schedule(self, body, _query):
        schedule = parse(v1.Schedule, body)
        check_schedule(schedule)
        key = self.new_id()
        schedule.name = f"{PARENT}/schedules/{key}"
        schedule.state = v1.Schedule.State.ACTIVE
        self.schedules[key] = schedule
        return plain(schedule)

    def schedule(self, name):
        if name not in self.schedules:
            raise absent(name)
        return self.schedules[name]

    def get_schedule(self, _body, _query, name):
        return plain(self.schedule(name))

    def list_schedules(self, _body, query):
        wanted = re.fullmatch(r'display_name="([^"]*)"', query.get("filter", ""))
        found = [
            plain(one)
            for one in self.schedules.values()
            if not wanted or one.display_name == wanted[1]
        ]
        return {"schedules": found}

    def update_schedule(self, body, query, name):
        schedule, new = self.schedule(name), parse(v1.Schedule, body)
        for field in query["updateMask"].split(","):
            snake = re.sub(r"[A-Z]", lambda found: "_" + found[0].lower(), field)
            if snake not in schedule.DESCRIPTOR.fields_by_name:
                raise invalid(f"update_mask: {field}")
            schedule.ClearField(snake)
            part = type(new)()
            part.CopyFrom(new)
            for other, _ in new.ListFields():
                if other.name != snake:
                    part.ClearField(other.name)
            schedule.MergeFrom(part)
        check_schedule(schedule)
        return plain(schedule)

    def pause_schedule(self, _body, _query, name):
        self.schedule(name).state = v1.Schedule.State.PAUSED
        return {}

    def resume_schedule(self, _body, _query, name):
        self.schedule(name).state = v1.Schedule.State.ACTIVE
        return {}

    def delete_schedule(self, _body, _query, name):
        self.schedule(name)
        return self.operate("deleteSchedule", lambda: self.schedules.pop(name))

    # Experiments.

    def create_context(self, body, query):
        context, name = parse(v1.Context, body), query["contextId"]
        if name in self.contexts:
            raise taken(name)
        context.name = f"{PARENT}/metadataStores/default/contexts/{name}"
        self.contexts[name] = context
        return plain(context)

    def get_context(self, _body, _query, name):
        if name in self.jobs and name not in self.contexts:
            self.contexts[name] = v1.Context.pb(v1.Context(display_name=name))
        if name not in self.contexts:
            raise absent(name)
        return plain(self.contexts[name])

    def add_children(self, body, _query, name):
        if name not in self.contexts:
            raise absent(name)
        for child in body["childContexts"]:
            parents = self.contexts[child.rpartition("/")[2]].parent_contexts
            parents.append(self.contexts[name].name)
        return {}

    # What is asked beside Vertex AI: a bucket, a registry of images.

    def bucket(self, _body, query, name):
        if name not in self.buckets:
            raise absent(f"bucket {name}")
        held = set(query["permissions"]) & self.buckets[name]
        return {"permissions": sorted(held)}

    def manifest(self, _body, _query, image, digest):
        if f"{image}@{digest}" not in self.images:
            raise absent(image)
        return {}

    # Operations.

    def operate(self, verb, work, below=""):
        key = self.new_id()
        name = f"{PARENT}/{below + '/' if below else ''}operations/{key}"
        operation = {"name": name, "done": False}
        self.operations[key] = (operation, verb, work)
        # A change is under way at once, and seen to be done by whoever asks.
        if verb not in self.held_operations:
            self.finish(key)
        return {"name": name, "done": False}

    def finish(self, key):
        operation, verb, work = self.operations[key]
        if verb in self.failing_operations:
            operation["error"] = {"code": 13, "message": self.failing_operations[verb]}
        else:
            work()
            kind = "type.googleapis.com/google.protobuf.Empty"
            operation["response"] = {"@type": kind}
        operation["done"] = True

    def get_operation(self, _body, _query, key):
        if key not in self.operations:
            raise absent(key)
        return self.operations[key][0]

    def new_id(self):
        self.number += 1
        return str(1000 + self.number)


def check_labels(labels):
    for name, value in labels.items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", name) or not re.fullmatch(
            r"[a-z0-9_-]{0,63}", value
        ):
            raise invalid(f"label {name}={value}")


def check_job(job):
    if not job.pipeline_spec.fields:
        raise invalid("pipeline_spec is missing")
    if not job.runtime_config.gcs_output_directory.startswith("gs://"):
        raise invalid("runtime_config.gcs_output_directory must start with gs://")
    check_labels(job.labels)
    known = json_format.MessageToDict(job.pipeline_spec)["root"].get("inputDefinitions", {})
    extra = set(job.runtime_config.parameter_values) - set(known.get("parameters", {}))
    if extra:
        raise invalid(f"parameters {sorted(extra)} are not in the pipeline")


def check_schedule(schedule):
    cron = re.sub(r"^(CRON_)?TZ=\S+ ", "", schedule.cron)
    try:
        CronSim(cron, datetime.datetime.now(datetime.UTC))
    except CronSimError:
        raise invalid(f"cron {schedule.cron!r}") from None
    if len(cron.split()) != 5:
        raise invalid(f"cron {schedule.cron!r} has not five fields")
    if schedule.max_concurrent_run_count < 1:
        raise invalid("max_concurrent_run_count must be at least 1")
    if not schedule.display_name:
        raise invalid("display_name is missing")
    check_job(schedule.create_pipeline_job_request.pipeline_job)


_ID = r"(?P<name>[^/:]+)"
# The generated client asks for operations below /ui/, as Google's console does.
ROUTES = [
    (method, re.compile(rf"/(?:v1|ui)/{PARENT}/{path}"), handler)
    for method, path, handler in [
        ("POST", "models:upload", "upload_model"),
        ("GET", f"models/{_ID}:listVersions", "list_versions"),
        ("POST", f"models/{_ID}:mergeVersionAliases", "merge_aliases"),
        ("DELETE", f"models/{_ID}:deleteVersion", "delete_version"),
        ("POST", f"models/{_ID}/evaluations:import", "import_evaluation"),
        ("GET", f"models/{_ID}/evaluations", "list_evaluations"),
        ("GET", f"models/{_ID}", "get_model"),
        ("POST", "endpoints", "create_endpoint"),
        ("GET", f"endpoints/{_ID}", "get_endpoint"),
        ("PATCH", f"endpoints/{_ID}", "update_endpoint"),
        ("POST", f"endpoints/{_ID}:deployModel", "deploy_model"),
        ("POST", f"endpoints/{_ID}:undeployModel", "undeploy_model"),
        ("POST", f"endpoints/{_ID}:predict", "predict"),
        ("POST", "pipelineJobs", "create_job"),
        ("GET", "pipelineJobs", "list_jobs"),
        ("GET", f"pipelineJobs/{_ID}", "get_job"),
        ("POST", "schedules", "create_schedule"),
        ("GET", "schedules", "list_schedules"),
        ("GET", f"schedules/{_ID}", "get_schedule"),
        ("PATCH", f"schedules/{_ID}", "update_schedule"),
        ("DELETE", f"schedules/{_ID}", "delete_schedule"),
        ("POST", f"schedules/{_ID}:pause", "pause_schedule"),
        ("POST", f"schedules/{_ID}:resume", "resume_schedule"),
        ("GET", rf"(?:models/[^/]+/)?operations/{_ID}", "get_operation"),
        ("POST", "metadataStores/default/contexts", "create_context"),
        ("GET", f"metadataStores/default/contexts/{_ID}", "get_context"),
        ("POST", f"metadataStores/default/contexts/{_ID}:addContextChildren", "add_children"),
    ]
] + [
    ("GET", re.compile(r"/storage/v1/b/([^/]+)/iam/testPermissions"), "bucket"),
    ("HEAD", re.compile(r"/v2/(.+)/manifests/(sha256:[0-9a-f]{64})"), "manifest"),
]


class _Handler(FakeHandler):
    lists = frozenset({"permissions"})

    def result(self, path, body, query):
        if self.fake.token_is_expired:
            return 401, self.error(401, "the token has expired", "UNAUTHENTICATED")
        for method, pattern, handler in ROUTES:
            found = pattern.fullmatch(path)
            if found and method == self.command:
                try:
                    return 200, getattr(self.fake, handler)(body, query, *found.groups())
                except RefusedError as refused:
                    return refused.code, self.error(refused.code, refused.message, refused.status)
        message = f"{self.command} {path}: no such method or parent"
        return 404, self.error(404, message, "NOT_FOUND")

    def error(self, code, message, status):
        return {"error": {"code": code, "message": message, "status": status}}


@contextlib.contextmanager
def serve_vertex() -> Iterator[tuple[FakeVertex, str]]:
    """Starts the server; gives its state and its address."""
    fake = FakeVertex()
    with serve(_Handler, fake) as address:
        yield fake, address
