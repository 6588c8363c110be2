"""Figures as SVG that stands inside a page and takes its colours from it."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from .plots.style import GRID, INK, MUTED, Style

THEMED = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--line)"}


@dataclass(frozen=True)
class Panel:
    """One figure of a page: the method it is about, its SVG, and a line below."""

    method: str
    svg: Markup
    caption: str = ""


def to_svg(figure: Figure, label: str) -> Markup:
    """A figure as an SVG element without outside references: text stays text, greys become variables of the page."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has fonts of its own
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    for color, variable in THEMED.items():
        svg = svg.replace(color, variable)
    label = str(Markup.escape(label))
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))


def swatch(style: Style) -> Markup:
    """A short piece of a method's line, to stand beside its name."""
    dashes = {"-": "none", "--": "6 3", ":": "2 2", "-.": "7 2 2 2"}[style["linestyle"]]
    line = '<path d="M0 3H22" stroke="{}" stroke-dasharray="{}"/>'
    return Markup(f'<svg class="swatch" viewBox="0 0 22 6" aria-hidden="true">{line}</svg>').format(
        style["color"], dashes
    )


def figure(width: float, height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of that many inches with axes below each other."""
    made = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02))
    return made, list(made.subplots(rows, 1, sharex=rows > 1, squeeze=False)[:, 0])
