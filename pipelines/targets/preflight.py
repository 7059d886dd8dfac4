"""What can be known before a run is submitted, asked at once and told in one list."""

import concurrent.futures
import functools
import os
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from components.common.errors import ConfigError, FlowersError
from components.common.vertex import (
    ENDPOINT_VARIABLE,
    LOGIN,
    Vertex,
    credentials,
    no_token_now,
    translate,
)
from pipelines.targets.vertex_pipeline import images_of

_TIMEOUT = 15.0
_DIGEST = re.compile(r"(?P<host>[^/]+)/(?P<name>.+)@(?P<digest>sha256:[0-9a-f]{64})")
_MANIFESTS = ", ".join(
    f"application/vnd.{one}+json"
    for one in (
        "docker.distribution.manifest.v2",
        "oci.image.manifest.v1",
        "docker.distribution.manifest.list.v2",
        "oci.image.index.v1",
    )
)
# Google's own image of the wrapper for CustomJobs and of the e-mail; it has no digest of ours.
_FOREIGN = "gcr.io/ml-pipeline/"
_HERE = ("127.0.0.1:", "localhost:")
_WRITES = ["storage.objects.create", "storage.objects.get", "storage.objects.list"]


def find_problems(spec: dict[str, Any], root: str, ask: Callable[[], None]) -> list[str]:
    """Everything that is missing, each in one line; none when the run can be submitted.

    Args:
        spec: The compiled pipeline.
        root: Folder for the outputs of the steps; only one that starts with `gs://` is asked for.
        ask: Raises where the backend does not answer.
    """
    problems = _unpinned(spec)
    images = [one for one in sorted(images_of(spec)) if _can_ask(one)]
    in_bucket = root.startswith("gs://")
    try:
        token = _token() if in_bucket or not all(map(_is_here, images)) else ""
    except FlowersError as error:
        # Without a credential no other question would be answered.
        if isinstance(error, ConfigError) or problems:
            return [*problems, str(error)]
        raise
    checks = [ask, *([lambda: _check_bucket(root)] if in_bucket else [])]
    checks += [functools.partial(_check_image, image, token) for image in images]
    with concurrent.futures.ThreadPoolExecutor(len(checks)) as pool:
        for answer in [pool.submit(check) for check in checks]:
            try:
                answer.result()
            except FlowersError as error:
                problems.append(str(error))
    return list(dict.fromkeys(problems))


def _can_ask(image: str) -> bool:
    """Whether the registry of an image takes Google's credential, or asks for none."""
    found = _DIGEST.fullmatch(image)
    if not found:
        return False
    host = found["host"]
    return host == "gcr.io" or host.endswith((".pkg.dev", ".gcr.io")) or _is_here(image)


def _is_here(image: str) -> bool:
    """Whether a registry is on this machine: it needs no credential, and gets none."""
    return image.startswith(_HERE)


def _unpinned(spec: dict[str, Any]) -> list[str]:
    images = sorted(one for one in images_of(spec) if not one.startswith(_FOREIGN))
    return [
        f"image {image} is not named by its digest, and the cache would take old results "
        "for new code: flowers images build --push, then --image-lock"
        for image in images
        if not _DIGEST.fullmatch(image)
    ]


def _token() -> str:
    """A token of the user, which shows that the credentials are valid."""
    endpoint = os.environ.get(ENDPOINT_VARIABLE, "")
    found = credentials(endpoint)
    if endpoint:
        return ""
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request

    try:
        found.refresh(Request())
    except GoogleAuthError as error:
        text = " ".join(str(error).split())[:200]
        if no_token_now(error):
            raise FlowersError(f"Google does not answer ({text}); try again later") from error
        raise ConfigError(f"the Google credential is not valid ({text}); {LOGIN}") from error
    return str(found.token)


def check_api(vertex: Vertex) -> None:
    """Asks Vertex AI for its runs.

    Raises:
        ConfigError: It does not answer.
    """
    client = vertex.client("PipelineServiceClient")
    try:
        client.list_pipeline_jobs(
            request={"parent": vertex.parent, "page_size": 1}, timeout=_TIMEOUT, retry=None
        )
    except Exception as error:
        problem = translate(error)
        raise ConfigError(
            f"Vertex AI of project {vertex.project} in {vertex.region}: {problem}; enable it with "
            f"`gcloud services enable aiplatform.googleapis.com --project {vertex.project}`"
        ) from error


def _check_bucket(place: str) -> None:
    """Asks whether the bucket is there and may be written, in one request."""
    import requests
    from google.api_core import exceptions
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import storage

    bucket = urlsplit(place).netloc
    emulated = os.environ.get("STORAGE_EMULATOR_HOST")
    options: dict[str, Any] = {"project": "none"}
    if emulated:
        options["credentials"] = AnonymousCredentials()
    try:
        client = storage.Client(**options)
        held = client.bucket(bucket).test_iam_permissions(_WRITES, timeout=_TIMEOUT, retry=None)
    except exceptions.NotFound as error:
        raise ConfigError(
            f"--pipeline-root {place}: there is no bucket {bucket}; make it with "
            f"`gcloud storage buckets create gs://{bucket}`"
        ) from error
    except (exceptions.GoogleAPICallError, requests.RequestException, GoogleAuthError) as error:
        raise ConfigError(f"--pipeline-root {place}: {translate(error)}") from error
    lacking = [one for one in _WRITES if one not in held]
    if lacking:
        raise ConfigError(
            f"--pipeline-root {place}: you lack {', '.join(lacking)}; ask for the role Storage "
            f"Object User on gs://{bucket}"
        )


def _check_image(image: str, token: str) -> None:
    """Asks the registry for the manifest; a registry on this machine speaks plain HTTP."""
    import requests

    found = _DIGEST.fullmatch(image)
    assert found
    local = _is_here(image)
    url = f"http{'' if local else 's'}://{found['host']}/v2/{found['name']}/manifests"
    asks = {"Authorization": f"Bearer {token}"} if token and not local else {}
    headers = {"Accept": _MANIFESTS} | asks
    try:
        answer = requests.head(
            f"{url}/{found['digest']}", headers=headers, timeout=_TIMEOUT, allow_redirects=True
        )
    except requests.RequestException as error:
        raise ConfigError(f"image {image}: its registry does not answer ({error})") from error
    if answer.status_code in {401, 403}:
        raise ConfigError(
            f"image {image}: no permission to read it; ask for the role Artifact Registry Reader"
        )
    if answer.status_code != 200:
        raise ConfigError(
            f"image {image} is not in its registry (status {answer.status_code}); push it with "
            "flowers images build --push"
        )
