"""A local server that speaks the REST of Kubeflow Pipelines, keeps state, and can be told to fail.

It refuses what the real one refuses: a pipeline that is none, a cron that robfig/cron 1.2 cannot
read, an experiment that is absent, a concurrency out of range, an unknown field of a request.
Faults are given per request, by its number.
"""

import contextlib
import datetime
import json
import re
import threading
import uuid
import zoneinfo
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.fakes.servers import FakeHandler, serve

FAULTS = ("500", "503", "lost")
# Field of a cron -> its least and greatest number, seconds first.
_CRON = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_NAMES = {
    4: ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    5: ["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
}
_RUN_FIELDS = {
    *("display_name", "experiment_id", "pipeline_spec", "runtime_config", "service_account"),
}
_RECURRING_FIELDS = _RUN_FIELDS | {"trigger", "mode", "max_concurrency", "no_catchup"}


class RefusedError(Exception):
    """What the server answers in place of a result."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code, self.message = code, message


class FakeKubeflow:
    """The state of one installation.

    Attributes:
        faults: Number of a request -> its fault; counted from 0.
        token: What a request must show; empty for nothing.
        multi_user: Whether every list needs a namespace.
        page: What is answered to everything, in place of JSON; empty for nothing.
    """

    def __init__(self):
        self.experiments, self.runs, self.recurring = {}, {}, {}
        self.faults, self.requests, self.bodies = {}, [], []
        self.token, self.multi_user, self.page = "", False, ""
        self.lock = threading.RLock()
        self.clock = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)

    def advance(self, run):
        """Nothing by itself; a test replaces it to play a run."""

    def now(self):
        self.clock += datetime.timedelta(seconds=1)
        return self.clock.isoformat().replace("+00:00", "Z")

    def healthz(self, _body, _query):
        return {"multi_user": self.multi_user}

    # Experiments.

    def list_experiments(self, _body, query):
        return self.page_of("experiments", self.experiments, query)

    def create_experiment(self, body, _query):
        if not body.get("display_name"):
            raise RefusedError(400, "display_name is missing")
        if any(one["display_name"] == body["display_name"] for one in self.experiments.values()):
            raise RefusedError(409, "an experiment of that name exists")
        return self.add(self.experiments, "experiment_id", body)

    # Runs.

    def create_run(self, body, _query):
        self.check(body, _RUN_FIELDS)
        return self.add(self.runs, "run_id", body | {"state": "PENDING"})

    def list_runs(self, _body, query):
        return self.page_of("runs", self.runs, query)

    def get_run(self, _body, _query, key):
        if key not in self.runs:
            raise RefusedError(404, f"run {key} not found")
        answer = json.loads(json.dumps(self.runs[key]))
        self.advance(self.runs[key])
        return answer

    # Recurring runs.

    def create_recurring(self, body, _query):
        self.check(body, _RECURRING_FIELDS)
        check_cron(body["trigger"]["cron_schedule"]["cron"])
        if not 1 <= int(body["max_concurrency"]) <= 10:
            raise RefusedError(400, "max concurrency must be between 1 and 10")
        status = "ENABLED" if body["mode"] == "ENABLE" else "DISABLED"
        return self.add(self.recurring, "recurring_run_id", body | {"status": status})

    def list_recurring(self, _body, query):
        return self.page_of("recurringRuns", self.recurring, query)

    def schedule(self, key):
        if key not in self.recurring:
            raise RefusedError(404, f"recurring run {key} not found")
        return self.recurring[key]

    def get_recurring(self, _body, _query, key):
        return self.schedule(key)

    def enable(self, _body, _query, key):
        self.schedule(key)["status"] = "ENABLED"
        return {}

    def disable(self, _body, _query, key):
        self.schedule(key)["status"] = "DISABLED"
        return {}

    def delete_recurring(self, _body, _query, key):
        self.schedule(key)
        del self.recurring[key]
        return {}

    # What they share.

    def check(self, body, fields):
        if set(body) - fields:
            raise RefusedError(400, f"unknown fields {sorted(set(body) - fields)}")
        if body.get("experiment_id") not in self.experiments:
            raise RefusedError(404, "the experiment is not found")
        check_pipeline(body["pipeline_spec"])

    def add(self, place, key, body):
        name = str(uuid.uuid4())
        place[name] = body | {key: name, "created_at": self.now()}
        return place[name]

    def page_of(self, key, place, query):
        found = self.select(place, query)
        start, size = int(query.get("page_token") or 0), int(query.get("page_size") or 10)
        more = {"next_page_token": str(start + size)} if start + size < len(found) else {}
        return {key: found[start : start + size]} | more

    def select(self, place, query):
        if self.multi_user and not (query.get("namespace") or query.get("experiment_id")):
            raise RefusedError(400, "a namespace is required in multi-user mode")
        wanted = {}
        if "filter" in query:
            (predicate,) = json.loads(query["filter"])["predicates"]
            assert predicate["operation"] in {"EQUALS", 1}
            wanted[predicate["key"]] = predicate["stringValue"]
        if query.get("experiment_id"):
            wanted["experiment_id"] = query["experiment_id"]
        return [one for one in place.values() if all(one.get(key) == wanted[key] for key in wanted)]


def check_pipeline(package):
    """Reads both documents of a package with the messages of the real backend."""
    try:
        spec = package.get("pipeline_spec", package)
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        platforms = package.get("platform_spec", {}).get("platforms", {})
        executors = platforms.get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
        for one in executors.values():
            json_format.ParseDict(one, kubernetes_pb2.KubernetesExecutorConfig())
    except json_format.ParseError as error:
        raise RefusedError(400, f"invalid pipeline spec: {error}") from None
    if set(executors) - set(spec["deploymentSpec"]["executors"]):
        raise RefusedError(400, "the platform spec names executors that there are not")


def check_cron(text):
    """Refuses what Parse of robfig/cron 1.2.0 refuses."""
    if text.startswith("TZ="):
        zone, _, text = text.removeprefix("TZ=").partition(" ")
        try:
            zoneinfo.ZoneInfo(zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError):
            raise RefusedError(400, f"provided bad location {zone}") from None
    fields = text.split()
    if len(fields) != 6:
        raise RefusedError(400, f"expected 6 fields, found {len(fields)}: {text}")
    for number, field in enumerate(fields):
        for term in field.split(","):
            check_term(number, term)


def check_term(number, term):
    low, high = _CRON[number]
    body, slash, step = term.partition("/")
    if slash and not (step.isdigit() and int(step) > 0):
        raise RefusedError(400, f"step of {term}")
    if body in {"*", "?"}:
        return
    ends = body.split("-")
    names = _NAMES.get(number, [])
    values = [
        names.index(one.lower()) + low if one.lower() in names else int(one)
        for one in ends
        if one.lower() in names or one.isdigit()
    ]
    ordered = len(values) == len(ends) <= 2 and low <= values[0] <= values[-1] <= high
    if not ordered:
        raise RefusedError(400, f"field {number} of a cron is out of range: {term}")


_ID = r"([0-9a-f-]{36})"
ROUTES = [
    (method, re.compile(f"/apis/v2beta1/{path}"), handler)
    for method, path, handler in [
        ("GET", "healthz", "healthz"),
        ("GET", "experiments", "list_experiments"),
        ("POST", "experiments", "create_experiment"),
        ("POST", "runs", "create_run"),
        ("GET", "runs", "list_runs"),
        ("GET", f"runs/{_ID}", "get_run"),
        ("POST", "recurringruns", "create_recurring"),
        ("GET", "recurringruns", "list_recurring"),
        ("GET", f"recurringruns/{_ID}", "get_recurring"),
        ("DELETE", f"recurringruns/{_ID}", "delete_recurring"),
        ("POST", f"recurringruns/{_ID}:enable", "enable"),
        ("POST", f"recurringruns/{_ID}:disable", "disable"),
    ]
]


class _Handler(FakeHandler):
    def result(self, path, body, query):
        self.fake.bodies.append(body)
        shown = self.headers.get("authorization", "")
        if self.fake.token and shown != f"Bearer {self.fake.token}":
            return 401, self.error(401, "the token is not valid", "UNAUTHENTICATED")
        for method, pattern, handler in ROUTES:
            found = pattern.fullmatch(path)
            if found and method == self.command:
                try:
                    return 200, getattr(self.fake, handler)(body, query, *found.groups())
                except RefusedError as refused:
                    return refused.code, self.error(refused.code, refused.message, "")
        return 404, self.error(404, f"{self.command} {path}: no such method", "NOT_FOUND")

    def error(self, code, message, _status):
        return {"code": code, "message": message}

    def render(self, content):
        return self.fake.page or super().render(content)


@contextlib.contextmanager
def serve_kubeflow() -> Iterator[tuple[Any, str]]:
    """Starts the server; gives its state and its address."""
    fake = FakeKubeflow()
    with serve(_Handler, fake) as address:
        yield fake, address
