"""Vertex AI: where it is, who asks, and requests that may fail once and change nothing twice.

Calls go through the generated REST clients of google-cloud-aiplatform, which are imported when they
are needed. `FLOWERS_VERTEX_ENDPOINT=http://127.0.0.1:PORT` turns every call to a local server, with
anonymous credentials; it is there for tests.

A reading call is tried again whenever the fault may pass. A changing call is not: its answer may
have been lost after the change was made. `Vertex.ensure` looks at the world in between.
"""

import dataclasses
import functools
import os
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from components.common.errors import ConfigError, FlowersError

T = TypeVar("T")
ENDPOINT_VARIABLE = "FLOWERS_VERTEX_ENDPOINT"
SCHEME = "vertex://"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_PROJECT = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]")
LOGIN = (
    "run `gcloud auth application-default login`, or name a key file in "
    "GOOGLE_APPLICATION_CREDENTIALS"
)
# Regions of Vertex AI; source: cloud.google.com/vertex-ai/docs/general/locations.
REGIONS = frozenset(
    {
        "africa-south1",
        "asia-east1",
        "asia-east2",
        "asia-northeast1",
        "asia-northeast2",
        "asia-northeast3",
        "asia-south1",
        "asia-southeast1",
        "asia-southeast2",
        "australia-southeast1",
        "australia-southeast2",
        "europe-central2",
        "europe-north1",
        "europe-southwest1",
        "europe-west1",
        "europe-west2",
        "europe-west3",
        "europe-west4",
        "europe-west6",
        "europe-west8",
        "europe-west9",
        "europe-west12",
        "me-central1",
        "me-central2",
        "me-west1",
        "northamerica-northeast1",
        "northamerica-northeast2",
        "southamerica-east1",
        "southamerica-west1",
        "us-central1",
        "us-east1",
        "us-east4",
        "us-east5",
        "us-south1",
        "us-west1",
        "us-west2",
        "us-west3",
        "us-west4",
    }
)


def check_project(project: str) -> None:
    """Refuses what cannot be a project's id.

    Raises:
        ConfigError: Says what was expected.
    """
    if not _PROJECT.fullmatch(project):
        raise ConfigError(f"project: expected a project's id such as my-project, got {project!r}")


def check_region(region: str) -> None:
    """Refuses a region that Vertex AI is not in.

    Raises:
        ConfigError: Names those near by.
    """
    if region not in REGIONS:
        area = region.partition("-")[0]
        near = sorted(one for one in REGIONS if one.startswith(area)) or sorted(REGIONS)
        raise ConfigError(
            f"region: expected a region of Vertex AI such as {', '.join(near[:4])}, got {region!r}"
        )


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long to wait for the service.

    Attributes:
        request: For one answer, in seconds.
        first_wait: Before the second try, in seconds; each later wait is twice as long.
        tries: How often a request is sent.
        operation: For an operation that the service works on, in seconds.
        poll: Between two looks at an operation, in seconds.
        settle: How long a change whose answer was lost may take to show, in seconds.
    """

    request: float = 60.0
    first_wait: float = 1.0
    tries: int = 6
    operation: float = 3600.0
    poll: float = 5.0
    settle: float = 20.0


PATIENT = Patience()


class Vertex:
    """The clients for one project and region."""

    def __init__(self, project: str, region: str, patience: Patience = PATIENT) -> None:
        check_project(project)
        check_region(region)
        self.project = project
        self.region = region
        self.patience = patience
        self.parent = f"projects/{project}/locations/{region}"

    def client(self, name: str) -> Any:
        """A generated client, e.g. `EndpointServiceClient`."""
        return _client(name, self.region, os.environ.get(ENDPOINT_VARIABLE, ""))

    def read(self, method: Callable[..., T], request: Any) -> T:
        """Calls a method that changes nothing, again when a fault may pass.

        Raises:
            FlowersError: See `translate`.
        """
        for attempt in range(self.patience.tries):
            try:
                return method(request=request, timeout=self.patience.request, retry=None)
            except Exception as error:
                if not may_pass(error) or attempt == self.patience.tries - 1:
                    raise translate(error) from error
                self._wait(attempt)
        raise AssertionError("there is at least one try")

    def find(self, method: Callable[..., T], request: Any) -> T | None:
        """As `read`; None where the thing does not exist."""
        try:
            return self.read(method, request)
        except NotFoundError:
            return None

    def ensure(
        self, done: Callable[[], T | None], method: Callable[..., Any], request: Any, what: str
    ) -> T:
        """Makes a change, once.

        Args:
            done: Looks at the world; not None once the change is there.
            method: The changing call; may return an operation.
            request: What to call it with.
            what: The change in words, for messages.

        Returns:
            What `done` found.

        Raises:
            FlowersError: The change was refused, or its operation ended in an error.
        """
        for attempt in range(self.patience.tries):
            try:
                answer = method(request=request, timeout=self.patience.request, retry=None)
            except Exception as error:
                exists = _exists(error)
                if not (may_pass(error) or exists):
                    raise translate(error) from error
                # The answer may have been lost on its way back, so the world is asked first.
                limit = self.patience.operation if exists else self.patience.settle
                if (found := self._settled(done, limit)) is not None:
                    return found
                if exists or attempt == self.patience.tries - 1:
                    raise translate(error) from error
                self._wait(attempt)
                continue
            self._finish(answer, what)
            if (found := self._settled(done, self.patience.settle)) is not None:
                return found
            raise FlowersError(f"{what}: Vertex AI reports success, and the change is not there")
        raise AssertionError("there is at least one try")

    def _settled(self, done: Callable[[], T | None], limit: float) -> T | None:
        """Asks `done` until it says yes, for `limit` seconds at most."""
        deadline = time.monotonic() + limit
        while (found := done()) is None and time.monotonic() < deadline:
            time.sleep(min(self.patience.poll, max(0.0, deadline - time.monotonic())))
        return found

    def _finish(self, answer: Any, what: str) -> None:
        """Waits for the operation of an answer that has one."""
        name = getattr(getattr(answer, "operation", None), "name", "")
        if not name:
            return
        from google.longrunning import operations_pb2

        client = self.client("ModelServiceClient")
        deadline = time.monotonic() + self.patience.operation
        while True:
            operation = self.read(
                client.get_operation, operations_pb2.GetOperationRequest(name=name)
            )
            if operation.HasField("error"):
                raise FlowersError(f"{what}: Vertex AI ended it: {operation.error.message}")
            if operation.done:
                return
            if time.monotonic() > deadline:
                raise FlowersError(
                    f"{what}: not done after {self.patience.operation:.0f} s; see {name}"
                )
            time.sleep(self.patience.poll)

    def _wait(self, attempt: int) -> None:
        time.sleep(self.patience.first_wait * 2**attempt)


class NotFoundError(FlowersError):
    """There is no such thing in this project and region."""


def _exists(error: Exception) -> bool:
    """Whether an id is taken: by us, when an earlier answer was lost."""
    from google.api_core import exceptions

    return isinstance(error, exceptions.Conflict)


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed in a while."""
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import TransportError

    passing = (
        exceptions.TooManyRequests,
        exceptions.InternalServerError,
        exceptions.BadGateway,
        exceptions.ServiceUnavailable,
        exceptions.GatewayTimeout,
        exceptions.Aborted,
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
        TransportError,
    )
    return isinstance(error, passing)


def translate(error: Exception) -> FlowersError:
    """What Google's client raised, as one line that says what to do."""
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    text = " ".join(str(getattr(error, "message", "") or error).split())[:300]
    if isinstance(error, FlowersError):
        return error
    if isinstance(error, exceptions.NotFound):
        return NotFoundError(f"Vertex AI knows of no such thing: {text}")
    if isinstance(error, (exceptions.Unauthorized, GoogleAuthError)):
        return ConfigError(f"no valid Google credential ({text}); {LOGIN}")
    if isinstance(error, exceptions.Forbidden):
        return ConfigError(f"no permission ({text}); docs/vertex.md lists the roles")
    if isinstance(error, exceptions.BadRequest):
        return ConfigError(f"Vertex AI refuses the request: {text}")
    if isinstance(error, (exceptions.GoogleAPICallError, requests.RequestException)):
        return FlowersError(f"Vertex AI does not answer as it should ({text}); try again later")
    raise error


def credentials(endpoint: str) -> Any:
    """The user's credentials, or anonymous ones for a local server.

    Raises:
        ConfigError: There are none.
    """
    from google.auth import default
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import DefaultCredentialsError

    if endpoint:
        return AnonymousCredentials()
    try:
        found, _ = default(scopes=[_SCOPE])
    except DefaultCredentialsError as error:
        raise ConfigError(f"no Google credential is set up: {LOGIN}") from error
    return found


@functools.cache
def _client(name: str, region: str, endpoint: str) -> Any:
    import importlib.util

    if importlib.util.find_spec("google.cloud.aiplatform_v1") is None:
        raise ConfigError("Google's client is not installed: pip install 'flowers[vertex]'")
    from google.cloud import aiplatform_v1

    return getattr(aiplatform_v1, name)(
        credentials=credentials(endpoint),
        transport="rest",
        client_options={"api_endpoint": endpoint or f"{region}-aiplatform.googleapis.com"},
    )
