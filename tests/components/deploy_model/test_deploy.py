"""Deployment of real SavedModels: a folder as registry, and Vertex AI with a bucket beside it."""

import itertools
import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kfp import dsl

from components.common import gcs
from components.common.dataset import load_dataset
from components.common.errors import ChampionStaysError, ConfigError, DataError
from components.common.lineage import stamp
from components.common.model_files import load_metadata
from components.common.models import load_model, save_model
from components.common.patience import Patience
from components.common.vertex import ENDPOINT_VARIABLE, Vertex
from components.deploy_model.component import deploy_model
from components.deploy_model.config import DeployConfig, ServingConfig
from components.deploy_model.deploy import deploy
from components.deploy_model.registries import (
    open_registry,
    plain_status,
    previous_version,
    roll_back,
)
from components.deploy_model.scoring import SplitPhotos, predict
from components.deploy_model.vertex_registry import VertexRegistry
from components.evaluate_model.evaluate import evaluate
from components.export_model.config import ExportConfig
from components.export_model.export import Outputs, export
from tests.builders import bless, make_dataset, make_model
from tests.fakes.vertex import PROJECT, REGION, serve_vertex

HASTY = Patience(request=10.0, first_wait=0.0, tries=4, operation=5.0, poll=0.0, settle=0.05)
# One photo more is enough, for there are ten.
CONFIG = DeployConfig(significance=0.5, probes=3, canary_percent=50)


class Made:
    """A model that names one class always, evaluated and exported."""

    def __init__(self, folder, examples, favourite):
        plain = make_model(folder / "plain", examples)
        net, metadata = load_model(plain), load_metadata(plain)
        last = [layer for layer in net.layers if layer.get_weights()][-1]
        weights = [np.zeros_like(one) for one in last.get_weights()]
        weights[-1] = np.where(np.arange(3) == favourite, 30.0, -30.0)
        last.set_weights(weights)
        self.model = folder / "model"
        self.model.mkdir()
        save_model(net, metadata, self.model)
        self.evaluation = folder / "evaluation.json"
        self.scores = evaluate(examples, self.model, self.evaluation, folder / "report.html")
        self.saved_model = folder / "saved_model"
        outputs = Outputs(self.saved_model, folder / "exports", folder / "export.html")
        self.verdict = bless(self.evaluation, folder / "verdict.json")
        config = ExportConfig(litert=False)
        export(examples, self.model, self.evaluation, self.verdict, outputs, config)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    counts = {"train": 12, "validation": 6, "test": 10}
    return make_dataset(tmp_path_factory.mktemp("data") / "examples", counts=counts)


@pytest.fixture(scope="module")
def models(tmp_path_factory, examples):
    """Two models, with four and three of ten test photos right."""
    made = [Made(tmp_path_factory.mktemp("made"), examples, favourite) for favourite in (0, 1)]
    bad, good = sorted(made, key=lambda one: one.scores.correct)
    assert (bad.scores.correct, good.scores.correct) == (3, 4)
    return {"good": good, "bad": bad}


def deploy_one(registry, examples, made, output, config=CONFIG):
    return deploy(
        *(examples, made.saved_model, made.evaluation, made.verdict),
        *(registry, config, "run 1", output),
    )


class TestFolder:
    def test_better_model_replaces_and_worse_is_refused(self, tmp_path, examples, models):
        with open_registry(str(tmp_path / "registry"), "flowers") as registry:
            deploy_one(registry, examples, models["bad"], tmp_path / "1.json")
            result = deploy_one(registry, examples, models["good"], tmp_path / "2.json")
            assert (result.version, registry.traffic()) == ("2", {"2": 100})
        link = tmp_path / "registry" / "flowers" / "serving"
        assert (link / "saved_model" / "saved_model.pb").is_file()
        assert link.readlink().name == "2"
        assert json.loads((tmp_path / "2.json").read_text())["comparison"]["better"]

        with open_registry(str(tmp_path / "registry"), "flowers") as registry:
            assert previous_version(registry) == "1"
            roll_back(registry, [], "by-hand")
            assert registry.traffic() == {"1": 100}
            assert plain_status(registry)["versions"][0]["aliases"] == ("champion",)
        assert link.readlink().name == "1"

    def test_version_that_a_kill_left_half_there_is_made_anew(self, tmp_path, examples, models):
        half = tmp_path / "registry" / "flowers" / "versions" / "1"
        half.mkdir(parents=True)
        (half / "saved_model").mkdir()
        note = half.with_name(".1.placing")
        note.write_text(json.dumps([2**22, str(half)]))
        with open_registry(str(tmp_path / "registry"), "flowers") as registry:
            assert registry.versions() == []
            assert deploy_one(registry, examples, models["bad"], tmp_path / "1.json").version == "1"
            assert [one.id for one in registry.versions()] == ["1"]
        assert not note.exists()

    def test_says_that_the_champion_is_asked_about_other_squares(
        self, tmp_path, examples, models, capsys
    ):
        with open_registry(str(tmp_path / "registry"), "flowers") as registry:
            deploy_one(registry, examples, models["bad"], tmp_path / "1.json")
            (file,) = (tmp_path / "registry").rglob("assets.extra/flowers.json")
            file.write_text(json.dumps(json.loads(file.read_text()) | {"resize": "stretch"}))
            capsys.readouterr()
            deploy_one(registry, examples, models["good"], tmp_path / "2.json")
        assert (
            "note: the champion learnt from photos with ingest.resize stretch and is asked about "
            "the test photos as this run has them, with crop"
        ) in capsys.readouterr().out

    def test_worse_model_ends_with_exit_code_3(self, tmp_path, examples, models):
        with open_registry(str(tmp_path / "registry"), "flowers") as registry:
            deploy_one(registry, examples, models["good"], tmp_path / "1.json")
        made = models["bad"]
        command = [
            *(sys.executable, "-m", "components.deploy_model", "--examples", examples),
            *("--saved-model", made.saved_model, "--evaluation", made.evaluation),
            *("--verdict", made.verdict),
            *("--registry", tmp_path / "registry", "--output", tmp_path / "2.json"),
            *("--deploy-config", '{"significance": 0.5}'),
        ]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        assert finished.returncode == 3
        (line,) = finished.stderr.splitlines()
        assert line.startswith("deploy-model: exit 3: version 1 stays champion: the champion is")
        state = json.loads((tmp_path / "registry" / "flowers" / "state.json").read_text())
        assert state["traffic"] == {"1": 100}

    def test_task_that_is_tried_again_ends_alike(self, tmp_path, examples, models):
        with open_registry(str(tmp_path / "registry"), "flowers") as registry:
            deploy_one(registry, examples, models["good"], tmp_path / "1.json")
        made = models["bad"]
        data = dsl.Dataset(uri=str(examples))
        model = dsl.Model(uri=str(made.saved_model))
        scores, verdict = (dsl.Metrics(uri=str(one)) for one in (made.evaluation, made.verdict))
        stamp(data, model, scores, verdict)
        output = dsl.Artifact(uri=str(tmp_path / "2.json"))
        for _ in range(2):
            with pytest.raises(SystemExit) as ended:
                deploy_model.python_func(
                    *(data, model, scores, verdict),
                    *(str(tmp_path / "registry"), "flowers", "run 2"),
                    *({"significance": 0.5}, {}, output),
                )
            assert ended.value.code == 3
            assert json.loads((tmp_path / "2.json").read_text())["deployed"] is False

    def test_papers_of_another_model_are_refused(self, tmp_path, examples, models):
        good, bad = models["good"], models["bad"]
        with (
            open_registry(str(tmp_path / "registry"), "flowers") as registry,
            pytest.raises(DataError, match="the evaluation is of another model"),
        ):
            deploy(
                *(examples, good.saved_model, bad.evaluation, bad.verdict),
                *(registry, CONFIG, "r", tmp_path / "d"),
            )
        assert not (tmp_path / "registry" / "flowers" / "versions").exists()

    @pytest.mark.parametrize("place", ["", "gs://bucket/registry", "vertex://p/europe-west4"])
    def test_place_that_is_none(self, place):
        with pytest.raises(ConfigError), open_registry(place, "flowers"):
            pass


@pytest.fixture(scope="module")
def bucket():
    """A bucket that is reached over HTTP, as STORAGE_EMULATOR_HOST."""
    from gcp_storage_emulator.server import create_server

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


def test_model_goes_to_the_bucket_and_the_champion_comes_back(
    tmp_path, examples, models, bucket, monkeypatch
):
    """The SavedModel is served by the fake as it lies in the bucket, and scored from there."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket)
    with serve_vertex() as (fake, address):
        monkeypatch.setenv(ENDPOINT_VARIABLE, address)
        uris: dict[str, Path] = {}

        def answer(uri, photo):
            folder = uris.setdefault(uri, tmp_path / f"served-{len(uris)}")
            if not folder.exists():
                for blob in gcs.list_blobs(uri + "/"):
                    _, start = gcs.split_place(uri + "/")
                    path = folder / blob.name.removeprefix(start)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(gcs.read_blob(f"gs://bucket/{blob.name}"))
            (one,) = predict(folder, [photo])
            return {
                "label": one.label,
                "class_names": list(one.probabilities),
                "probabilities": list(one.probabilities.values()),
            }

        fake.predictor = answer
        serving = ServingConfig(staging="gs://bucket/models")
        registry = VertexRegistry(Vertex(PROJECT, REGION, HASTY), "flowers", serving)
        deploy_one(registry, examples, models["bad"], tmp_path / "1.json")
        deploy_one(registry, examples, models["good"], tmp_path / "2.json")
        with pytest.raises(ChampionStaysError):
            deploy_one(registry, examples, models["bad"], tmp_path / "3.json")
    assert fake.traffic() == {"2": 100}
    assert fake.versions() == ["1", "2"]
    scores = models["good"].scores
    labels = fake.models["flowers"]["2"].labels
    assert labels["data"] == load_dataset(examples).fingerprint[:63]
    assert labels["accuracy"] == f"{scores.accuracy:.4f}".replace(".", "-")
    (evaluation,) = fake.evaluations["flowers@2"]
    metrics = evaluation.metrics.struct_value
    rows = metrics["confusionMatrix"]["rows"]
    assert [list(map(int, row)) for row in rows] == [list(row) for row in scores.confusion]


def test_photos_are_read_and_asked_about_a_batch_at_a_time(examples, models):
    photos = SplitPhotos(load_dataset(examples), "test")
    assert len(photos) == 10
    assert list(photos) == list(photos)
    asked = []

    def jpegs():
        for photo in itertools.cycle(photos):
            asked.append(photo)
            yield photo.jpeg

    answers = predict(models["good"].saved_model, jpegs())
    assert next(answers).probabilities.keys() == set(load_dataset(examples).class_names)
    assert len(asked) == 64


def test_staging_folder_in_a_bucket_that_is_not_there(
    tmp_path, examples, models, bucket, monkeypatch
):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket)
    with serve_vertex() as (fake, address):
        monkeypatch.setenv(ENDPOINT_VARIABLE, address)
        serving = ServingConfig(staging="gs://typo/models")
        registry = VertexRegistry(Vertex(PROJECT, REGION, HASTY), "flowers", serving)
        with pytest.raises(DataError, match="gs://typo: there is no such bucket; check the name"):
            deploy_one(registry, examples, models["good"], tmp_path / "1.json")
    assert fake.models == {}


def test_model_in_no_bucket_needs_a_staging_folder(tmp_path, examples, models, monkeypatch):
    with serve_vertex() as (fake, address):
        monkeypatch.setenv(ENDPOINT_VARIABLE, address)
        registry = VertexRegistry(Vertex(PROJECT, REGION, HASTY), "flowers", ServingConfig())
        with pytest.raises(ConfigError, match="is in no bucket: name a gs:// folder"):
            deploy_one(registry, examples, models["good"], tmp_path / "1.json")
    assert fake.models == {}
