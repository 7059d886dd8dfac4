import dataclasses
from pathlib import Path

import pytest

from components.common import html
from components.common.config import to_json
from components.common.errors import DataError
from components.common.evaluation import wilson_interval
from components.report_run.report import RunFacts, StepCost, report_at_gate, write_report
from tests.builders import bless, make_evaluation


@pytest.fixture
def inputs(tmp_path):
    evaluation = to_json(dataclasses.asdict(make_evaluation()))
    (tmp_path / "evaluation.json").write_text(evaluation)
    bless(tmp_path / "evaluation.json", tmp_path / "verdict.json")
    pages: list[Path] = []
    for title in ("One", "Two <b>"):
        page = tmp_path / f"{len(pages)}.html"
        html.write_page(page, title, [html.Section(title, html.paragraph(f"about {title}"))])
        pages.append(page)
    return tmp_path / "verdict.json", tmp_path / "evaluation.json", pages


def test_verdict_stands_before_the_pages(inputs, tmp_path):
    verdict, evaluation, pages = inputs
    report_at_gate(
        verdict, evaluation, pages, tmp_path / "report.html", "run-7", "flowers run --images 'a b'"
    )
    page = (tmp_path / "report.html").read_text()
    order = ["<h1>Run run-7</h1>", "Gate open: of a test.", "about One", "about Two"]
    places = [page.index(text) for text in order]
    assert places == sorted(places)
    assert "flowers run --images &#39;a b&#39;" in page
    assert '<a href="#one">One</a>' in page
    assert "Two &lt;b&gt;</a>" in page


def test_missing_page_is_refused(inputs, tmp_path):
    verdict, evaluation, pages = inputs
    pages[1].unlink()
    with pytest.raises(DataError, match="expected the page of a step"):
        report_at_gate(verdict, evaluation, pages, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_no_verdict_is_refused(inputs, tmp_path):
    verdict, evaluation, pages = inputs
    verdict.write_text('{"blessed": true}')
    with pytest.raises(DataError, match="expected gate_model's JSON file"):
        report_at_gate(verdict, evaluation, pages, tmp_path / "report.html")


def test_verdict_of_another_evaluation_is_refused(inputs, tmp_path):
    verdict, evaluation, pages = inputs
    changed = dataclasses.replace(make_evaluation(), loss=9.0)
    evaluation.write_text(to_json(dataclasses.asdict(changed)))
    with pytest.raises(DataError, match="the verdict is of another evaluation"):
        report_at_gate(verdict, evaluation, pages, tmp_path / "report.html")


@pytest.mark.parametrize("correct", [25, 0])
def test_all_right_or_none_is_drawn(tmp_path, correct):
    """The interval ends at the accuracy itself."""
    low, high = wilson_interval(correct, 25)
    scores = dataclasses.replace(
        make_evaluation(), accuracy=correct / 25, accuracy_low=low, accuracy_high=high
    )
    facts = RunFacts("Run", "Gate open: fine.", True, {}, "", 0.8, scores)
    write_report(facts, [], tmp_path / "report.html")
    assert f"Test accuracy {100 * correct // 25}.00 %" in (tmp_path / "report.html").read_text()


def test_champion_and_costs(tmp_path):
    comparison = {
        "examples": 50,
        "challenger_correct": 45,
        "champion_correct": 40,
        "gained": 6,
        "lost": 1,
        "p_value": 0.0625,
    }
    deployment = {"version": "2", "reason": "better by five", "comparison": comparison}
    facts = RunFacts(
        "Run", "Gate open: fine.", True, {}, "flowers run", 0.8, make_evaluation(), deployment,
        [StepCost("train-model", "succeeded", 36.0, 20.0, (5000, "examples"), 0.02)], "by the hour",
    )  # fmt: skip
    write_report(facts, [], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Version 2 against the champion: better by five." in page
    assert "p = 0.0625" in page
    assert "250 examples/s" in page
    assert "0.0200" in page
    assert "Test accuracy 90.00 %, 95 % interval" in page
