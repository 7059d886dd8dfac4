"""The command line of the step: `python -m components.report_run`."""

from pathlib import Path

import click

from components.common.cli import PATH, run_cli
from components.common.step import run_step


@click.command("report-run")
@click.option("--verdict", type=PATH, required=True, help="JSON file of gate-model.")
@click.option("--evaluation", type=PATH, required=True, help="JSON file of evaluate-model.")
@click.option("--evaluation-page", type=PATH, required=True, help="report.html of evaluate-model.")
@click.option("--training-page", type=PATH, required=True, help="report.html of train-model.")
@click.option("--augmentation-page", type=PATH, required=True, help="That of augment-examples.")
@click.option("--data-page", type=PATH, required=True, help="That of ingest-examples.")
@click.option("--run-name", default="", help="Name of the run.")
@click.option("--command", default="", help="What made the run.")
@click.option("--output", type=PATH, required=True, help="HTML file to make.")
def command(
    verdict: Path,
    evaluation: Path,
    evaluation_page: Path,
    training_page: Path,
    augmentation_page: Path,
    data_page: Path,
    run_name: str,
    command: str,
    output: Path,
) -> None:
    """Puts the pages of the steps behind the verdict of the gate."""
    with run_step("report-run"):
        from components.report_run.report import report_at_gate

        pages = [evaluation_page, training_page, augmentation_page, data_page]
        report_at_gate(verdict, evaluation, pages, output, run_name, command)


if __name__ == "__main__":
    run_cli(command)
