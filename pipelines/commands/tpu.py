"""`flowers tpu`: what a TPU needs and costs, before one is paid for."""

import functools
from pathlib import Path

import click

from components.common.cli import PATH
from pipelines.commands.options import FOR_PHOTOS, recipe_options


@click.group()
def tpu() -> None:
    """Asks the compiler of TPUs, on a machine without one."""


@tpu.command()
@functools.partial(recipe_options, default=FOR_PHOTOS)
@click.option("--topology", required=True, help="Generation and topology, e.g. v5e:2x4.")
@click.option(
    "--batch-per-core",
    type=click.IntRange(1),
    help="Images a core.  [the batch of the recipe over the cores]",
)
@click.option("--classes", type=click.IntRange(2), default=5, show_default=True)
@click.option(
    "--examples",
    type=click.IntRange(1),
    default=3670,
    show_default=True,
    help="Images of an epoch; there are 3,670 public flower photos.",
)
@click.option("--prices", type=PATH, help="Price table; flowers tpu prices prints one to edit.")
@click.option(
    "--largest-batch/--no-largest-batch",
    default=True,
    show_default=True,
    help="Look for the largest batch that fits, which compiles a few times.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def check(
    recipe: str | None,
    assignments: tuple[str, ...],
    topology: str,
    batch_per_core: int | None,
    classes: int,
    examples: int,
    prices: Path | None,
    largest_batch: bool,
    as_json: bool,
) -> None:
    """Compiles the train step of a recipe for a slice of TPUs that is not there.

    Exit code 0: it compiles and fits. 3: it does not, and a line names the operation. 2: your
    mistake.
    """
    from components.common.config import to_json
    from pipelines.recipe import load_recipe
    from pipelines.targets.tpu_chips import parse_slice
    from pipelines.tpu_check.check import batch_of, make_task, run_check
    from pipelines.tpu_check.compiler import open_compiler
    from pipelines.tpu_check.prices import load_prices
    from pipelines.tpu_check.report import as_data, as_text

    name = FOR_PHOTOS if recipe is None else recipe
    where, loaded = parse_slice(topology), load_recipe(name, assignments)
    price = load_prices(prices).get(where.generation)
    batch = batch_per_core or batch_of(loaded, where)
    with open_compiler(make_task(loaded, where, classes)) as compiler:
        report = run_check(
            name, loaded, where, batch, compiler, examples, price, search=largest_batch
        )
    click.echo(to_json(as_data(report)) if as_json else as_text(report), nl=not as_json)


@tpu.command()
def prices() -> None:
    """Prints the price table, to edit and to give to flowers tpu check --prices."""
    from pipelines.tpu_check.prices import DEFAULT_PRICES

    click.echo(DEFAULT_PRICES.read_text(encoding="utf-8"), nl=False)
