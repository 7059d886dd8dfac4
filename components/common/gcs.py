"""Google Cloud Storage: one client for a process, every fault retried or said in one line.

What may pass (429, 5xx, a reset or stalled connection, a body that is cut or whose CRC32C is wrong)
is tried again with exponential back-off until `deadline` has passed. What will not pass by itself
(no such bucket, no permission, no valid credential) ends at once with one line.

`STORAGE_EMULATOR_HOST` turns the client to an emulator, as for every Google client.
"""

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from components.common.errors import ConfigError, DataError, FlowersError

T = TypeVar("T")
SCHEME = "gs://"
_PLACE = re.compile(r"gs://(?P<bucket>[a-z0-9][a-z0-9._-]{1,221})(?:/(?P<name>.*))?", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long to wait for the service.

    Attributes:
        connect: For a connection, in seconds.
        read: For the next bytes of an answer, in seconds.
        first_wait: Before the second try, in seconds; each later wait is longer.
        deadline: For all tries of one request, in seconds.
    """

    connect: float = 10.0
    read: float = 30.0
    first_wait: float = 0.5
    deadline: float = 180.0


PATIENT = Patience()


class Blob(NamedTuple):
    """An object as a listing shows it.

    Attributes:
        name: Its name in the bucket.
        size: In bytes.
        crc32c: Base64, as the service gives it; empty where it gives none.
    """

    name: str
    size: int
    crc32c: str


class BlobNotFoundError(Exception):
    """There is no such object, or no longer."""


def split_place(place: str) -> tuple[str, str]:
    """Bucket and name of `gs://bucket/name`; the name may be empty.

    Raises:
        ConfigError: It is not of that form.
    """
    found = _PLACE.fullmatch(place)
    if not found:
        raise ConfigError(f"{place}: expected gs://BUCKET/NAME")
    return found["bucket"], found["name"] or ""


def list_blobs(place: str) -> Iterator[Blob]:
    """Lists every object whose name starts with that of `place`, page by page, sorted.

    Raises:
        DataError: There is no such bucket, or it may not be listed.
        ConfigError: There is no valid credential.
        FlowersError: The service does not answer.
    """
    bucket, prefix = split_place(place)
    with _one_line(place, lacks_bucket=True):
        blobs = _client().list_blobs(
            bucket,
            prefix=prefix or None,
            fields="items(name,size,crc32c),nextPageToken",
            retry=_retry(),
            timeout=_timeout(),
        )
        for blob in blobs:
            yield Blob(blob.name, blob.size or 0, blob.crc32c or "")


def list_level(place: str) -> tuple[list[str], list[str]]:
    """Lists one level below a prefix that ends in `/`: names of folders, and of objects.

    Raises:
        DataError, ConfigError, FlowersError: As for `list_blobs`.
    """
    bucket, prefix = split_place(place)
    with _one_line(place, lacks_bucket=True):
        blobs = _client().list_blobs(
            bucket,
            prefix=prefix or None,
            delimiter="/",
            retry=_retry(),
            timeout=_timeout(),
        )
        names = [blob.name for blob in blobs]
        return sorted(blobs.prefixes), names


def read_blob(
    place: str,
    crc32c: str = "",
    span: tuple[int, int] | None = None,
) -> bytes:
    """Reads an object, or a part of it.

    Args:
        place: `gs://bucket/name`.
        crc32c: What its checksum must be, in base64; empty for not known.
        span: Offset and length of the part; None for all of it.

    Raises:
        BlobNotFoundError: There is no such object.
        DataError, ConfigError, FlowersError: As for `list_blobs`.
    """
    bucket, name = split_place(place)
    blob = _client().bucket(bucket).blob(name)
    limits = {"start": span[0], "end": span[0] + span[1] - 1} if span else {}

    def attempt() -> bytes:
        content: bytes = blob.download_as_bytes(
            checksum=None if span else "auto",
            retry=None,
            timeout=_timeout(),
            **limits,
        )
        _check_whole(place, content, crc32c, span)
        return content

    if span and span[1] == 0:
        return b""
    with _one_line(place):
        return _retry()(attempt)()


def write_blob(place: str, content: bytes) -> None:
    """Writes an object whole; the service compares its CRC32C. Twice is the same as once.

    Raises:
        DataError, ConfigError, FlowersError: As for `list_blobs`.
    """
    bucket, name = split_place(place)
    blob = _client().bucket(bucket).blob(name)
    with _one_line(place, lacks_bucket=True):
        _retry()(
            functools.partial(
                blob.upload_from_string,
                content,
                content_type="application/octet-stream",
                checksum="crc32c",
                retry=None,
                timeout=_timeout(),
            )
        )()


def delete_blob(place: str) -> None:
    """Removes an object; an absent one is fine."""
    bucket, name = split_place(place)
    with _one_line(place):
        try:
            _client().bucket(bucket).delete_blob(name, retry=_retry(), timeout=_timeout())
        except _google().NotFound:
            return


class _BodyError(Exception):
    """A body that is not what the service holds."""


def _check_whole(place: str, content: bytes, crc32c: str, span: tuple[int, int] | None) -> None:
    if span and len(content) != span[1]:
        raise _BodyError(f"{place}: {len(content)} bytes came in place of {span[1]}")
    if crc32c and not span and checksum(content) != crc32c:
        raise _BodyError(f"{place}: the CRC32C of the body is wrong")


def checksum(content: bytes) -> str:
    """The CRC32C as the service writes it, in base64."""
    import base64

    import google_crc32c

    return base64.b64encode(google_crc32c.Checksum(content).digest()).decode()


def _google() -> Any:
    from google.api_core import exceptions

    return exceptions


@functools.cache
def _client_of(process: int, emulator: str) -> Any:
    """The client of a process; a socket must not be shared with another one."""
    import requests
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud import storage

    try:
        client = storage.Client(project=None if not emulator else "emulated")
    except DefaultCredentialsError:
        # Public buckets need none.
        client = storage.Client.create_anonymous_client()
    except OSError as error:
        raise ConfigError(f"Google credentials cannot be read: {error}") from error
    # For its traces it would ask for each bucket, which a reader of objects may not, in a thread
    # that tries for minutes.
    client._bucket_metadata_cache = None
    adapter = requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=64)
    for scheme in ("https://", "http://"):
        client._http.mount(scheme, adapter)
    return client


def close_client() -> None:
    """Closes the connections of this process; the next request opens new ones."""
    _client().close()
    _client_of.cache_clear()


def _client() -> Any:
    return _client_of(os.getpid(), os.environ.get("STORAGE_EMULATOR_HOST", ""))


def _timeout() -> tuple[float, float]:
    return PATIENT.connect, PATIENT.read


def _retry() -> Callable[[Callable[[], T]], Callable[[], T]]:
    from google.api_core.retry import Retry
    from google.cloud.storage.exceptions import DataCorruption
    from google.cloud.storage.retry import DEFAULT_RETRY

    passing = DEFAULT_RETRY._predicate

    def may_pass(error: Exception) -> bool:
        return isinstance(error, (_BodyError, DataCorruption)) or bool(passing(error))

    retry: Any = Retry(
        predicate=may_pass,
        initial=PATIENT.first_wait,
        maximum=32 * PATIENT.first_wait,
        multiplier=2.0,
        timeout=PATIENT.deadline,
    )
    return retry  # type: ignore[no-any-return]


@contextmanager
def _one_line(place: str, lacks_bucket: bool = False) -> Iterator[None]:
    """Turns what the client raises into an error that says what to do.

    Args:
        place: What is asked for.
        lacks_bucket: Whether it lists or writes, so that only the bucket can be absent.
    """
    import requests
    from google.auth.exceptions import GoogleAuthError

    google = _google()
    bucket = f"gs://{split_place(place)[0]}"
    login = "run `gcloud auth application-default login`, or name a key file in "
    login += "GOOGLE_APPLICATION_CREDENTIALS"
    try:
        yield
    except google.NotFound as error:
        if lacks_bucket:
            raise DataError(f"{bucket}: there is no such bucket; check the name") from error
        raise BlobNotFoundError(place) from error
    except google.Forbidden as error:
        raise DataError(
            f"{place}: no permission ({_short(error)}); ask for the role Storage Object Viewer "
            f"(to write: Storage Object User) on {bucket}"
        ) from error
    except (google.Unauthorized, GoogleAuthError) as error:
        raise ConfigError(
            f"{place}: no valid Google credential ({_short(error)}); {login}"
        ) from error
    except google.RetryError as error:
        raise FlowersError(
            f"{place}: the service did not answer in time ({_short(error.cause or error)}); "
            "try again later"
        ) from error
    except (google.GoogleAPICallError, requests.RequestException) as error:
        raise FlowersError(f"{place}: cannot be read or written ({_short(error)})") from error


def _short(error: BaseException) -> str:
    """What the service says, without the address that every such message repeats."""
    code = getattr(error, "code", None)
    if code is None:
        return " ".join(str(error).split())[:200] or type(error).__name__
    details = getattr(error, "errors", None) or [{}]
    said = details[0].get("message", "") if isinstance(details[0], dict) else ""
    return f"HTTP {int(code)} {said}".strip()[:200]
