"""Makes a JobSet or a TrainJob, shows what its pods print, waits, and takes it away again."""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from components.common.errors import ConfigError, FlowersError, UserError
from components.common.patience import PATIENT, Patience, Service
from components.common.progress import say
from components.common.step import parse_failure
from components.train_model.jobset import INDEX_ANNOTATION, JOBSET, NAME_LABEL, Kind
from components.train_model.trainjob import RUNTIME, TRAINJOB

STEP = "train-model"
_KINDS = {kind.name: kind for kind in (JOBSET, TRAINJOB, RUNTIME)}
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PASSES = {408, 429, 500, 502, 503, 504}
# Log lines are asked for again over this time, since answers and clocks are not exact; in seconds.
_OVERLAP = 30


class Kubernetes(Service):
    """The API server of the cluster that this pod runs in.

    Args:
        client: An `ApiClient`; None for the service account of this pod.
        patience: How long to wait.
    """

    title = "Kubernetes"

    def __init__(self, client: Any = None, patience: Patience = PATIENT) -> None:
        super().__init__(patience)
        from kubernetes import client as api
        from kubernetes import config

        if client is None:
            try:
                config.load_incluster_config()
            except config.ConfigException as error:
                raise ConfigError(
                    f"several hosts: expected to run in a pod of Kubernetes ({error}); a slice of "
                    "one host needs none"
                ) from error
        self._custom = api.CustomObjectsApi(client)
        self._core = api.CoreV1Api(client)
        self._groups = api.ApisApi(client)

    def may_pass(self, error: Exception) -> bool:
        """Whether the server or the way to it failed, and not the request."""
        from urllib3.exceptions import HTTPError

        return isinstance(error, HTTPError) or getattr(error, "status", None) in _PASSES

    def is_taken(self, error: Exception) -> bool:
        """Whether there is such a thing already."""
        return getattr(error, "status", None) == 409

    def translate(self, error: Exception) -> FlowersError:
        """One line that says what to do."""
        status = getattr(error, "status", None)
        reason = " ".join(str(getattr(error, "reason", error)).split())[:200]
        if status == 403:
            return ConfigError(
                "Kubernetes: the service account of this pod may not do that (403); give it the "
                "role of docs/gke-tpu.md"
            )
        if status == 404:
            return ConfigError(
                "Kubernetes: there are no JobSets or TrainJobs in this cluster (404); install them "
                "as docs/gke-tpu.md says"
            )
        return FlowersError(f"Kubernetes: {f'status {status}: ' if status else ''}{reason}")

    def finish(self, answer: Any, what: str) -> None:
        """Nothing: an answer is all there is."""

    def has(self, kind: Kind) -> bool:
        """Whether this cluster knows a kind; every account may ask that."""

        def ask() -> Any:
            return self._groups.get_api_versions(_request_timeout=self.patience.request)

        return kind.group in {group.name for group in self.repeat(ask).groups}

    def find(self, kind: Kind, namespace: str, name: str) -> dict[str, Any] | None:
        """A thing by its name; None where there is none."""

        def get() -> dict[str, Any] | None:
            from kubernetes.client import ApiException

            try:
                found: dict[str, Any] = self._custom.get_namespaced_custom_object(
                    kind.group,
                    kind.version,
                    namespace,
                    kind.plural,
                    name,
                    _request_timeout=self.patience.request,
                )
            except ApiException as error:
                if error.status == 404:
                    return None
                raise
            return found

        return self.repeat(get)

    def create(self, manifest: dict[str, Any]) -> None:
        """Makes a thing, once, however often the answer is lost."""
        kind, namespace, name = _identity(manifest)
        self.change(
            lambda: self.find(kind, namespace, name),
            lambda: self._custom.create_namespaced_custom_object(
                kind.group,
                kind.version,
                namespace,
                kind.plural,
                manifest,
                _request_timeout=self.patience.request,
            ),
            f"creation of the {kind.name}",
        )

    def delete(self, manifest: dict[str, Any]) -> None:
        """Deletes a thing and what belongs to it; one that is gone is fine."""
        kind, namespace, name = _identity(manifest)

        def call() -> None:
            from kubernetes.client import ApiException

            try:
                self._custom.delete_namespaced_custom_object(
                    kind.group,
                    kind.version,
                    namespace,
                    kind.plural,
                    name,
                    propagation_policy="Foreground",
                    _request_timeout=self.patience.request,
                )
            except ApiException as error:
                if error.status != 404:
                    raise

        self.repeat(call)

    def pods(self, namespace: str, name: str) -> list[Any]:
        """The pods of a JobSet, by host."""

        def ask() -> Any:
            return self._core.list_namespaced_pod(
                namespace,
                label_selector=f"{NAME_LABEL}={name}",
                _request_timeout=self.patience.request,
            )

        return sorted(self.repeat(ask).items, key=host_of)

    def log(self, namespace: str, pod: str, seconds: int) -> list[tuple[str, str]]:
        """What a pod printed in the last seconds, each line with its time."""

        def ask() -> str:
            from kubernetes.client import ApiException

            try:
                text: str = self._core.read_namespaced_pod_log(
                    pod,
                    namespace,
                    since_seconds=seconds,
                    timestamps=True,
                    _request_timeout=self.patience.request,
                )
            except ApiException as error:
                # The pod is gone, or has no container yet.
                if error.status in {400, 404}:
                    return ""
                raise
            return text

        lines = (line.partition(" ") for line in (self.repeat(ask) or "").splitlines())
        return [(stamp, text) for stamp, _, text in lines]


def _identity(manifest: dict[str, Any]) -> tuple[Kind, str, str]:
    """Kind, namespace and name of a manifest."""
    metadata = manifest["metadata"]
    return _KINDS[manifest["kind"]], metadata["namespace"], metadata["name"]


def host_of(pod: Any) -> int:
    """Which host a pod is."""
    return int((pod.metadata.annotations or {}).get(INDEX_ANNOTATION, 0))


@dataclasses.dataclass
class _Logs:
    """Shows what pods print, each line once."""

    kubernetes: Kubernetes
    namespace: str
    seen: dict[str, str] = dataclasses.field(default_factory=dict)
    last: dict[int, str] = dataclasses.field(default_factory=dict)
    began: float = dataclasses.field(default_factory=time.monotonic)
    asked: dict[str, float] = dataclasses.field(default_factory=dict)

    def show(self, pods: list[Any]) -> None:
        """Prints what is new; host 0 speaks for all, the others under their number."""
        for pod in pods:
            if pod.status.phase in {None, "Pending", "Unknown"}:
                continue
            name, host, now = pod.metadata.name, host_of(pod), time.monotonic()
            span = _OVERLAP + int(now - self.asked.get(name, self.began))
            try:
                lines = self.kubernetes.log(self.namespace, name, span)
            except UserError:
                raise
            except FlowersError:
                # A node that no longer answers; whether its host is lost, the JobSet says.
                continue
            self.asked[name] = now
            for stamp, text in lines:
                if stamp > self.seen.get(name, ""):
                    self.seen[name] = stamp
                    self.last[host] = text
                    print(text if host == 0 else f"[host {host}] {text}", flush=True)


def run_hosts(kubernetes: Kubernetes, manifests: list[dict[str, Any]]) -> None:
    """Makes what trains on several hosts, waits for its end and deletes it, whatever happens.

    Args:
        kubernetes: The API server.
        manifests: What to make, in that order; the last is a JobSet, or is made one of its name.

    Raises:
        FlowersError: It failed; names the host and what it said.
        UserError: The same, where it is a mistake of the user.
        KeyboardInterrupt: This process was told to end.
    """
    kind, namespace, name = _identity(manifests[-1])
    title = f"{kind.name} {namespace}/{name}"
    logs = _Logs(kubernetes, namespace)
    with _ended_by_sigterm():
        try:
            for manifest in manifests:
                kubernetes.create(manifest)
            say(STEP, f"{title}: waits for its hosts")
            _wait(kubernetes, manifests[-1], logs)
        finally:
            for manifest in reversed(manifests):
                kubernetes.delete(manifest)
            say(STEP, f"{title}: deleted")


def _wait(kubernetes: Kubernetes, manifest: dict[str, Any], logs: _Logs) -> None:
    kind, namespace, name = _identity(manifest)
    restarts = 0
    while True:
        found = kubernetes.find(kind, namespace, name)
        if found is None:
            raise FlowersError(f"{kind.name} {namespace}/{name}: somebody deleted it; submit again")
        pods = kubernetes.pods(namespace, name)
        logs.show(pods)
        if _condition(found, kind.done):
            return
        if reason := _condition(found, "Failed"):
            raise _failure(kind, pods, logs, reason)
        # Only the JobSet counts them, and that of a TrainJob is not there at once.
        jobset = found if kind == JOBSET else kubernetes.find(JOBSET, namespace, name) or {}
        if (again := jobset.get("status", {}).get("restarts", 0)) > restarts:
            restarts = again
            say(STEP, f"a host was lost; all start anew from the last checkpoint ({restarts})")
        time.sleep(kubernetes.patience.poll)


def _condition(found: dict[str, Any], name: str) -> str:
    """Why a condition holds; empty where it does not."""
    for one in found.get("status", {}).get("conditions", []):
        if one["type"] == name and one["status"] == "True":
            return str(one.get("message") or one.get("reason") or name)
    return ""


def _failure(kind: Kind, pods: list[Any], logs: _Logs, reason: str) -> FlowersError:
    """What to say of hosts that failed: the first host that ended badly, and its last words."""
    ended = [(pod, state) for pod in pods if (state := _terminated(pod)) and state.exit_code]
    # A host that is told to end because another is lost is not the reason.
    ended.sort(key=lambda one: (one[1].exit_code in {137, 143}, str(one[1].finished_at)))
    if not ended:
        lost = next((pod for pod in pods if pod.status.phase in {"Failed", "Unknown"}), None)
        if lost is None:
            return FlowersError(f"the {kind.name} failed: {' '.join(reason.split())}")
        why = lost.status.reason or "its node is gone"
        return FlowersError(f"host {host_of(lost)} was lost ({why}); submit again to go on")
    pod, state = ended[0]
    said = logs.last.get(host_of(pod)) or (state.message or "").strip().splitlines()[-1:]
    line = said if isinstance(said, str) else "".join(said)
    if failure := parse_failure(line):
        error = UserError if failure.exit_code == 2 else FlowersError
        return error(f"host {host_of(pod)}: {failure.message}")
    why = state.reason or "Error"
    return FlowersError(
        f"host {host_of(pod)} ended with exit code {state.exit_code} ({why}): {line or reason}"
    )


def _terminated(pod: Any) -> Any:
    statuses = pod.status.container_statuses or []
    return statuses[0].state.terminated if statuses and statuses[0].state else None


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Turns SIGTERM, with which Kubernetes ends a pod, into an interruption, for us to clean up."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def own_namespace(account: Path = _ACCOUNT) -> str:
    """The namespace of this pod.

    Raises:
        ConfigError: This is no pod of Kubernetes.
    """
    try:
        return (account / "namespace").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(
            "several hosts: expected to run in a pod of Kubernetes; a slice of one host needs none"
        ) from error
