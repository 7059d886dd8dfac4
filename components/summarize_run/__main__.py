"""The command line of the step: `python -m components.summarize_run`."""

from pathlib import Path

import click

from components.common.cli import PATH, run_cli
from components.common.outputs import staged
from components.common.step import run_step


@click.command("summarize-run")
@click.option("--job", required=True, help="Resource name of the pipeline job.")
@click.option("--state", default="SUCCEEDED", show_default=True, help="How it ended.")
@click.option("--error", default="", help="Message of the failure.")
@click.option("--output", type=PATH, required=True, help="Folder to make.")
def command(job: str, state: str, error: str, output: Path) -> None:
    """Writes down what became of a run on Vertex AI.

    Makes OUTPUT/summary.json and OUTPUT/report.html.
    """
    with run_step("summarize-run"):
        from components.summarize_run.summarize import summarize

        with staged(output) as (folder,):
            summarize(job, state, error, folder / "summary.json", folder / "report.html")


if __name__ == "__main__":
    run_cli(command)
