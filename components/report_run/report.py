"""The page about a run: the verdict first, then what each step has to show."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from components.common import html
from components.common.errors import DataError
from components.common.evaluation import Evaluation, load_evaluation, percent
from components.common.outputs import staged
from components.common.progress import say
from components.common.verdict import load_verdict, require_same_evaluation

STEP = "report-run"


@dataclasses.dataclass(frozen=True)
class StepCost:
    """What a step took.

    Attributes:
        name: The step.
        state: How it ended.
        seconds: From start to end; None while it runs.
        work_seconds: Without the start of the process; None where the step did not say.
        things: How many it worked on, and what they are, e.g. `(569, "examples")`.
        price: In the currency of the hourly price; None without one.
    """

    name: str
    state: str
    seconds: float | None
    work_seconds: float | None
    things: tuple[int, str] | None = None
    price: float | None = None

    @property
    def throughput(self) -> str:
        """Things per second of work, as text."""
        if not self.things or not self.work_seconds:
            return "-"
        return f"{self.things[0] / self.work_seconds:,.0f} {self.things[1]}/s"


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What stands at the top of the page.

    Attributes:
        title: Heading.
        sentence: The verdict with its reason.
        good: Whether the model may leave.
        figures: Name -> value, for a row of figures.
        command: What made the run, to be called again; empty where nobody knows.
        threshold: What the gate asked for.
        evaluation: How the model did; None where it was not evaluated.
        deployment: JSON of `deploy_model`; None where nothing was to be deployed.
        steps: What the steps took.
        price_note: How the prices come about.
    """

    title: str
    sentence: str
    good: bool
    figures: Mapping[str, str]
    command: str = ""
    threshold: float | None = None
    evaluation: Evaluation | None = None
    deployment: Mapping[str, Any] | None = None
    steps: Sequence[StepCost] = ()
    price_note: str = ""


def write_report(facts: RunFacts, pages: Sequence[Path], path: Path) -> None:
    """Writes the page.

    Args:
        facts: What stands at its top.
        pages: Pages of steps, in the order in which they follow; those that do not exist, because
            their step did not run, are left out.
        path: HTML file to make.
    """
    sections = [html.Section("Verdict", _verdict(facts))]
    if facts.steps:
        sections.append(html.Section("Steps", _steps(facts)))
    if facts.command:
        sections.append(html.Section("Reproduce", _reproduce(facts)))
    parts = (html.sections_of(page.read_text(encoding="utf-8")) for page in pages if page.is_file())
    html.write_html(path, html.page(facts.title, sections, Markup().join(parts)))


def report_at_gate(
    verdict: Path,
    evaluation: Path,
    pages: Sequence[Path],
    report: Path,
    run_name: str = "",
    command: str = "",
) -> None:
    """Writes the page with what is known when the gate has decided.

    Args:
        verdict: JSON file of `gate_model`.
        evaluation: JSON file of `evaluate_model`.
        pages: Pages of the steps.
        report: HTML file to make.
        run_name: Name of the run.
        command: What made the run.

    Raises:
        DataError: A file is absent or is not what its step writes, or the verdict is of another
            evaluation.
    """
    decision, scores = load_verdict(verdict), load_evaluation(evaluation)
    require_same_evaluation(decision, evaluation)
    missing = [str(page) for page in pages if not page.is_file()]
    if missing:
        raise DataError(f"{missing[0]}: expected the page of a step, and there is no such file")
    facts = RunFacts(
        title=f"Run {run_name}".strip(),
        sentence=f"Gate {'open' if decision.blessed else 'closed'}: {decision.reason}.",
        good=decision.blessed,
        figures={"Data": scores.data_fingerprint[:12], "Model": scores.model_digest[:12]},
        command=command,
        threshold=decision.threshold,
        evaluation=scores,
    )
    with staged(report) as (path,):
        write_report(facts, pages, path)
    say(STEP, f"{len(pages)} pages behind the verdict")


def _verdict(facts: RunFacts) -> Markup:
    shade = "good" if facts.good else "bad"
    body = Markup('<p class="verdict {}">{}</p>').format(shade, facts.sentence)
    if facts.evaluation:
        body += _accuracy_chart(facts.evaluation, facts.threshold)
    if facts.deployment:
        body += _champion(facts.deployment)
    return body + html.figures(facts.figures)


def _accuracy_chart(evaluation: Evaluation, threshold: float | None) -> Markup:
    drawn = html.new_figure(height=1.25)
    axes = drawn.subplots()
    accuracy = evaluation.accuracy
    spread = [[accuracy - evaluation.accuracy_low], [evaluation.accuracy_high - accuracy]]
    axes.errorbar([accuracy], [0], xerr=spread, fmt="o", capsize=4, label="test accuracy")
    told = (
        f"Test accuracy {percent(accuracy)}, 95 % interval {percent(evaluation.accuracy_low)} to "
        f"{percent(evaluation.accuracy_high)}"
    )
    if threshold is not None:
        axes.axvline(threshold, linestyle="--", color=html.COLOURS[1], label="threshold")
        told += f"; threshold {threshold:.2%}"
    axes.set(xlim=(0, 1), yticks=[], xlabel="top-1 accuracy, with its 95 % interval")
    axes.spines["left"].set_visible(False)
    axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 0.9))
    return html.figure(drawn, told)


def _champion(deployment: Mapping[str, Any]) -> Markup:
    text = f"Version {deployment['version']} against the champion: {deployment['reason']}."
    comparison = deployment.get("comparison")
    if not comparison:
        return html.paragraph(text)
    examples = comparison["examples"]
    rows = [
        ("challenger", comparison["challenger_correct"], comparison["gained"]),
        ("champion", comparison["champion_correct"], comparison["lost"]),
    ]
    shown = [
        (name, right, percent(right / examples), alone) for name, right, alone in rows if examples
    ]
    caption = f"Both on the same {examples} test photos; p = {comparison['p_value']:.3g}"
    columns = ["Model", "Right", "Accuracy", "Right where the other is wrong"]
    return html.paragraph(text) + html.table(columns, shown, caption)


def _steps(facts: RunFacts) -> Markup:
    rows = [
        (
            step.name,
            step.state,
            "-" if step.seconds is None else step.seconds,
            "-" if step.work_seconds is None else step.work_seconds,
            step.throughput,
            "-" if step.price is None else f"{step.price:.4f}",
        )
        for step in facts.steps
    ]
    columns = ["Step", "State", "Time, s", "Work, s", "Throughput", "Cost"]
    table = html.table(columns, rows, "Steps of the run")
    return table + (html.paragraph(facts.price_note) if facts.price_note else Markup())


def _reproduce(facts: RunFacts) -> Markup:
    return Markup('<pre tabindex="0"><code>{}</code></pre>').format(facts.command)
