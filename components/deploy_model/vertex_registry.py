"""The registry on Vertex AI: Model Registry, one endpoint of the model's name, its evaluations.

What could be made twice has an identity of our own: the model and the endpoint have the model's
name as their id, a version has the digest as a label, a deployed model has the number of its
version as its id, an evaluation has the run as its display name.
"""

import base64
import contextlib
import math
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from components.common import gcs
from components.common.errors import ConfigError, FlowersError
from components.common.progress import say
from components.common.vertex import Vertex
from components.deploy_model.config import ServingConfig
from components.deploy_model.registry import (
    CHAMPION,
    PREVIOUS,
    STEP,
    Candidate,
    ModelVersion,
    Prediction,
    Rollout,
    TakenOverError,
    Traffic,
)

GCS_ROOT = Path("/gcs")
_DIGEST = "flowers-digest"
# Labels of the endpoint: who is deploying, since when; traffic before, what is rolled out, how far.
_OWNER, _SINCE = "flowers-owner", "flowers-since"
_FORMER, _CANDIDATE, _CHECKED = "flowers-former", "flowers-candidate", "flowers-checked"
_NO_TRAFFIC = "none"
# Labels hold 63 characters, and half a SHA-256 tells any two models apart.
_DIGEST_LENGTH = 32
_METRICS_SCHEMA = (
    "gs://google-cloud-aiplatform/schema/modelevaluation/classification_metrics_1.0.0.yaml"
)
# A request may have 1.5 MB, and base64 makes four bytes of three.
_REQUEST_BYTES = 1_000_000
# The canary is not asked by name, so it is asked until it has answered or surely does not.
_MISS_CHANCE = 1e-6


class VertexRegistry:
    """One model and its endpoint; see `components.deploy_model.registry.Registry`."""

    def __init__(
        self, vertex: Vertex, name: str, serving: ServingConfig, gcs_root: Path = GCS_ROOT
    ) -> None:
        self._vertex = vertex
        self._name = name
        self._serving = serving
        self._gcs_root = gcs_root
        self._model = f"{vertex.parent}/models/{name}"
        self._endpoint = f"{vertex.parent}/endpoints/{name}"
        self._models = vertex.client("ModelServiceClient")
        self._endpoints = vertex.client("EndpointServiceClient")
        self._owner = ""

    def versions(self) -> list[ModelVersion]:
        """All versions, oldest first."""
        if self._vertex.find(self._models.get_model, {"name": self._model}) is None:
            return []
        pages = self._vertex.read(self._models.list_model_versions, {"name": self._model})
        versions = [
            ModelVersion(
                model.version_id,
                model.labels.get(_DIGEST, ""),
                dict(model.labels),
                tuple(sorted(model.version_aliases)),
            )
            for model in pages
        ]
        return sorted(versions, key=lambda version: int(version.id))

    def add(self, candidate: Candidate) -> str:
        """Uploads a model; the version that is there already where its digest is known."""
        digest = candidate.digest[:_DIGEST_LENGTH]
        known = self._of_digest(digest)
        if not known:
            upload = {
                "parent": self._vertex.parent,
                "model": self._upload(candidate, digest),
                "service_account": self._serving.service_account,
            }
            if self.versions():
                upload["parent_model"] = self._model
            else:
                upload["model_id"] = self._name
            known = self._vertex.ensure(
                lambda: self._of_digest(digest) or None,
                self._models.upload_model,
                upload,
                f"upload of model {self._name}",
            )
        self._remove_doubles(known)
        self._import_evaluation(known[0], candidate)
        return known[0]

    def _of_digest(self, digest: str) -> list[str]:
        return [version.id for version in self.versions() if version.digest == digest]

    def _upload(self, candidate: Candidate, digest: str) -> dict[str, Any]:
        labels = {name: _label(value) for name, value in candidate.labels.items()}
        model = {
            "display_name": self._name,
            "artifact_uri": self._artifact_uri(candidate),
            "container_spec": {"image_uri": self._serving.image},
            "labels": labels | {_DIGEST: digest},
        }
        return model | self._encryption()

    def _encryption(self) -> dict[str, Any]:
        key = self._serving.encryption_key
        return {"encryption_spec": {"kms_key_name": key}} if key else {}

    def _artifact_uri(self, candidate: Candidate) -> str:
        """Where the SavedModel is for Vertex AI; it is copied to a bucket where it is in none."""
        folder = candidate.saved_model.absolute()
        if folder.is_relative_to(self._gcs_root):
            return gcs.SCHEME + folder.relative_to(self._gcs_root).as_posix()
        if not self._serving.staging:
            raise ConfigError(
                f"model {folder} is in no bucket: name a gs:// folder for a copy of it, "
                '--serving-config \'{"staging": "gs://BUCKET/FOLDER"}\''
            )
        uri = f"{self._serving.staging.rstrip('/')}/{candidate.digest[:_DIGEST_LENGTH]}"
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                place = f"{uri}/{path.relative_to(folder).as_posix()}"
                gcs.write_blob(place, path.read_bytes())
        return uri

    def _remove_doubles(self, versions: list[str]) -> None:
        """Of an upload that was sent again while the first was still being worked on."""
        up = self.traffic()
        for double in versions[1:]:
            if double not in up:
                name = f"{self._model}@{double}"
                self._vertex.ensure(
                    lambda name=name: (  # type: ignore[misc]
                        self._vertex.find(self._models.get_model, {"name": name}) is None or None
                    ),
                    self._models.delete_model_version,
                    {"name": name},
                    f"removal of {name}",
                )

    def _import_evaluation(self, version: str, candidate: Candidate) -> None:
        """Attaches the figures, which the console shows beside the version."""
        parent = f"{self._model}@{version}"
        scores = candidate.evaluation
        title = f"{candidate.labels['run']}-{candidate.digest[:8]}"

        def there() -> bool | None:
            pages = self._vertex.read(self._models.list_model_evaluations, {"parent": parent})
            return any(one.display_name == title for one in pages) or None

        if there():
            return
        self._vertex.ensure(
            there,
            self._models.import_model_evaluation,
            {
                "parent": parent,
                "model_evaluation": {
                    "display_name": title,
                    "metrics_schema_uri": _METRICS_SCHEMA,
                    "metrics": _metrics(scores),
                    "metadata": {
                        "accuracy": scores["accuracy"],
                        "accuracy_interval": [scores["accuracy_low"], scores["accuracy_high"]],
                        "examples": scores["examples"],
                        "data_fingerprint": scores["data_fingerprint"],
                    },
                },
            },
            f"import of the evaluation of {parent}",
        )

    @contextlib.contextmanager
    def artifact(self, version: str) -> Iterator[Path]:
        """The SavedModel of a version: where buckets are mounted, or a copy."""
        model = self._vertex.read(self._models.get_model, {"name": f"{self._model}@{version}"})
        uri = model.artifact_uri
        mounted = self._gcs_root / uri.removeprefix(gcs.SCHEME)
        if mounted.is_dir():
            yield mounted
            return
        with tempfile.TemporaryDirectory() as folder:
            _download(uri, Path(folder))
            yield Path(folder)

    def traffic(self) -> Traffic:
        """Every version that is up, with its share."""
        endpoint = self._read_endpoint()
        if endpoint is None:
            return {}
        shares = dict(endpoint.traffic_split)
        return {
            version: int(shares.get(deployed, 0))
            for deployed, version in self._deployed(endpoint).items()
        }

    def _read_endpoint(self) -> Any | None:
        return self._vertex.find(self._endpoints.get_endpoint, {"name": self._endpoint})

    def _deployed(self, endpoint: Any) -> dict[str, str]:
        """Id of a deployed model -> version."""
        found = {}
        for deployed in endpoint.deployed_models:
            if deployed.model.partition("@")[0].rpartition("/")[2] != self._name:
                raise ConfigError(
                    f"endpoint {self._name} serves another model, {deployed.model}: "
                    "take it down, or choose another --model-name"
                )
            found[deployed.id] = deployed.model_version_id
        return found

    def deploy(self, version: str, traffic: Traffic) -> None:
        """Brings a version up, on an endpoint that is made where it is absent."""
        self._ensure_endpoint()
        up = self.traffic()
        if version not in up:
            machine = {"machine_type": self._serving.machine_type}
            # One that comes up after we have given up must not get traffic then, unless nothing
            # else does. "0" stands for the one that is being deployed.
            split = {} if any(up.values()) else {"0": 100}
            self._vertex.ensure(
                lambda: self.traffic() if version in self.traffic() else None,
                self._ours(self._endpoints.deploy_model),
                {
                    "endpoint": self._endpoint,
                    "deployed_model": {
                        "id": version,
                        "model": f"{self._model}@{version}",
                        "display_name": f"{self._name}-{version}",
                        "service_account": self._serving.service_account,
                        "dedicated_resources": {
                            "machine_spec": machine,
                            "min_replica_count": self._serving.min_replicas,
                            "max_replica_count": self._serving.max_replicas,
                        },
                    },
                    "traffic_split": split,
                },
                f"deployment of version {version}",
            )
        self.set_traffic(traffic)

    def _ensure_endpoint(self) -> None:
        if self._read_endpoint() is None:
            self._vertex.ensure(
                self._read_endpoint,
                self._endpoints.create_endpoint,
                {
                    "parent": self._vertex.parent,
                    "endpoint": {"display_name": self._name} | self._encryption(),
                    "endpoint_id": self._name,
                },
                f"creation of endpoint {self._name}",
            )

    def _split(self, traffic: Traffic) -> dict[str, int]:
        """A traffic split as Vertex AI takes it, by ids of deployed models."""
        endpoint = self._read_endpoint()
        deployed = self._deployed(endpoint) if endpoint else {}
        ids = {version: one for one, version in deployed.items()}
        lost = sorted(_shares(traffic).keys() - ids.keys())
        if lost:
            raise FlowersError(
                f"endpoint {self._name}: version {', '.join(lost)} is no longer up; see flowers "
                "deploy status"
            )
        return {ids[version]: share for version, share in _shares(traffic).items()}

    def set_traffic(self, traffic: Traffic) -> None:
        """Sets the traffic of versions that are up; the others get none."""
        if self._shares() == _shares(traffic):
            return
        self._vertex.ensure(
            lambda: self._shares() == _shares(traffic) or None,
            self._ours(self._endpoints.update_endpoint),
            {
                "endpoint": {"name": self._endpoint, "traffic_split": self._split(traffic)},
                "update_mask": {"paths": ["traffic_split"]},
            },
            "change of the traffic",
        )

    def _shares(self) -> Traffic:
        return _shares(self.traffic())

    def undeploy(self, version: str) -> None:
        """Takes a version down."""
        endpoint = self._read_endpoint()
        deployed = self._deployed(endpoint) if endpoint else {}
        for one in (one for one, up in deployed.items() if up == version):
            self._vertex.ensure(
                lambda: version not in self.traffic() or None,
                self._ours(self._endpoints.undeploy_model),
                {"endpoint": self._endpoint, "deployed_model_id": one},
                f"taking version {version} down",
            )

    def set_aliases(self, champion: str, previous: str | None) -> None:
        """Moves the aliases; the default version is the champion."""
        self._merge(champion, [CHAMPION, "default"], [PREVIOUS])
        if previous:
            self._merge(previous, [PREVIOUS], [])

    def _merge(self, version: str, aliases: list[str], removed: list[str]) -> None:
        name = f"{self._model}@{version}"

        def done() -> bool | None:
            held = set(self._vertex.read(self._models.get_model, {"name": name}).version_aliases)
            return (held >= set(aliases) and not held & set(removed)) or None

        if done():
            return
        held = self._vertex.read(self._models.get_model, {"name": name}).version_aliases
        gone = [f"-{alias}" for alias in removed if alias in held]
        self._vertex.ensure(
            done,
            self._models.merge_version_aliases,
            {"name": name, "version_aliases": [*aliases, *gone]},
            f"aliases of version {version}",
        )

    def predict(self, version: str, photos: Sequence[bytes]) -> list[Prediction]:
        """Asks the endpoint until this version has answered about every photo.

        Raises:
            FlowersError: It never answers, or what it says is no prediction.
        """
        share = self.traffic().get(version, 0)
        if not share:
            raise FlowersError(f"version {version} has no traffic and cannot be asked")
        tries = 1 if share == 100 else math.ceil(math.log(_MISS_CHANCE) / math.log1p(-share / 100))
        predictions: list[Prediction] = []
        for batch in _batches(photos):
            answer = self._ask_until(version, batch, tries)
            if answer is None:
                raise FlowersError(
                    f"version {version} has {share} % of the traffic and answered none of "
                    f"{self._vertex.patience.tries} times {tries} requests"
                )
            predictions += [_prediction(one) for one in answer.predictions]
        if len(predictions) != len(photos):
            raise FlowersError(f"{len(photos)} photos were sent, {len(predictions)} answers came")
        return predictions

    def _ask_until(self, version: str, photos: Sequence[bytes], tries: int) -> Any | None:
        """The answer of a version that surely answers one of so many requests, if it does."""
        # A change of the traffic may not be everywhere yet.
        for _ in range(self._vertex.patience.tries):
            for _ in range(tries):
                answer = self._ask(photos)
                if answer.model_version_id == version:
                    return answer
            time.sleep(self._vertex.patience.poll)
        return None

    def _ask(self, photos: Sequence[bytes]) -> Any:
        from google.cloud.aiplatform_v1 import PredictRequest

        encoded = (base64.b64encode(photo).decode() for photo in photos)
        request = PredictRequest(endpoint=self._endpoint)
        # The constructor does not take plain data here, and this does.
        request.instances.extend([{"image_bytes": {"b64": text}} for text in encoded])
        return self._vertex.read(self._vertex.client("PredictionServiceClient").predict, request)

    @contextlib.contextmanager
    def claim(self, owner: str, take_over: bool = False) -> Iterator[None]:
        """Notes in labels of the endpoint who deploys; whoever holds it otherwise is waited for.

        A note of a process that is gone is void after two hours, the longest that an operation may
        take and as long again for what is done between two of them.
        """
        self._ensure_endpoint()
        self._owner = _label(owner)
        while True:
            self._wait_for_others(take_over)
            try:
                self._set_labels({}, take_over)
                break
            except TakenOverError:
                # Another one was faster.
                continue
        try:
            yield
        finally:
            try:
                self._set_labels({_OWNER: "", _SINCE: ""})
            except TakenOverError:
                # The note is that of another deployment.
                pass
            except FlowersError as error:
                say(STEP, f"endpoint {self._name} still has the note of this deployment: {error}")
            self._owner = ""

    def _wait_for_others(self, take_over: bool) -> None:
        told = False
        while (holder := self._holder(self._read_endpoint())) and not take_over:
            if not told:
                say(
                    STEP,
                    f"endpoint {self._name}: waits for the deployment of {holder}; if that one is "
                    f"dead, its note is void after {2 * self._vertex.patience.operation:.0f} s, or "
                    "at once with flowers deploy promote or rollback --take-over",
                )
                told = True
            time.sleep(self._vertex.patience.poll)

    def _holder(self, endpoint: Any) -> str:
        """Who else is deploying."""
        labels = endpoint.labels if endpoint else {}
        holder, since = labels.get(_OWNER, ""), float(labels.get(_SINCE, "") or 0)
        is_void = time.time() - since > 2 * self._vertex.patience.operation
        return "" if is_void or holder == self._owner else str(holder)

    def _require_claim(self, endpoint: Any) -> None:
        if holder := self._holder(endpoint):
            raise TakenOverError(f"endpoint {self._name} was taken over by {holder}")

    def _ours(self, change: Callable[..., Any]) -> Callable[..., Any]:
        """A change of the endpoint that is not sent once another deployment has it."""

        def send(**request: Any) -> Any:
            self._require_claim(self._read_endpoint())
            return change(**request)

        return send

    def note_rollout(self, rollout: Rollout | None) -> None:
        """Writes into labels of the endpoint how far a roll-out is; None ends it."""
        if rollout is None:
            self._set_labels({_FORMER: "", _CANDIDATE: "", _CHECKED: ""})
            return
        shares = sorted(rollout.former.items())
        text = "_".join(f"{one}-{share}" for one, share in shares) or _NO_TRAFFIC
        if len(text) > 63:
            raise ConfigError(
                f"endpoint {self._name} has too many versions up to note their traffic: take down "
                "those that are not needed"
            )
        checked = "yes" if rollout.checked else ""
        self._set_labels({_FORMER: text, _CANDIDATE: rollout.version, _CHECKED: checked})

    def noted_rollout(self) -> Rollout | None:
        """What was last written down."""
        endpoint = self._read_endpoint()
        labels = endpoint.labels if endpoint else {}
        text = labels.get(_FORMER, "")
        if not text:
            return None
        parts = [] if text == _NO_TRAFFIC else [part.split("-") for part in text.split("_")]
        former = {version: int(share) for version, share in parts}
        return Rollout(labels.get(_CANDIDATE, ""), former, bool(labels.get(_CHECKED, "")))

    def _set_labels(self, changes: dict[str, str], take_over: bool = False) -> None:
        """Changes labels of the endpoint, and the time of the claim; an empty one is removed.

        Raises:
            TakenOverError: The endpoint is another deployment's.
        """
        since = str(int(time.time())) if self._owner else ""
        changes = {_OWNER: self._owner, _SINCE: since} | changes

        def done() -> bool | None:
            endpoint = self._read_endpoint()
            labels = endpoint.labels if endpoint else {}
            return all(labels.get(name, "") == text for name, text in changes.items()) or None

        def update(request: Any, **options: Any) -> Any:
            endpoint = self._read_endpoint()
            if not take_over:
                self._require_claim(endpoint)
            labels = dict(endpoint.labels if endpoint else {}) | changes
            request["endpoint"] = {
                "name": self._endpoint,
                "labels": {name: text for name, text in labels.items() if text},
                # Refused if another one was faster.
                "etag": endpoint.etag if endpoint else "",
            }
            return self._endpoints.update_endpoint(request=request, **options)

        self._vertex.ensure(
            done, update, {"update_mask": {"paths": ["labels"]}}, "note of the roll-out"
        )


def _shares(traffic: Traffic) -> Traffic:
    return {version: share for version, share in traffic.items() if share}


def _label(text: str) -> str:
    """Text as a label may be: lower-case letters, digits, hyphens, 63 at most."""
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:63]


def _metrics(scores: dict[str, Any]) -> dict[str, Any]:
    """The figures in Vertex AI's schema of classification metrics."""
    return {
        "logLoss": scores["loss"],
        "confusionMatrix": {
            "annotationSpecs": [{"displayName": name} for name in scores["class_names"]],
            "rows": [list(row) for row in scores["confusion"]],
        },
        "confidenceMetrics": [
            {
                "confidenceThreshold": 0.0,
                "recallAt1": scores["accuracy"],
                "precisionAt1": scores["accuracy"],
                "f1ScoreAt1": scores["accuracy"],
            }
        ],
    }


def _download(uri: str, folder: Path) -> None:
    prefix = uri.rstrip("/") + "/"
    _, start = gcs.split_place(prefix)
    count = 0
    for blob in gcs.list_blobs(prefix):
        path = folder / blob.name.removeprefix(start)
        if not path.resolve().is_relative_to(folder.resolve()):
            raise FlowersError(f"{uri}: {blob.name} would lie outside of the model's folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        bucket = prefix.removeprefix(gcs.SCHEME).partition("/")[0]
        place = f"{gcs.SCHEME}{bucket}/{blob.name}"
        try:
            path.write_bytes(gcs.read_blob(place, blob.crc32c))
        except gcs.BlobNotFoundError as error:
            raise FlowersError(f"{place} was deleted meanwhile; try again") from error
        count += 1
    if not count:
        raise FlowersError(
            f"{uri} is empty, so the champion cannot be scored: restore its files, or replace it "
            "by hand with flowers deploy promote"
        )


def _batches(photos: Sequence[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for photo in photos:
        if batch and size + len(photo) > _REQUEST_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(photo)
        size += len(photo)
    if batch:
        yield batch


def _prediction(answer: Any) -> Prediction:
    """One prediction of TensorFlow Serving.

    Raises:
        FlowersError: It is none of a model of ours.
    """
    try:
        names, shares = answer["class_names"], answer["probabilities"]
        return Prediction(answer["label"], dict(zip(names, map(float, shares), strict=True)))
    except (KeyError, TypeError, ValueError) as error:
        raise FlowersError("the endpoint's answer is not that of a model of ours") from error
