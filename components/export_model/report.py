"""The page about the export: every format beside the evaluated model, and the model card."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from components.common import html
from components.common.evaluation import percent
from components.export_model.checks import FormatCheck


def write_report(checks: Sequence[FormatCheck], card: str, path: Path) -> None:
    """Writes the page as one HTML file.

    Args:
        checks: What was found out about each format.
        card: The model card, in Markdown.
        path: HTML file to make.
    """
    body = Markup('<pre tabindex="0">{}</pre>').format(card)
    sections = [
        html.Section("Exports", _formats(checks)),
        html.Section("Model card", body),
    ]
    html.write_page(path, "Export report", sections)


def _formats(checks: Sequence[FormatCheck]) -> Markup:
    rows = [
        (
            check.name,
            check.file,
            f"{check.size / 1e6:.2f} MB",
            percent(check.accuracy),
            f"{100 * check.accuracy_difference:+.2f} points",
            percent(check.agreement),
            f"{check.largest_difference:.2g}",
            "loses too much" if check.flagged else "ok",
        )
        for check in checks
    ]
    columns = [
        *("Format", "File", "Size", "Accuracy", "Difference", "Same answer"),
        *("Largest difference of a probability", "Check"),
    ]
    caption = f"Each format on the {checks[0].examples} test photos, beside the evaluated model"
    flagged = [check.name for check in checks if check.flagged]
    note = Markup()
    if flagged:
        note = Markup('<p class="bad"><strong>{}</strong></p>').format(
            f"{', '.join(flagged)}: loses more accuracy than it may; do not ship this file."
        )
    return note + html.table(columns, rows, caption)
