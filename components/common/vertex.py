"""Vertex AI: where it is, who asks, and how its requests fail.

Calls go through the generated REST clients of google-cloud-aiplatform, which are imported when they
are needed. `FLOWERS_VERTEX_ENDPOINT=http://127.0.0.1:PORT` turns every call to a local server, with
anonymous credentials; it is there for tests.
"""

import functools
import os
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from components.common.errors import ConfigError, FlowersError
from components.common.extras import how_to_install
from components.common.patience import (
    PATIENT,
    NotFoundError,
    Patience,
    Service,
    UnfinishedError,
)

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
        raise ConfigError(
            f"project: expected a project's id such as my-project, received {project!r}"
        )


def check_region(region: str) -> None:
    """Refuses a region that Vertex AI is not in.

    Raises:
        ConfigError: Names those near by.
    """
    if region not in REGIONS:
        area = region.partition("-")[0]
        near = sorted(one for one in REGIONS if one.startswith(area)) or sorted(REGIONS)
        raise ConfigError(
            f"region: expected a region of Vertex AI such as {', '.join(near[:4])}, received "
            f"{region!r}"
        )


class Vertex(Service):
    """The clients for one project and region."""

    title = "Vertex AI"

    def __init__(self, project: str, region: str, patience: Patience = PATIENT) -> None:
        check_project(project)
        check_region(region)
        super().__init__(patience)
        self.project = project
        self.region = region
        self.parent = f"projects/{project}/locations/{region}"

    def client(self, name: str) -> Any:
        """A generated client, e.g. `EndpointServiceClient`."""
        return _client(name, self.region, os.environ.get(ENDPOINT_VARIABLE, ""))

    def read(self, method: Callable[..., T], request: Any) -> T:
        """Calls a method that changes nothing, again when a fault may pass.

        Raises:
            FlowersError: See `translate`.
        """
        return self.repeat(lambda: self._send(method, request))

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
        return self.change(done, lambda: self._send(method, request), what)

    def _send(self, method: Callable[..., T], request: Any) -> T:
        return method(request=request, timeout=self.patience.request, retry=None)

    def finish(self, answer: Any, what: str) -> None:
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
                raise UnfinishedError(
                    f"{what}: not done after {self.patience.operation:.0f} s; see {name}"
                )
            time.sleep(self.patience.poll)

    def may_pass(self, error: Exception) -> bool:
        """Whether the same request may succeed in a while."""
        return may_pass(error)

    def is_taken(self, error: Exception) -> bool:
        """Whether an id is taken: by us, when an earlier answer was lost."""
        from google.api_core import exceptions

        return isinstance(error, exceptions.Conflict) and not _is_aborted(error)

    def translate(self, error: Exception) -> FlowersError:
        """See the function of that name."""
        return translate(error)


def _is_aborted(error: Exception) -> bool:
    """Whether a conflict is that of two changes at once, and not of an id that is taken.

    Over REST both are 409, and the client has one exception for them.
    """
    try:
        status = error.response.json()["error"]["status"]  # type: ignore[attr-defined]
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    return bool(status == "ABORTED")


def no_token_now(error: Exception) -> bool:
    """Whether nobody could be asked for a token, which says nothing of the credential."""
    from google.auth.exceptions import GoogleAuthError, TransportError

    # Those of machines in the cloud raise another from it.
    return isinstance(error, GoogleAuthError) and (
        isinstance(error, TransportError)
        or isinstance(error.__cause__, TransportError)
        or bool(error.retryable)
    )


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed in a while."""
    import requests
    from google.api_core import exceptions

    passing = (
        exceptions.TooManyRequests,
        exceptions.InternalServerError,
        exceptions.BadGateway,
        exceptions.ServiceUnavailable,
        exceptions.GatewayTimeout,
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
    )
    return isinstance(error, passing) or _is_aborted(error) or no_token_now(error)


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
    unanswered = no_token_now(error)
    if isinstance(error, (exceptions.Unauthorized, GoogleAuthError)) and not unanswered:
        return ConfigError(f"no valid Google credential ({text}); {LOGIN}")
    if isinstance(error, exceptions.Forbidden):
        return ConfigError(f"no permission ({text}); docs/vertex.md lists the roles")
    if isinstance(error, exceptions.BadRequest):
        return ConfigError(f"Vertex AI refuses the request: {text}")
    if unanswered or isinstance(error, (exceptions.GoogleAPICallError, requests.RequestException)):
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
        raise ConfigError(f"Google's client is not installed: {how_to_install('vertex')}")
    from google.cloud import aiplatform_v1

    return getattr(aiplatform_v1, name)(
        credentials=credentials(endpoint),
        transport="rest",
        client_options={"api_endpoint": endpoint or f"{region}-aiplatform.googleapis.com"},
    )
