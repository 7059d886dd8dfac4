"""The report of a run with a large test split: how long it takes to make, and how large it is.

    python -m benchmarks.report --examples 100000 --classes 5
    python -m benchmarks.report --examples 100000 --classes 1000

Answers are drawn from a seed; photos have 331 pixels and about the bytes of real ones.
What is timed is all that evaluation and the report do with answers: counting, calibration, charts,
gallery, and the page of the run around it.
"""

import base64
import io
import os
import platform
import resource
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from PIL import Image

from components.common.step import import_tensorflow_quietly


def _show(name: str, value: str) -> None:
    click.echo(f"{name:<46} {value}")


def _photos(count: int, rng: np.random.Generator) -> list[bytes]:
    photos = []
    for _ in range(count):
        buffer = io.BytesIO()
        blotches = rng.integers(0, 256, (72, 72, 3), dtype=np.uint8)
        noise = Image.fromarray(blotches).resize((331, 331), Image.Resampling.BICUBIC)
        noise.save(buffer, "JPEG", quality=95, subsampling=0)
        photos.append(buffer.getvalue())
    return photos


@click.command()
@click.option("--examples", default=100_000, show_default=True, help="Test photos.")
@click.option("--classes", default=5, show_default=True, help="Classes.")
def main(examples: int, classes: int) -> None:
    """Makes the report of a run whose test split is large."""
    import_tensorflow_quietly()
    from components.evaluate_model.evaluate import Scores, count_scores
    from components.evaluate_model.report import write_report
    from components.report_run.report import RunFacts
    from components.report_run.report import write_report as write_run

    rng = np.random.default_rng(7)
    photos = _photos(64, rng)
    labels = rng.integers(0, classes, examples)
    shares = rng.dirichlet(np.full(classes, 0.3), examples).astype(np.float32)
    # Four of five are right.
    right = rng.random(examples) < 0.8
    best = shares.argmax(axis=1)
    for index in np.flatnonzero(right):
        row = shares[index]
        row[[best[index], labels[index]]] = row[[labels[index], best[index]]]
    names = tuple(f"class {number}" for number in range(classes))
    _show("machine", f"{os.cpu_count()} cores, {platform.machine()}, {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        scores = Scores()
        for number, (label, row) in enumerate(zip(labels.tolist(), shares, strict=True)):
            scores.add(photos[number % len(photos)], label, row)
        evaluation = count_scores(scores, names)
        counted = time.perf_counter() - began
        mistakes = [
            one._replace(heat=rng.random((8, 8)).astype(np.float32))
            for one in scores.worst_mistakes()
        ]
        page, report = Path(folder, "evaluation.html"), Path(folder, "report.html")
        write_report(evaluation, mistakes, page)
        facts = RunFacts("Run", "Gate open.", True, {}, "flowers run", 0.8, evaluation)
        write_run(facts, [page], report)
        seconds = time.perf_counter() - began
        size = report.stat().st_size
    bare = sum(len(base64.b64encode(one.jpeg)) for one in mistakes)
    _show(f"{examples} examples, {classes} classes: counting", f"{counted:.1f} s")
    _show("with charts, gallery and page", f"{seconds:.1f} s")
    _show("size of the report", f"{size / 1e6:.2f} MB")
    _show("the pictures of the gallery as they were", f"{bare / 1e6:.2f} MB")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    _show("peak memory, answers included", f"{peak:.0f} MiB")


if __name__ == "__main__":
    main()
