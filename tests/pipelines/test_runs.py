"""`flowers runs` and `flowers report`, on folders as runs leave them."""

import dataclasses
import json

import pytest

from components.common.cli import run_cli
from components.common.config import to_json
from pipelines.cli import flowers
from tests.builders import make_evaluation


def make_run(output, name, started, evaluated=True, **parameters):
    folder = output / name
    folder.mkdir(parents=True)
    content = {
        "state": "succeeded" if evaluated else "failed",
        "exit_code": 0 if evaluated else 2,
        "started_at": started,
        "seconds": 60.0,
        "command": "flowers run --images photos",
        "recipe": "quick",
        "parameters": {"run_name": name, "train_config": parameters},
        "inputs": {"data_fingerprint": "f" * 64},
        "tasks": {"train-model": {"state": "succeeded", "seconds": 36.0, "work_seconds": 30.0}},
        "verdict": {"blessed": True, "reason": "fine", "threshold": 0.8} if evaluated else None,
        "failure": None if evaluated else "no photos",
    }
    (folder / "run.json").write_text(json.dumps(content))
    if evaluated:
        scores = folder / "steps" / "evaluate-model" / "evaluation"
        scores.parent.mkdir(parents=True)
        scores.write_text(to_json(dataclasses.asdict(make_evaluation())))
    return folder


@pytest.fixture
def output(tmp_path):
    make_run(tmp_path / "runs", "first", "2026-11-01T10:00:00", epochs=3, seed=1)
    make_run(tmp_path / "runs", "second", "2026-11-02T10:00:00", epochs=5, seed=1)
    make_run(tmp_path / "runs", "broken", "2026-11-03T10:00:00", evaluated=False)
    return tmp_path / "runs"


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        run_cli(flowers, [str(one) for one in arguments])
    printed = capsys.readouterr()
    return exit_.value.code, printed.out, printed.err


class TestRuns:
    def test_newest_first(self, capsys, output):
        code, out, _ = run(capsys, "runs", "--output", output)
        assert code == 0
        assert [line.split()[0] for line in out.splitlines()] == [
            "run",
            "broken",
            "second",
            "first",
        ]
        assert "90.00 %" in out.splitlines()[2]

    def test_compares(self, capsys, output):
        _, out, _ = run(capsys, "runs", "first", output / "second", "--output", output)
        (line,) = (one for one in out.splitlines() if one.startswith("train_config"))
        assert line.split() == ["train_config.epochs", "3", "5"]

    def test_as_json(self, capsys, output):
        _, out, _ = run(capsys, "runs", "first", "second", "--output", output, "--json")
        content = json.loads(out)
        assert content["differences"] == {"train_config.epochs": ["3", "5"]}
        assert content["runs"][0]["accuracy"] == 0.9

    def test_absent_run(self, capsys, output):
        code, _, err = run(capsys, "runs", "third", "--output", output)
        assert (code, err.splitlines()) == (
            2,
            [f"flowers: run third: neither in {output} nor a folder of a run; see flowers runs"],
        )

    def test_no_runs(self, capsys, tmp_path):
        code, _, err = run(capsys, "runs", "--output", tmp_path)
        assert code == 2
        assert "holds no run" in err

    def test_damaged_run(self, capsys, output):
        (output / "first" / "run.json").write_text("{}")
        code, _, err = run(capsys, "runs", "--output", output)
        assert code == 2
        assert "not the file of a run" in err


class TestReport:
    def test_of_the_newest_run(self, capsys, output):
        code, out, _ = run(capsys, "report", "--output", output)
        assert (code, out) == (0, f"{output / 'broken' / 'report.html'}\n")
        assert "No model: no photos." in (output / "broken" / "report.html").read_text()

    def test_speed_of_training_counts_the_epochs_of_every_phase(self, capsys, output):
        steps = output / "first" / "steps"
        for path, content in (
            (steps / "augment-examples" / "augmented" / "dataset.json", {"counts": {"train": 60}}),
            # Three were asked for, after two of the head alone.
            (steps / "train-model" / "model" / "history.json", {"history": [{}] * 5}),
        ):
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(content))
        run(capsys, "report", "first", "--output", output)
        assert "10 examples/s" in (output / "first" / "report.html").read_text()

    def test_price_fills_in_the_costs(self, capsys, output):
        run(capsys, "report", "first", "--output", output)
        page = output / "first" / "report.html"
        assert "--hourly-price" in page.read_text()
        run(capsys, "report", "first", "--output", output, "--hourly-price", "2")
        assert "0.0200" in page.read_text()
