"""The command line of the step: `python -m components.gate_model`."""

from pathlib import Path

import click

from components.common.cli import PATH, run_cli
from components.common.config import build
from components.common.errors import GateClosedError
from components.common.recipes import recipe_option, recipe_section
from components.common.step import run_step
from components.gate_model.config import GateConfig


@click.command("gate-model")
@click.option("--model", type=PATH, required=True, help="Model of train-model.")
@click.option("--evaluation", type=PATH, required=True, help="JSON file of evaluate-model.")
@recipe_option("gate")
@click.option(
    "--threshold",
    type=float,
    help="Smallest top-1 accuracy, above 0 and at most 1; without any the gate stays closed.",
)
@click.option("--output", type=PATH, required=True, help="JSON file to make, the verdict.")
def command(
    model: Path, evaluation: Path, recipe: str | None, threshold: float | None, output: Path
) -> None:
    """Decides whether a model may be exported; exit code 3 says no.

    The verdict with its reason is written either way.
    """
    with run_step("gate-model"):
        from components.gate_model.gate import gate

        if threshold is None and recipe is not None:
            threshold = build(GateConfig, recipe_section(recipe, "gate"), "gate").threshold
        verdict = gate(model, evaluation, threshold, output)
        if not verdict.blessed:
            raise GateClosedError(f"gate closed: {verdict.reason}")


if __name__ == "__main__":
    run_cli(command)
