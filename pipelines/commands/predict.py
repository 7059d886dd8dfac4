"""`flowers predict`: what a model says of photos."""

import json
import sys
import time
from collections.abc import Iterable
from typing import Any

import click


@click.command()
@click.argument("model")
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO...")
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="Classes shown.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line and photo.")
def predict(model: str, photos: tuple[str, ...], top: int, as_json: bool) -> int:
    """Asks MODEL about photos.

    MODEL is a SavedModel, or the folder of a run, an export or a registry; gs:// too. PHOTO is a
    file, a folder with all below it, gs://BUCKET/PREFIX, or - for one photo on standard input. Exit
    code 2: some photo could not be used; the others are answered.
    """
    from components.common.step import require_tensorflow
    from pipelines.serving.model import ServedModel, saved_model_at
    from pipelines.serving.offline import ask, find_photos

    require_tensorflow()
    # Before TensorFlow is imported: a wrong place is told at once.
    places = list(find_photos(photos))
    with saved_model_at(model) as folder:
        loaded = ServedModel(folder)
        began = time.perf_counter()
        bad = _print(ask(loaded, places), top, as_json)
        seconds = time.perf_counter() - began
    if len(places) > 1:
        speed = f"{len(places)} photos in {seconds:.1f} s, {len(places) / seconds:.0f} photos/s"
        print(speed, file=sys.stderr)
    if bad:
        print(f"flowers predict: {bad} of {len(places)} photos could not be used", file=sys.stderr)
    return 2 if bad else 0


def _print(answers: Iterable[Any], top: int, as_json: bool) -> int:
    """Prints answers as they come; returns how many photos were bad."""
    bad = 0
    for answer in answers:
        bad += bool(answer.problem)
        if as_json:
            content = {"photo": answer.place, "label": answer.label or None}
            content |= {"probabilities": answer.probabilities}
            if answer.problem:
                content = {"photo": answer.place, "error": answer.problem}
            click.echo(json.dumps(content, ensure_ascii=False))
        elif answer.problem:
            click.echo(f"{answer.place}  {answer.problem}")
        else:
            shown = list(answer.probabilities.items())[:top]
            figures = "  ".join(f"{name} {100 * share:.1f} %" for name, share in shown)
            click.echo(f"{answer.place}  {figures}")
    return bad
