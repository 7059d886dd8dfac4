"""The command line of the step: `python -m components.evaluate_model`."""

from pathlib import Path

import click

from components.common.cli import PATH, run_cli
from components.common.outputs import staged
from components.common.step import import_tensorflow_quietly, run_step


@click.command("evaluate-model")
@click.option("--examples", type=PATH, required=True, help="Examples of ingest-examples.")
@click.option("--model", type=PATH, required=True, help="Model of train-model.")
@click.option("--output", type=PATH, required=True, help="Folder to make.")
def command(examples: Path, model: Path, output: Path) -> None:
    """Scores a model on the test split, every example counted once.

    Makes OUTPUT/evaluation.json and OUTPUT/report.html.
    """
    with run_step("evaluate-model"):
        import_tensorflow_quietly()
        from components.evaluate_model.evaluate import evaluate

        with staged(output) as (folder,):
            evaluate(examples, model, folder / "evaluation.json", folder / "report.html")


if __name__ == "__main__":
    run_cli(command)
