"""The command line of the step: `python -m components.export_model`."""

from pathlib import Path

import click

from components.common.cli import PATH, run_cli
from components.common.outputs import staged
from components.common.step import import_tensorflow_quietly, run_step


@click.command("export-model")
@click.option("--examples", type=PATH, required=True, help="Examples of ingest-examples.")
@click.option("--model", type=PATH, required=True, help="Model of train-model.")
@click.option("--evaluation", type=PATH, required=True, help="JSON file of evaluate-model.")
@click.option("--output", type=PATH, required=True, help="Folder to make.")
def command(examples: Path, model: Path, evaluation: Path, output: Path) -> None:
    """Writes a SavedModel that takes photos as they are.

    Makes OUTPUT/saved_model, once it says the same as the evaluated model on every test image.
    """
    with run_step("export-model"):
        import_tensorflow_quietly()
        from components.export_model.export import export

        with staged(output) as (folder,):
            export(examples, model, evaluation, folder / "saved_model")


if __name__ == "__main__":
    run_cli(command)
