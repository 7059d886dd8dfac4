"""Recipes: every hyperparameter and the gate, in one checked YAML file."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from components.augment_examples.config import AugmentConfig
from components.common.config import build, override, read_mapping
from components.common.recipes import recipe_path
from components.deploy_model.config import DeployConfig, check_model_name
from components.export_model.config import ExportConfig
from components.gate_model.config import GateConfig
from components.ingest_examples.config import IngestConfig, PhotosConfig
from components.train_model.accelerators import AcceleratorConfig
from components.train_model.agreement import check_agreement
from components.train_model.architectures import ModelConfig
from components.train_model.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that a run needs but the photos.

    Attributes:
        ingest: How photos become examples.
        augment: How the train split is augmented.
        model: Architecture.
        train: How the model is trained.
        gate: What it must reach.
        deploy: When it takes the place of the champion.
        export: In which formats it leaves, and what its card says.
    """

    ingest: IngestConfig
    augment: AugmentConfig
    model: ModelConfig
    train: TrainConfig
    gate: GateConfig
    deploy: DeployConfig = dataclasses.field(default_factory=DeployConfig)
    export: ExportConfig = dataclasses.field(default_factory=ExportConfig)

    def __post_init__(self) -> None:
        check_agreement(self.model, self.train, self.ingest.image_size)


@dataclasses.dataclass(frozen=True)
class DeploymentConfig:
    """Where an exported model goes.

    Attributes:
        registry: A folder, or `vertex://PROJECT/REGION`; empty: it is exported and no more.
        model_name: Name of the model and of its endpoint.
        run_name: Name of the run, for the labels of the version.
        serving_config: What serves on Vertex AI, see `ServingConfig`.
        command: What makes the run, for its report.
    """

    registry: str = ""
    model_name: str = "flowers"
    run_name: str = ""
    serving_config: dict[str, Any] = dataclasses.field(default_factory=dict)
    command: str = ""

    def __post_init__(self) -> None:
        check_model_name(self.model_name)


NO_DEPLOYMENT = DeploymentConfig()
ANY_ACCELERATOR = AcceleratorConfig()


def load_recipe(name_or_path: str, assignments: Iterable[str] = ()) -> Recipe:
    """Reads a recipe and checks all of it.

    Args:
        name_or_path: Name of a recipe of the project, or path of a YAML file.
        assignments: Changes as `key.path=value`, e.g. `train.epochs=5`.

    Raises:
        ConfigError: There is no such recipe, or a key is unknown, missing or out of range.
    """
    content = override(read_mapping(recipe_path(name_or_path)), assignments)
    return build(Recipe, content)


def pipeline_parameters(
    photos: PhotosConfig,
    recipe: Recipe,
    deployment: DeploymentConfig = NO_DEPLOYMENT,
    accelerator: AcceleratorConfig = ANY_ACCELERATOR,
    checkpoint_steps: int = 0,
) -> dict[str, Any]:
    """The arguments of `flowers_pipeline`, as plain data.

    Args:
        photos: Where the photos are.
        recipe: Every hyperparameter and the gate.
        deployment: Where an exported model goes.
        accelerator: What the model is trained on; a target that has machines says so itself.
        checkpoint_steps: Steps between two checkpoints within an epoch; 0 for none.
    """
    return {
        **dataclasses.asdict(photos),
        **dataclasses.asdict(recipe.ingest),
        "augment_copies": recipe.augment.copies,
        "augment_seed": recipe.augment.seed,
        "augment_policy": plain(recipe.augment.policy),
        "model_config": plain(recipe.model),
        "train_config": plain(recipe.train),
        "checkpoint": "",
        "checkpoint_steps": checkpoint_steps,
        "accelerator": plain(accelerator),
        "gate_threshold": recipe.gate.threshold,
        "export_config": plain(recipe.export),
        "deploy_config": plain(recipe.deploy),
        **dataclasses.asdict(deployment),
    }


def plain(config: Any) -> dict[str, Any]:
    """A dataclass as KFP and JSON take it: tuples are lists, and what is None is left out."""
    plain = _lists(dataclasses.asdict(config))
    assert isinstance(plain, dict)
    return plain


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_lists(item) for item in value]
    return value
