"""`flowers report`: the page of a run."""

import sys
from pathlib import Path

import click

from pipelines.commands.runs import OUTPUT


@click.command()
@click.argument("run", required=False)
@OUTPUT
@click.option(
    "--hourly-price",
    type=click.FloatRange(0),
    help="What an hour of the machine costs: writes the page anew, with the cost of each step.",
)
@click.option("--open/--no-open", "wanted", default=None, help="Open a browser.  [on a terminal]")
def report(run: str | None, output: Path, hourly_price: float | None, wanted: bool | None) -> None:
    """Opens the page of a run: of RUN, its name or its folder, or else of the newest."""
    from pipelines.report import REPORT_FILE, write_run_report
    from pipelines.runs import find_run

    found = find_run(output, run)
    page = found.folder / REPORT_FILE
    if hourly_price is not None or not page.is_file():
        write_run_report(found.folder, found.content, hourly_price)
    click.echo(page)
    if sys.stdout.isatty() if wanted is None else wanted:
        import webbrowser

        if not webbrowser.open(page.resolve().as_uri()):
            click.echo("no browser could be started; open the file yourself", err=True)
