"""Self-contained HTML pages: no request leaves the page, light and dark, readable on a phone."""

import base64
import dataclasses
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from matplotlib.ticker import FixedLocator

from components.common.pictures import shrink

# Drawn in this colour, then replaced, so that lines and letters follow the page into dark mode.
_INK = "#010203"
# Told apart by people with colour-blindness too; source: Okabe and Ito (2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")

# Of a picture on a page, in CSS pixels.
_PICTURE_SIDE = 128

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("components.common"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: Its heading.
        body: Trusted HTML, as the functions of this module make it.
    """

    title: str
    body: Markup

    @property
    def anchor(self) -> str:
        """What a link to it names."""
        return "-".join(re.findall(r"\w+", self.title.lower()))


# As `page.html` writes them, to find those of other pages.
_HEADING = re.compile(r'<h2 id="(?P<anchor>[^"]*)">(?P<title>[^<]*)</h2>')


def page(title: str, sections: Sequence[Section], more: Markup = Markup()) -> str:  # noqa: B008
    """A whole page with a heading and sections.

    Args:
        title: The heading.
        sections: Parts of the page, in order.
        more: Sections of other pages, to stand behind them.
    """
    template = _TEMPLATES.get_template("page.html")
    headings = [(section.anchor, Markup.escape(section.title)) for section in sections]
    headings += [(found["anchor"], Markup(found["title"])) for found in _HEADING.finditer(more)]
    return template.render(title=title, sections=sections, more=more, headings=headings)


def sections_of(page_text: str) -> Markup:
    """Takes the sections out of a page that `page` made, to put them into another."""
    _, _, rest = page_text.partition("<main>")
    body, _, _ = rest.partition("</main>")
    return Markup(body)


def paragraph(text: str) -> Markup:
    """A paragraph; the text is escaped."""
    return Markup("<p>{}</p>").format(text)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], caption: str) -> Markup:
    """A table; every cell is escaped, numbers and shares are set to the right.

    Args:
        columns: Headings.
        rows: Cells, one sequence per row; the first cell heads its row.
        caption: What the table shows, in a phrase.
    """
    template = _TEMPLATES.get_template("table.html")
    return Markup(template.render(columns=columns, rows=rows, caption=caption))


def legend(place: int, text: str) -> Markup:
    """A text with the colour of a part of `stacked_bar`; the text is escaped."""
    colour = COLOURS[place % len(COLOURS)]
    return Markup('<i class="swatch" style="background:{}"></i>{}').format(colour, text)


def stacked_bar(parts: Sequence[float], whole: float) -> Markup:
    """A bar of several colours for a cell of a table, whose other cells have the numbers.

    Args:
        parts: Lengths, at least 0; their colours are those of `legend`, in order.
        whole: Length of the longest bar of the table.
    """
    pieces = Markup().join(
        Markup('<i style="width:{:.1f}%;background:{}"></i>').format(
            100 * part / whole, COLOURS[place % len(COLOURS)]
        )
        for place, part in enumerate(parts)
    )
    return Markup('<span class="stack" aria-hidden="true">{}</span>').format(pieces)


def figures(values: Mapping[str, str]) -> Markup:
    """A row of key figures, each with its name above it."""
    return Markup(_TEMPLATES.get_template("figures.html").render(values=values))


def contact_sheet(rows: Mapping[str, Sequence[bytes]]) -> Markup:
    """Rows of JPEG pictures, each row with its name.

    Args:
        rows: Name of the row -> encoded pictures.
    """
    encoded = {
        name: [base64.b64encode(shrink(picture)).decode() for picture in row]
        for name, row in rows.items()
    }
    return Markup(_TEMPLATES.get_template("contact_sheet.html").render(rows=encoded))


@dataclasses.dataclass(frozen=True)
class Card:
    """One photo of a gallery.

    Attributes:
        title: What is to be said of it, in a phrase.
        pictures: JPEG pictures, each with its text alternative.
        bars: Classes with their probabilities, 0 to 1, and whether each is the true one.
    """

    title: str
    pictures: Sequence[tuple[bytes, str]]
    bars: Sequence[tuple[str, float, bool]]


def gallery(cards: Sequence[Card]) -> Markup:
    """Photos with what a model says of them."""
    encoded = [
        {
            "title": card.title,
            "pictures": [(base64.b64encode(one).decode(), text) for one, text in card.pictures],
            "bars": card.bars,
        }
        for card in cards
    ]
    template = _TEMPLATES.get_template("gallery.html")
    return Markup(template.render(cards=encoded, side=_PICTURE_SIDE))


def new_figure(width: float = 7.0, height: float = 3.2) -> Figure:
    """An empty figure in the style of the pages; sizes in inches."""
    style = {
        "axes.edgecolor": _INK,
        "axes.labelcolor": _INK,
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.family": "sans-serif",
        # Letters stay text: small files, and a reader can search and copy them.
        "svg.fonttype": "none",
        # Names of clip paths are random otherwise, and equal runs would give unequal pages.
        "svg.hashsalt": "flowers",
        "text.color": _INK,
        # A dollar sign in the name of a class is no formula.
        "text.parse_math": False,
        "xtick.color": _INK,
        "ytick.color": _INK,
    }
    mpl.rcParams.update(style)
    return Figure(figsize=(width, height), layout="constrained")


def figure(drawn: Figure, alternative: str) -> Markup:
    """Puts a figure into a page.

    Args:
        drawn: A figure of `new_figure`.
        alternative: What it shows, for those who cannot see it.
    """
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # A script that the font lacks: letters stay text, and the reader's browser has them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        metadata = {"Date": None, "Creator": None}
        # Here, and not again each of the times that matplotlib draws a figure to save it.
        if layout := drawn.get_layout_engine():
            layout.execute(drawn)
            # Axes of another height would have other ticks, whose labels may need more room.
            for axes in drawn.axes:
                for axis in (axes.xaxis, axes.yaxis):
                    axis.set_major_locator(FixedLocator(list(axis.get_majorticklocs())))
            layout.execute(drawn)
            drawn.set_layout_engine("none")
        drawn.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    _, _, svg = buffer.getvalue().partition("<svg")
    svg = svg.replace(_INK, "currentColor")
    return Markup(
        '<figure role="img" tabindex="0" aria-label="{}"><svg aria-hidden="true"{}</figure>'
    ).format(alternative, Markup(svg))


def write_page(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Writes a page to a file."""
    write_html(path, page(title, sections))


def write_html(path: Path, text: str) -> None:
    """Writes a page; the name of a file that is not UTF-8 is shown with its bytes escaped."""
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
