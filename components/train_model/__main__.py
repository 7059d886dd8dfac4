"""The command line of the step: `python -m components.train_model`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from components.common.cli import PATH, run_cli
from components.common.config import build, choose, override, read_mapping
from components.common.errors import ConfigError
from components.common.outputs import staged
from components.common.recipes import SECTIONS, recipe_path
from components.common.step import run_step
from components.train_model.accelerators import open_accelerator, parse_accelerator
from components.train_model.architectures import ModelConfig
from components.train_model.config import CheckpointConfig, TrainConfig


@click.command("train-model")
@click.option("--examples", type=PATH, required=True, help="Examples of ingest-examples.")
@click.option("--augmented", type=PATH, required=True, help="Train split of augment-examples.")
@click.option("--output", type=PATH, required=True, help="Folder to make.")
@click.option(
    "--recipe", metavar="NAME|FILE", help="Recipe; its sections model and train are used."
)
@click.option("--model-config", metavar="FILE|JSON", help="Architecture, in place of a recipe's.")
@click.option("--train-config", metavar="FILE|JSON", help="How to train, in place of a recipe's.")
@click.option(
    "--checkpoint",
    default="",
    metavar="DIR|gs://...",
    help="Save training there, and go on from there after it was killed.",
)
@click.option(
    "--checkpoint-steps",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Steps between two checkpoints within an epoch; 0 for one at the end of each.",
)
@click.option(
    "--accelerator",
    metavar="KIND|FILE|JSON",
    help="What to train on: auto, tpu, gpu or cpu, or also how, e.g. "
    '{"kind": "gpu", "runtime": "jax"}.  [auto]',
)
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="E.g. train.epochs=5."
)
def command(
    examples: Path,
    augmented: Path,
    output: Path,
    recipe: str | None,
    model_config: str | None,
    train_config: str | None,
    checkpoint: str,
    checkpoint_steps: int,
    accelerator: str | None,
    assignments: tuple[str, ...],
) -> None:
    """Trains a model and keeps the weights that the recipe says to keep.

    Makes OUTPUT/model (model.keras, model.json, history.json, tensorboard/), OUTPUT/metrics.json
    and OUTPUT/report.html.

    On SIGTERM it saves its checkpoint and ends with exit code 75: start the same again to go on.
    Several hosts train one model with FLOWERS_HOSTS (their number), FLOWERS_HOST (which one, from
    0) and FLOWERS_COORDINATOR (name:port of host 0); host 0 makes OUTPUT.
    """
    with run_step("train-model"):
        architecture, training = _configs(recipe, model_config, train_config, assignments)
        devices = parse_accelerator(accelerator)
        saving = CheckpointConfig(checkpoint, checkpoint_steps)
        with (
            open_accelerator(devices, training=training) as opened,
            _output(output, opened.hosts.is_first) as folder,
        ):
            # Keras takes its backend when it is imported.
            from components.train_model.train import train

            train(
                examples,
                augmented,
                architecture,
                training,
                folder / "model",
                folder / "metrics.json",
                folder / "report.html",
                saving,
                opened,
            )


@contextmanager
def _output(output: Path, writes: bool) -> Iterator[Path]:
    """The folder to write into; a host that writes nothing makes none."""
    if not writes:
        yield output
        return
    with staged(output) as (folder,):
        yield folder


def _configs(
    recipe: str | None,
    model_config: str | None,
    train_config: str | None,
    assignments: tuple[str, ...],
) -> tuple[ModelConfig, TrainConfig]:
    sections = read_mapping(recipe_path(recipe)) if recipe else {}
    given = {"model": model_config, "train": train_config}
    sections |= {name: read_mapping(text) for name, text in given.items() if text}
    sections = override(sections, assignments)
    for name in sections:
        choose("section", name, SECTIONS)
    for name in given:
        if name not in sections:
            raise ConfigError(f"{name}: missing; give --recipe NAME or --{name}-config FILE|JSON")
    return (
        build(ModelConfig, sections["model"], "model"),
        build(TrainConfig, sections["train"], "train"),
    )


if __name__ == "__main__":
    run_cli(command)
