import dataclasses
import itertools
import json
import re
from pathlib import Path

import pytest
import yaml

from components.common.errors import ConfigError
from components.common.recipes import SECTIONS, recipe_names, recipe_path
from components.ingest_examples.config import PhotosConfig
from components.train_model.architectures import IMAGENET
from pipelines.recipe import Recipe, load_recipe, pipeline_parameters


@pytest.mark.parametrize("name", recipe_names())
def test_gate_is_80_percent_from_scratch_and_95_fine_tuned(name):
    recipe = load_recipe(name)
    assert recipe.gate.threshold == (0.95 if recipe.model.weights == IMAGENET else 0.8)


@pytest.mark.parametrize("name", recipe_names())
def test_header_says_where_it_comes_from_and_what_to_expect(name):
    lines = Path(recipe_path(name)).read_text(encoding="utf-8").splitlines()
    header = " ".join(
        line[1:].strip() for line in itertools.takewhile(lambda x: x[:1] == "#", lines)
    )
    assert re.search(
        r" Source: .+ Command: flowers (run|submit)\b.* Expected: .+ Duration: ", header
    )
    assert re.search(r"measured (here|yet)|reported", header, re.IGNORECASE)
    passes = re.search(r"(\d+) passes over", header)
    assert passes is None or int(passes[1]) == load_recipe(name).train.total_epochs


def test_sections_are_those_of_a_recipe():
    assert {field.name for field in dataclasses.fields(Recipe)} == set(SECTIONS)


def test_assignment_changes_one_value():
    assert load_recipe("squeezenet", ["train.epochs=5"]).train.epochs == 5
    changed = load_recipe("squeezenet", ["train.epochs=5"])
    plain = load_recipe("squeezenet")
    train = dataclasses.replace(changed.train, epochs=plain.train.epochs)
    assert dataclasses.replace(changed, train=train) == plain


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("train.epochs=-1", ["train.epochs", "1 to 100000", "-1"]),
        ("train.epochz=1", ["train.epochz", "unknown", "epochs"]),
        ("train.epochs=many", ["train.epochs", "a whole number", "'many'"]),
        ("train=3", ["train", "3"]),
        ("gate.threshold=1.1", ["gate.threshold", "1.1"]),
        ("gate.threshold=0", ["gate.threshold", "0"]),
        ("gate.threshold=.nan", ["gate.threshold", "nan"]),
        ("model.stages=[[[3, 5]]]", ["model.stages", "even", "5"]),
        ("model.name=resnet", ["model.name", "squeezenet", "'resnet'"]),
        ("train.optimizer.name=lion", ["train.optimizer.name", "adamw", "'lion'"]),
        ("train.epochs", ["train.epochs", "KEY=VALUE"]),
        ("model.test_size=-1", ["model.test_size", "0 to 4096", "-1"]),
    ],
)
def test_wrong_assignment_names_the_key(assignment, words):
    with pytest.raises(ConfigError) as error:
        load_recipe("squeezenet", [assignment])
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "smallest"), [("xception", 71), ("mobilenet_v2", 32)])
def test_images_too_small_for_the_net(name, smallest):
    with pytest.raises(ConfigError, match=f"ingest.image_size: expected at least {smallest} for"):
        load_recipe(name, [f"ingest.image_size={smallest - 1}"])
    load_recipe(name, [f"ingest.image_size={smallest}"])


def test_name_that_is_changed_alone_says_how_to_change_it():
    with pytest.raises(ConfigError, match=r"weight_decay: unknown key.*clip_norm") as error:
        load_recipe("squeezenet", ["train.optimizer.name=adam"])
    assert str(error.value).endswith("give it all: train.optimizer={name: adam, ...}")
    assert load_recipe("squeezenet", ["train.optimizer={name: sgd}"]).train.optimizer.name == "sgd"


def test_large_bounds_are_written_out():
    with pytest.raises(ConfigError, match=r"expected 0 to 1048576, received -1$"):
        load_recipe("squeezenet", ["train.ghost_batch_size=-1"])


@pytest.mark.parametrize(
    ("name", "assignments", "reason"),
    [
        (
            "squeezenet",
            ["train.ghost_batch_size=33"],
            "train.ghost_batch_size: .*divisor of the 64",
        ),
        ("convnet", ["train.crop_size=3"], "train.crop_size: expected at least 16 for convnet"),
        (
            "separable",
            ["train.crop_size=14"],
            "train.crop_size: expected at least 15 for separable",
        ),
        (
            "squeezenet",
            ["train.crop_size=2"],
            "train.crop_size: expected at least 3 for squeezenet",
        ),
        ("dense", ["train.crop_size=96"], "train.crop_size: expected .* with dense"),
        (
            "squeezenet",
            ["model.test_size=96", "train.crop_size=0"],
            "train.crop_size: expected one with a model.test_size of 96, .*received 0",
        ),
        (
            "squeezenet",
            ["train.refine={epochs: 1, schedule: {name: constant, peak: 0.1}}"],
            "train.refine.crop_size: expected one with a model.test_size of 96, .*received 0",
        ),
        (
            "squeezenet",
            ["train.refine={epochs: 1, schedule: {name: constant, peak: 0.1}, crop_size: 2}"],
            "train.refine.crop_size: expected at least 3 for squeezenet, received 2",
        ),
        (
            "squeezenet",
            ["train.progressive_resizing={crop_size: 64}"],
            "train.progressive_resizing.crop_size: expected less than 64, .*received 64",
        ),
        (
            "squeezenet",
            [
                "train.progressive_resizing={crop_size: 160}",
                "train.crop_size=0",
                "model.test_size=0",
            ],
            "train.progressive_resizing.crop_size: expected less than 160, .*received 160",
        ),
        (
            "squeezenet",
            ["train.progressive_resizing={crop_size: 2}"],
            "train.progressive_resizing.crop_size: expected at least 3 for squeezenet, received 2",
        ),
        ("squeezenet", ["model.test_size=2"], "model.test_size: expected at least 3"),
        ("dense", ["model.test_size=96"], "train.crop_size: .*received 0"),
        (
            "squeezenet",
            [
                "model.drop_path=0.2",
                "train.head={epochs: 1, schedule: {name: constant, peak: 0.1}}",
            ],
            "model.drop_path: expected 0 with train.head .*received 0.2",
        ),
        (
            "squeezenet",
            ["model.drop_path=0.2", "train.fine_tune_at=fire3_squeeze1x1"],
            "model.drop_path: expected 0 with .*train.fine_tune_at",
        ),
        ("squeezenet", ["train.batch_norm=frozen", "train.ghost_batch_size=0"], "train.batch_norm"),
        (
            "mobilenet_v2",
            ["model.weights=none", "train.batch_norm=global"],
            "train.fine_tune_at: expected nothing with model.weights none, .*block_6_expand",
        ),
    ],
)
def test_model_and_training_that_do_not_go_together(name, assignments, reason):
    with pytest.raises(ConfigError, match=f"^{reason}"):
        load_recipe(name, assignments)


def test_unknown_recipe_lists_those_there_are():
    with pytest.raises(ConfigError, match=r"expected one of .*squeezenet"):
        load_recipe("sqeezenet")


def test_recipe_from_a_file(tmp_path):
    content = {"gate": {"threshold": 0.5}, "ingest": {}, "augment": {"copies": 2}}
    content |= {
        "model": {"name": "squeezenet", "stem_filters": 8, "stem_stride": 2, "stages": [[[4, 8]]]},
        "train": {
            "epochs": 1,
            "global_batch_size": 4,
            "schedule": {"name": "constant", "peak": 0.1},
        },
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    assert load_recipe(str(path)).augment.copies == 2


def test_recipe_without_a_gate_is_refused(tmp_path):
    path = tmp_path / "open.yaml"
    recipe = dataclasses.asdict(load_recipe("squeezenet"))
    del recipe["gate"]
    path.write_text(json.dumps(recipe))
    with pytest.raises(ConfigError, match="gate: missing"):
        load_recipe(str(path))


def test_parameters_are_plain_data():
    parameters = pipeline_parameters(PhotosConfig("synthetic://flowers"), load_recipe("squeezenet"))
    assert json.loads(json.dumps(parameters)) == parameters


@pytest.mark.parametrize(
    ("name", "pays"),
    [("squeezenet", True), ("xception", True), ("quick", False), ("mobilenet_v2", False)],
)
def test_recipe_takes_bfloat16_of_a_cpu_where_it_was_seen_to_pay(name, pays):
    assert load_recipe(name).model.bfloat16_pays_on_cpu() is pays
