"""The steps as commands, each on the outputs of the steps before it in one folder."""

import json
import sys
from pathlib import Path

from tests.builders import TINY_MODEL, TINY_TRAIN, make_photos

# The smallest recipe that gives every output.
SMALL_RUN = (
    *("--recipe=quick", "--set=ingest.image_size=32", "--set=model.stem_filters=8"),
    *("--set=model.stages=[[[4, 16]], [[8, 32]]]", "--set=model.bypass=false"),
    *("--set=train.epochs=3", "--set=train.global_batch_size=16", "--set=gate.threshold=0.01"),
    "--set=export.litert=false",
)
STEPS = ("ingest", "augment", "train", "evaluate", "gate", "report", "export", "deploy")


def make_workspace(folder: Path) -> Path:
    """A folder with the photos that the first step reads."""
    make_photos(folder / "photos")
    return folder


def step_command(step: str, folder: Path, output: Path, work: Path | None = None) -> list[str]:
    """The command of a step.

    Args:
        step: Its name.
        folder: Holds the outputs of the steps before it, each under the name of its step.
        output: What to make.
        work: Where the training keeps its checkpoint and the deployment its registry, which stay
            when a command is killed; beside the output if not given.
    """
    work = work or output.parent
    examples = folder / "ingest" / "examples"
    model = folder / "train" / "model"
    evaluation = folder / "evaluate" / "evaluation.json"
    pages = {"evaluation": "evaluate", "training": "train", "augmentation": "augment"}
    arguments = {
        "ingest": ["--images", folder / "photos", "--image-size=32"],
        "augment": ["--examples", examples],
        "train": [
            *("--examples", examples, "--augmented", folder / "augment" / "augmented"),
            *("--model-config", json.dumps(TINY_MODEL), "--train-config", json.dumps(TINY_TRAIN)),
            *("--checkpoint", work / "checkpoint", "--checkpoint-steps=2"),
        ],
        "evaluate": ["--examples", examples, "--model", model],
        "gate": ["--model", model, "--evaluation", evaluation, "--threshold=0.01"],
        "report": [
            *("--verdict", folder / "gate", "--evaluation", evaluation),
            *(f"--{name}-page={folder / step / 'report.html'}" for name, step in pages.items()),
            f"--data-page={folder / 'ingest' / 'report.html'}",
        ],
        "export": [
            *("--examples", examples, "--model", model, "--evaluation", evaluation),
            *("--verdict", folder / "gate"),
        ],
        "deploy": [
            *("--examples", examples, "--saved-model", folder / "export" / "saved_model"),
            *("--evaluation", evaluation, "--verdict", folder / "gate"),
            *("--registry", work / "registry"),
        ],
    }
    command = [sys.executable, "-m", "pipelines", "step", step, *arguments[step]]
    return [str(part) for part in [*command, "--output", output]]
