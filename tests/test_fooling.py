"""Tries to get a bad model past the gate, end to end, on real miniature artifacts.

Each is refused with its reason, by the first step that can know. What a threshold may be, and
figures that contradict each other, is in tests/components/gate_model.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.common.config import build, to_json
from components.common.dataset import load_dataset, save_dataset
from components.common.errors import DataError, FlowersError, GateClosedError
from components.common.evaluation import load_evaluation
from components.common.files import file_digest
from components.common.model_files import load_metadata
from components.common.models import load_model, save_model
from components.deploy_model.config import DeployConfig
from components.deploy_model.deploy import deploy
from components.deploy_model.registries import open_registry
from components.evaluate_model.evaluate import evaluate
from components.export_model.config import ExportConfig
from components.export_model.export import Outputs, export
from components.gate_model.component import gate_model
from components.gate_model.gate import gate
from components.ingest_examples.config import IngestConfig, PhotosConfig
from components.ingest_examples.ingest import ingest
from components.train_model.architectures import ModelConfig
from components.train_model.config import TrainConfig
from components.train_model.train import train
from tests.builders import (
    CLASS_NAMES,
    TINY_MODEL,
    TINY_TRAIN,
    bless,
    draw_photo,
    encode,
    evaluation_of,
    make_dataset,
    make_model,
)

LOW = 0.01


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("fooling") / "examples")


@pytest.fixture(scope="module")
def model(tmp_path_factory, examples):
    return make_model(tmp_path_factory.mktemp("fooling") / "model", examples)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory, examples, model):
    folder = tmp_path_factory.mktemp("fooling")
    evaluate(examples, model, folder / "evaluation.json", folder / "report.html")
    return folder / "evaluation.json"


@pytest.fixture(scope="module")
def other_model(tmp_path_factory, examples):
    """Of the same net and the same data, with other weights: a run of last week, say."""
    folder = make_model(tmp_path_factory.mktemp("other") / "model", examples)
    net, metadata = load_model(folder), load_metadata(folder)
    net.set_weights([weights + 0.25 for weights in net.get_weights()])
    save_model(net, metadata, folder)
    return folder


def judge(model, evaluation, folder, threshold=LOW):
    return gate(model, evaluation, threshold, folder / "verdict.json")


def export_to(folder, examples, model, evaluation, verdict):
    outputs = Outputs(folder / "saved_model", folder / "exports", folder / "report.html")
    export(examples, model, evaluation, verdict, outputs, ExportConfig(litert=False))
    return outputs.saved_model


def forge(evaluation, path, **changes):
    """The evaluation of a perfect model, in which every figure fits every other."""
    honest = load_evaluation(evaluation)
    rows = [
        [sum(row) if index == column else 0 for column in range(len(row))]
        for index, row in enumerate(honest.confusion)
    ]
    kept = ("model_class_names", "data_fingerprint", "model_data_fingerprint", "model_digest")
    same = {name: getattr(honest, name) for name in kept}
    forged = evaluation_of(rows, honest.class_names, **(same | changes))
    path.write_text(to_json(dataclasses.asdict(forged)))
    return path


class TestData:
    def divide(self, photos):
        """Photos that are divided already, none in two splits."""
        for split, first in (("train", 0), ("validation", 100), ("test", 200)):
            for label, name in enumerate(CLASS_NAMES):
                (photos / split / name).mkdir(parents=True)
                for number in range(first, first + 6):
                    photo = encode(draw_photo(label, number), quality=90)
                    (photos / split / name / f"{number}.jpg").write_bytes(photo)

    def test_empty_test_split(self, tmp_path, model):
        empty = make_dataset(tmp_path / "empty", counts={"train": 24, "validation": 9, "test": 0})
        with pytest.raises(DataError, match="test split: expected at least one example"):
            evaluate(empty, model, tmp_path / "evaluation.json", tmp_path / "report.html")

    def test_test_split_of_one_class(self, tmp_path):
        one = make_dataset(tmp_path / "one", counts={"train": 24, "validation": 9, "test": 1})
        model = make_model(tmp_path / "model", one)
        path = tmp_path / "evaluation.json"
        scores = evaluate(one, model, path, tmp_path / "report.html")
        assert scores.examples == 1
        verdict = judge(model, path, tmp_path)
        assert not verdict.blessed
        if scores.correct:
            assert verdict.reason == "the test split has no example of squares, stripes"

    def test_photos_without_a_class_in_the_test_split(self, tmp_path):
        photos = tmp_path / "photos"
        self.divide(photos)
        shutil.rmtree(photos / "test" / "stripes")
        with pytest.raises(DataError, match=r"class 'stripes' has .* 0 in test"):
            take(photos, tmp_path)

    def test_class_names_permuted_in_data_and_model_alike(self, tmp_path, examples, model):
        """The figures would be the same, and every answer wrong."""
        data = Path(shutil.copytree(examples, tmp_path / "examples"))
        permuted = (*CLASS_NAMES[1:], CLASS_NAMES[0])
        save_dataset(dataclasses.replace(load_dataset(data), class_names=permuted), data)
        liar = tmp_path / "model"
        liar.mkdir()
        metadata = dataclasses.replace(load_metadata(model), class_names=permuted)
        save_model(load_model(model), metadata, liar)
        with pytest.raises(DataError, match="expected labels in the order"):
            evaluate(data, liar, tmp_path / "evaluation.json", tmp_path / "report.html")

    def test_classes_renamed_behind_the_model(self, tmp_path, examples, model):
        names = ("rings", *CLASS_NAMES[1:])
        renamed = make_dataset(tmp_path / "renamed", class_names=names)
        with pytest.raises(DataError, match="class_names of the examples"):
            evaluate(renamed, model, tmp_path / "evaluation.json", tmp_path / "report.html")

    def test_test_photos_in_train_as_they_are_and_saved_anew(self, tmp_path):
        photos = tmp_path / "photos"
        self.divide(photos)
        leak = photos / "train" / CLASS_NAMES[0]
        shutil.copyfile(photos / "test" / CLASS_NAMES[0] / "200.jpg", leak / "exact.jpg")
        (leak / "near.jpg").write_bytes(encode(draw_photo(0, 201), quality=60))
        result = take(photos, tmp_path)
        reasons = {entry.name: str(entry.reason) for entry in result.entries if entry.reason}
        assert reasons == {
            f"train/{CLASS_NAMES[0]}/exact.jpg": "exact duplicate",
            f"train/{CLASS_NAMES[0]}/near.jpg": "near-duplicate of a photo in another split",
        }

    def test_shards_of_train_and_test_exchanged(self, tmp_path, examples, model):
        data = Path(shutil.copytree(examples, tmp_path / "examples"))
        (validation,), (test,) = (list((data / one).iterdir()) for one in ("validation", "test"))
        payload = validation.read_bytes()
        validation.write_bytes(test.read_bytes())
        test.write_bytes(payload)
        with pytest.raises(DataError, match="shards were changed since"):
            evaluate(data, model, tmp_path / "evaluation.json", tmp_path / "report.html")

    def test_other_examples_among_those_that_are_learned_from(self, tmp_path, examples):
        """A shard was exchanged for another of as many."""
        data = Path(shutil.copytree(examples, tmp_path / "examples"))
        first, second = sorted((data / "train").iterdir())
        second.write_bytes(first.read_bytes())
        with pytest.raises(DataError, match="shards were changed since"):
            train(
                examples,
                data,
                build(ModelConfig, TINY_MODEL),
                build(TrainConfig, TINY_TRAIN),
                *(tmp_path / name for name in ("model", "metrics", "report")),
            )


def take(photos, folder):
    config = IngestConfig(image_size=32, max_reject_fraction=0.5)
    places = folder / "examples", folder / "data.html"
    return ingest(PhotosConfig(str(photos)), config, *places, workers=1)


class TestModel:
    def test_weights_that_are_no_numbers(self, tmp_path, examples, model):
        net, metadata = load_model(model), load_metadata(model)
        net.set_weights([np.full_like(one, np.nan) for one in net.get_weights()])
        broken = tmp_path / "model"
        broken.mkdir()
        save_model(net, metadata, broken)
        with pytest.raises(FlowersError, match="not finite"):
            evaluate(examples, broken, tmp_path / "evaluation.json", tmp_path / "report.html")

    def test_model_trained_on_other_photos(self, tmp_path, examples):
        other = make_dataset(tmp_path / "other", counts={"train": 27, "validation": 9, "test": 9})
        model = make_model(tmp_path / "model", other)
        path = tmp_path / "evaluation.json"
        evaluate(examples, model, path, tmp_path / "report.html")
        verdict = judge(model, path, tmp_path)
        assert not verdict.blessed
        assert "may have seen the test images" in verdict.reason

    def test_model_changed_behind_its_evaluation(self, tmp_path, model, evaluation):
        changed = Path(shutil.copytree(model, tmp_path / "model"))
        with (changed / "model.keras").open("ab") as file:
            file.write(b"more")
        with pytest.raises(DataError, match="it was changed or damaged"):
            judge(changed, evaluation, tmp_path)
        assert not (tmp_path / "verdict.json").exists()


class TestEvaluation:
    def test_of_another_model(self, tmp_path, other_model, evaluation):
        verdict = judge(other_model, evaluation, tmp_path)
        assert not verdict.blessed
        assert verdict.reason.startswith("the evaluation is of another model (")

    def test_of_a_perfect_model_that_claims_to_be_this(self, tmp_path, model, evaluation):
        """Nothing in the file contradicts; so the gate, alone, believes it, and export counts."""
        forged = forge(evaluation, tmp_path / "forged.json")
        assert judge(model, forged, tmp_path).blessed

    def test_that_was_forged_ends_at_the_export(self, tmp_path, examples, model, evaluation):
        assert load_evaluation(evaluation).accuracy < 1
        forged = forge(evaluation, tmp_path / "forged.json")
        judge(model, forged, tmp_path)
        with pytest.raises(DataError, match="the evaluation says that 9 of 9 test images are"):
            export_to(tmp_path / "out", examples, model, forged, tmp_path / "verdict.json")
        assert not (tmp_path / "out" / "saved_model").exists()

    def test_that_was_forged_is_not_what_kfp_noted(self, tmp_path, model, evaluation):
        """In a pipeline it does not pass the gate itself; nor does that of an earlier run."""
        artifacts = [noted(model), noted(evaluation)]
        forge(evaluation, tmp_path / "forged.json")
        artifacts[1].path = str(tmp_path / "forged.json")
        verdict = Artifact(str(tmp_path / "verdict.json"))
        with pytest.raises(SystemExit) as ended:
            gate_model.python_func(*artifacts, LOW, verdict)
        assert ended.value.code == 2
        assert not (tmp_path / "verdict.json").exists()

    def test_from_a_cache_that_is_out_of_date(self, tmp_path, other_model, evaluation):
        """KFP hands on the evaluation of the former model, just as it was written."""
        artifacts = (noted(other_model), noted(evaluation))
        verdict = Artifact(str(tmp_path / "verdict.json"))
        assert gate_model.python_func(*artifacts, LOW, verdict) is False
        assert verdict.metadata["reason"].startswith("the evaluation is of another model (")

    def test_as_it_was_written_passes(self, tmp_path, model, evaluation):
        verdict = Artifact(str(tmp_path / "verdict.json"))
        assert gate_model.python_func(noted(model), noted(evaluation), LOW, verdict) is True
        assert verdict.metadata["digest"] == file_digest(tmp_path / "verdict.json")


@dataclasses.dataclass
class Artifact:
    """What KFP hands a step."""

    path: str
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)


def noted(path):
    """An artifact as KFP hands it on when its step has ended."""
    from components.common.lineage import stamp

    artifact = Artifact(str(path))
    stamp(artifact)
    return artifact


@pytest.fixture(scope="module")
def exported(tmp_path_factory, examples, model, evaluation):
    folder = tmp_path_factory.mktemp("exported")
    verdict = folder / "verdict.json"
    gate(model, evaluation, LOW, verdict)
    return export_to(folder, examples, model, evaluation, verdict), verdict


class TestExportAndDeployment:
    def roll_out(self, folder, examples, saved_model, evaluation, verdict):
        with open_registry(str(folder / "registry"), "flowers") as registry:
            inputs = (examples, saved_model, evaluation, verdict)
            deploy(*inputs, registry, DeployConfig(probes=2), "run", folder / "deployment.json")

    def versions(self, folder):
        return list((folder / "registry" / "flowers").glob("versions/*"))

    def test_honest_chain_ends_in_the_registry(self, tmp_path, examples, evaluation, exported):
        self.roll_out(tmp_path, examples, exported[0], evaluation, exported[1])
        assert len(self.versions(tmp_path)) == 1

    def test_export_behind_a_closed_gate(self, tmp_path, examples, model, evaluation):
        judge(model, evaluation, tmp_path, threshold=1.0)
        with pytest.raises(GateClosedError, match="gate closed: test accuracy"):
            export_to(tmp_path / "out", examples, model, evaluation, tmp_path / "verdict.json")

    def test_deployment_behind_a_closed_gate(self, tmp_path, examples, model, evaluation, exported):
        judge(model, evaluation, tmp_path, threshold=1.0)
        verdict = tmp_path / "verdict.json"
        with pytest.raises(GateClosedError):
            self.roll_out(tmp_path, examples, exported[0], evaluation, verdict)
        assert self.versions(tmp_path) == []

    def test_verdict_on_another_evaluation(self, tmp_path, examples, evaluation, exported):
        other = tmp_path / "other.json"
        other.write_text(evaluation.read_text() + "\n")
        verdict = bless(other, tmp_path / "verdict.json")
        with pytest.raises(DataError, match="the verdict is of another evaluation"):
            self.roll_out(tmp_path, examples, exported[0], evaluation, verdict)

    def test_export_of_another_verdict(self, tmp_path, examples, evaluation, exported):
        """The same figures from another run of the evaluation, which this export is not of."""
        again = tmp_path / "again.json"
        again.write_text(evaluation.read_text() + "\n")
        verdict = bless(again, tmp_path / "verdict.json")
        with pytest.raises(DataError, match="the evaluation is of another export"):
            self.roll_out(tmp_path, examples, exported[0], again, verdict)

    def test_weights_changed_behind_the_export(self, tmp_path, examples, evaluation, exported):
        changed = Path(shutil.copytree(exported[0], tmp_path / "saved_model"))
        (weights,) = (changed / "variables").glob("*.data-*")
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
        with pytest.raises(DataError, match="expected the files that export_model wrote"):
            self.roll_out(tmp_path, examples, changed, evaluation, exported[1])
        assert self.versions(tmp_path) == []

    def test_papers_that_are_not_there(self, tmp_path, examples, evaluation, exported):
        bare = Path(shutil.copytree(exported[0], tmp_path / "saved_model"))
        (bare / "assets.extra" / "flowers.json").write_text(json.dumps({}))
        with pytest.raises(DataError, match="the evaluation is of another model"):
            self.roll_out(tmp_path, examples, bare, evaluation, exported[1])
