"""Compiles the train steps of recipes for slices of TPUs, and shows what the compiler says of them.

    python -m benchmarks.tpu_check --rows build/tpu_check.jsonl

Needs the environment of `make tpu-check` and no TPU; takes about an hour on two cores. Rows that
the file has are not compiled again. Nothing here passes or fails.
"""

import json
import sys
from pathlib import Path
from typing import Any

import click

from pipelines.recipe import load_recipe
from pipelines.targets.tpu_chips import TpuSlice, parse_slice
from pipelines.tpu_check.check import Report, make_task, require
from pipelines.tpu_check.compiler import Compiler, open_compiler
from pipelines.tpu_check.messages import Refused
from pipelines.tpu_check.report import as_data

RECIPES = ("squeezenet", "squeezenet_lab", "xception")
TOPOLOGIES = ("v5e:2x4", "v2:2x2", "v3:2x2", "v4:2x2x1", "v6e:2x4")
BATCHES = (16, 128)
# The public flower photos.
_EXAMPLES = 3670
_HEADER = (
    "| recipe | slice | images a core | peak GiB | GFLOP | GB accessed | GB of HBM | of peak | "
    "bound | images/s a core | heaviest in HBM | s |"
)


@click.command()
@click.option("--recipe", "recipes", multiple=True, default=RECIPES)
@click.option("--topology", "topologies", multiple=True, default=TOPOLOGIES)
@click.option("--batch", "batches", type=int, multiple=True, default=BATCHES)
@click.option("--rows", type=click.Path(path_type=Path), required=True, help="JSON lines.")
def main(
    recipes: tuple[str, ...], topologies: tuple[str, ...], batches: tuple[int, ...], rows: Path
) -> None:
    """Compiles what is not in the file yet, and prints the table of all that is."""
    rows.parent.mkdir(parents=True, exist_ok=True)
    rows.touch()
    for recipe in recipes:
        for topology in topologies:
            _compile_all(recipe, parse_slice(topology), batches, rows)
    _print_table(_read(rows))


def _read(rows: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]


def _compile_all(recipe: str, where: TpuSlice, batches: tuple[int, ...], rows: Path) -> None:
    done = {
        (row["recipe"], row["topology"], row["compiled"]["batch_per_core"]) for row in _read(rows)
    }
    missing = [batch for batch in batches if (recipe, str(where), batch) not in done]
    if not missing:
        return
    with open_compiler(make_task(load_recipe(recipe), where, 5)) as compiler:
        for batch in missing:
            row = _row(recipe, where, batch, compiler)
            with rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(recipe, where, batch, row.get("refused", "fits"), file=sys.stderr, flush=True)


def _row(recipe: str, where: TpuSlice, batch: int, compiler: Compiler) -> dict[str, Any]:
    outcome = compiler.compile(batch)
    if isinstance(outcome, Refused):
        return {
            "recipe": recipe,
            "topology": str(where),
            "compiled": {"batch_per_core": batch},
            "refused": outcome.message,
        }
    compiled = require(outcome, where)
    return as_data(Report(recipe, where, compiled, 0, False, compiler.input_rate, _EXAMPLES, None))


def _print_table(rows: list[dict[str, Any]]) -> None:
    print(_HEADER)
    print("|" + "---|" * _HEADER.count(" | ") + "---|")
    for row in sorted(rows, key=lambda row: (row["compiled"]["batch_per_core"], row["topology"])):
        print(_line(row))
    _print_ratios(rows)


def _line(row: dict[str, Any]) -> str:
    compiled = row["compiled"]
    start = f"| {row['recipe']} | {row['topology']} | {compiled['batch_per_core']} | "
    if "refused" in row:
        return start + f"does not fit: {row['refused']} |"
    heavy = compiled["heaviest"][0]
    share = heavy["bytes"] / compiled["hbm_bytes"]
    cells = [
        f"{compiled['peak_bytes'] / 2**30:.2f} of {row['hbm_per_core'] / 2**30:.0f}",
        f"{compiled['flops'] / 1e9:,.0f}",
        f"{compiled['bytes_accessed'] / 1e9:.2f}",
        f"{compiled['hbm_bytes'] / 1e9:.2f}",
        f"{row['of_peak']:.0%}",
        row["bound"],
        f"{row['images_per_second_per_core']:,.0f}",
        f"{heavy['name']} ({share:.0%})",
        f"{compiled['seconds']:.0f}",
    ]
    return start + " | ".join(cells) + " |"


def _print_ratios(rows: list[dict[str, Any]]) -> None:
    """How many times the bytes per image of `squeezenet` the lab's net moves."""
    found = {
        (row["recipe"], row["topology"], row["compiled"]["batch_per_core"]): row["compiled"]
        for row in rows
        if "refused" not in row
    }
    print()
    for (recipe, topology, batch), lab in sorted(found.items(), key=str):
        ours = found.get(("squeezenet", topology, batch))
        if recipe == "squeezenet_lab" and ours:
            ratios = [lab[name] / ours[name] for name in ("bytes_accessed", "hbm_bytes")]
            print(
                f"{topology}, {batch} a core: squeezenet_lab accesses {ratios[0]:.1f} times the "
                f"bytes of squeezenet, and moves {ratios[1]:.1f} times the bytes of HBM"
            )


if __name__ == "__main__":
    main()
