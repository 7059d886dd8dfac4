"""One host of a training on several: brings the inputs from the bucket, trains, takes outputs back.

    python -m components.train_model.pod --examples gs://... --augmented gs://... --output gs://...

The training itself is `python -m components.train_model`, on folders of this pod. Host 0 writes the
outputs and the checkpoints, and hands on what is left of an earlier try.
"""

import os
import tempfile
from pathlib import Path

import click

from components.common.cli import run_cli
from components.common.step import run_step
from components.train_model.__main__ import command as train_command
from components.train_model.hosts import read_hosts


@click.command("train-model-pod")
@click.option("--examples", required=True, help="gs:// folder of ingest-examples.")
@click.option("--augmented", required=True, help="gs:// folder of augment-examples.")
@click.option("--output", required=True, help="gs:// folder to write.")
@click.option("--model-config", required=True, metavar="JSON", help="Architecture.")
@click.option("--train-config", required=True, metavar="JSON", help="How to train.")
@click.option("--accelerator", default="{}", metavar="JSON", help="What to train on.")
@click.option("--checkpoint", required=True, help="gs:// folder of the checkpoint.")
@click.option("--checkpoint-steps", type=click.IntRange(min=0), default=0, show_default=True)
def command(
    examples: str,
    augmented: str,
    output: str,
    model_config: str,
    train_config: str,
    accelerator: str,
    checkpoint: str,
    checkpoint_steps: int,
) -> None:
    """Trains as one of several hosts."""
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        with run_step("train-model"):
            from components.train_model.transfer import check_remote, download, upload

            hosts = read_hosts(os.environ)
            for name, place in (("examples", examples), ("augmented", augmented)):
                check_remote(name, place)
                download(place, here / name)
        arguments = [
            *("--examples", str(here / "examples"), "--augmented", str(here / "augmented")),
            *("--output", str(here / "output"), "--checkpoint", checkpoint),
            *("--checkpoint-steps", str(checkpoint_steps)),
            *("--model-config", model_config, "--train-config", train_config),
            *("--accelerator", accelerator),
        ]
        train_command.main(arguments, standalone_mode=False)
        if hosts.is_first:
            upload(here / "output", output)


if __name__ == "__main__":
    run_cli(command)
