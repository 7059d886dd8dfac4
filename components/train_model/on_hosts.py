"""Training on several hosts, as the task of the pipeline sees it: their pods in, a model out."""

import dataclasses
import json
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any

from components.common import storage
from components.common.config import build
from components.common.outputs import staged
from components.train_model.accelerators import AcceleratorConfig
from components.train_model.architectures import ModelConfig
from components.train_model.config import TrainConfig
from components.train_model.jobset import (
    AUTO,
    BY_TRAINJOB,
    POD_NAME,
    POD_UID,
    PodsConfig,
    make_jobset,
    pod_command,
)
from components.train_model.launch import Kubernetes, own_namespace, run_hosts
from components.train_model.trainjob import TRAINJOB, make_trainjob
from components.train_model.transfer import check_remote, checkpoint_place, download


@dataclasses.dataclass(frozen=True)
class Places:
    """Where the hosts read and write, `gs://` folders.

    Attributes:
        examples: Data set with the validation split.
        augmented: Data set with the train split.
        model: The model artifact; the outputs of the hosts are put beside it.
        checkpoint: Checkpoint; empty for one beside the model.
    """

    examples: str
    augmented: str
    model: str
    checkpoint: str = ""

    def __post_init__(self) -> None:
        for name in ("examples", "augmented", "model"):
            check_remote(name, getattr(self, name))
        if self.checkpoint:
            check_remote("checkpoint", self.checkpoint)

    @property
    def output(self) -> str:
        """Where host 0 leaves what came of the training."""
        return self.model.rstrip("/") + "-of-hosts"

    @property
    def saved(self) -> str:
        """Where the training is saved on its way."""
        return checkpoint_place(self.checkpoint, self.model)


def train_on_hosts(
    places: Places,
    model_config: dict[str, Any],
    train_config: dict[str, Any],
    accelerator: dict[str, Any],
    checkpoint_steps: int,
    pods: dict[str, Any],
    model: Path,
    metrics: Path,
    report: Path,
    kubernetes: Kubernetes | None = None,
    namespace: str = "",
) -> dict[str, Any]:
    """Trains in pods that it makes and brings their outputs here.

    Args:
        places: Where they read and write.
        model_config: Architecture; keys of `ModelConfig`.
        train_config: How to train; keys of `TrainConfig`.
        accelerator: What to train on.
        checkpoint_steps: Steps between two checkpoints within an epoch.
        pods: Keys of `PodsConfig`.
        model: Folder to make.
        metrics: JSON file to make.
        report: HTML page to make.
        kubernetes: The API server; None for that of this pod.
        namespace: Where the pods are made; empty for that of this pod.

    Returns:
        Figures of the epoch kept.

    Raises:
        ConfigError: A configuration is wrong; nothing was made.
        FlowersError: A host failed.
    """
    # Here, and not on each host after its node came up.
    build(ModelConfig, model_config, "model")
    build(TrainConfig, train_config, "train")
    build(AcceleratorConfig, accelerator, "accelerator")
    config = build(PodsConfig, pods, "pods")
    command = pod_command(
        examples=places.examples,
        augmented=places.augmented,
        output=places.output,
        model_config=model_config,
        train_config=train_config,
        accelerator=accelerator,
        checkpoint=places.saved,
        checkpoint_steps=checkpoint_steps,
    )
    where = namespace or own_namespace()
    name = f"flowers-{secrets.token_hex(4)}"
    jobset = make_jobset(config, name, where, command, _owner())
    kubernetes = kubernetes or Kubernetes()
    launcher = config.launcher
    if launcher == AUTO and kubernetes.has(TRAINJOB):
        launcher = BY_TRAINJOB
    # What an earlier try left would pass for what comes of this one.
    storage.remove_folder(places.output)
    run_hosts(kubernetes, make_trainjob(jobset) if launcher == BY_TRAINJOB else [jobset])
    figures = _bring(places.output, model, metrics, report)
    storage.remove_folder(places.output)
    if not places.checkpoint:
        storage.remove_folder(places.saved)
    return figures


def _owner() -> dict[str, Any] | None:
    name, uid = os.environ.get(POD_NAME), os.environ.get(POD_UID)
    if not (name and uid):
        return None
    return {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}


def _bring(place: str, model: Path, metrics: Path, report: Path) -> dict[str, Any]:
    """Takes the outputs of the hosts as the outputs of this task."""
    with tempfile.TemporaryDirectory() as scratch:
        came = Path(scratch)
        download(place, came)
        with staged(report, metrics, model) as (staged_report, staged_metrics, folder):
            shutil.copyfile(came / "report.html", staged_report)
            shutil.copyfile(came / "metrics.json", staged_metrics)
            shutil.copytree(came / "model", folder)
        figures: dict[str, Any] = json.loads((came / "metrics.json").read_text(encoding="utf-8"))
    return figures
