"""Figures as SVG that stands inside a page: its colours, in both themes, and its ids."""

import re
from contextlib import AbstractContextManager
from html import escape
from io import StringIO
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure

# Placeholders, one for each colour that the page's style sheet defines for light and dark.
INK, RULE = "#0a0b01", "#0a0b02"
SERIES = ("#0a0b03", "#0a0b04", "#0a0b05", "#0a0b06")
VARIABLES = {
    INK: "var(--ink)",
    RULE: "var(--rule)",
    **{colour: f"var(--series-{n})" for n, colour in enumerate(SERIES, start=1)},
}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ris-diag",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
}
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def style() -> AbstractContextManager[None]:
    """Matplotlib as a page draws, whatever the user has set; his settings are back behind it."""
    return matplotlib.style.context(["default", STYLE])


def svg(figure: Figure, name: str, title: str) -> str:
    """An <svg> element for a page.

    Args:
        figure: drawn inside of `style()`, in the colours above; still inside of it.
        name: prefix of its ids, another one for every figure of a page.
        title: what a screen reader says.
    """
    file = StringIO()
    figure.savefig(file, format="svg", metadata=NO_METADATA)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = text.replace("url(#", f"url(#{name}-")
    # The page's own font, which is there; a width of its own would widen a narrow page.
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    said = f'role="img" aria-labelledby="{name}-title"'
    return re.sub(
        r"<svg([^>]*)>",
        lambda found: f'<svg {said}{found[1]}><title id="{name}-title">{escape(title)}</title>',
        text,
        count=1,
    )
