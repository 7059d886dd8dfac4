"""Retraining when new data land: a function for Cloud Run functions, fed by a bucket's Pub/Sub.

A bucket tells of every object, and a delivery may come twice, so a run is started for one marker
object only, `_READY` by default, that whoever brings the photos writes last. The run's id is made
from the marker's name and generation: a second delivery finds the run, and starts none.

Settings, from the environment of the function:

    FLOWERS_PIPELINE   YAML that flowers compile --target vertex made, beside the function
    FLOWERS_CONFIG     the target file
    FLOWERS_MARKER     name of the marker object; _READY

See docs/vertex.md for the commands that set it up.
"""

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from components.common.config import read_mapping
from components.common.errors import ConfigError
from components.common.vertex import Vertex
from pipelines.targets.target_files import load_target
from pipelines.targets.vertex import create_request, join_experiment, submit
from pipelines.targets.vertex_config import VertexTarget

_FINALIZED = "OBJECT_FINALIZE"


class NewObject(NamedTuple):
    """An object that was written to a bucket.

    Attributes:
        bucket: The bucket.
        name: Name of the object.
        generation: Number of this version of it.
    """

    bucket: str
    name: str
    generation: str


def parse_event(data: Any) -> NewObject | None:
    """Reads the Pub/Sub message of a bucket.

    Args:
        data: `data` of the CloudEvent, with the message.

    Returns:
        The object; None where the message tells of something else than a new object.

    Raises:
        ConfigError: It is no message of a bucket.
    """
    try:
        message = data["message"]
        attributes = message["attributes"]
        if attributes["eventType"] != _FINALIZED:
            return None
        content = json.loads(base64.b64decode(message.get("data", "")) or b"{}")
        generation = attributes.get("objectGeneration") or content["generation"]
        return NewObject(attributes["bucketId"], attributes["objectId"], str(generation))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"expected a bucket's Pub/Sub message, received {data!r:.200}") from error


def job_id(found: NewObject) -> str:
    """The id of the run for an object; the same for every delivery of the same event."""
    text = f"{found.bucket}/{found.name}#{found.generation}"
    return f"flowers-data-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def submit_on_new_data(event: Any) -> str | None:
    """Starts a run when a marker object lands; the entry point of the function.

    Args:
        event: CloudEvent whose `data` is a Pub/Sub message of a bucket.

    Returns:
        Resource name of the run; None where the event is not that of a marker.
    """
    found = parse_event(event.data)
    marker = os.environ.get("FLOWERS_MARKER", "_READY")
    if found is None or found.name.rpartition("/")[2] != marker:
        return None
    target = load_target(VertexTarget, Path(_setting("FLOWERS_CONFIG")), {})
    spec = read_mapping(_setting("FLOWERS_PIPELINE"))
    vertex = Vertex(target.project, target.region)
    folder = found.name.rpartition("/")[0]
    parameters = {"images": f"gs://{found.bucket}/{folder}".rstrip("/")}
    request = create_request(vertex, spec, parameters, target, job_id(found))
    name = submit(vertex, request)
    # What is printed is in the log of the function.
    join_experiment(vertex, job_id(found), target.experiment, print)
    return name


def _setting(name: str) -> str:
    try:
        return os.environ[name]
    except KeyError as error:
        raise ConfigError(f"{name} is not set: see docs/vertex.md") from error
