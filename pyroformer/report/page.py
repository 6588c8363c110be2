"""Pages of sections: sentences, tables, figures and texts, in the look of the report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from .svg import Panel

TEMPLATE, REPORT = "page.html.j2", "report.html.j2"


@dataclass(frozen=True)
class Section:
    """A part of a page; what is empty is left out.

    Args:
        heading: Its heading.
        note: What the reader needs in order to read it, in small type.
        sentences: Shown as a list.
        headings: Of the table's columns, the first that of its lines.
        rows: Of the table: the name of a line, and its entries.
        panels: Figures, each with its name and a caption.
        size: Of the figures: ``small``, ``third`` or ``middle``.
        beside: Whether the figures stand beside a narrow table, where there is room; default True.
        texts: Texts that open when they are asked for: a summary, and the text as it stands.
    """

    heading: str
    note: str = ""
    sentences: Sequence[str] = ()
    headings: Sequence[str] = ()
    rows: Sequence[tuple[str, Sequence[str]]] = ()
    panels: Sequence[Panel] = ()
    size: str = "middle"
    beside: bool = True
    texts: Sequence[tuple[str, str]] = ()


def page(title: str, description: str, sections: Sequence[Section], environment: Mapping[str, Any]) -> str:
    """The text of one HTML file with its styles and figures inside.

    Args:
        title, description: Shown as plain text.
        sections: In their order.
        environment: What the numbers were made with.
    """
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = made.from_string(files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        title=title, description=description, sections=sections, environment=environment, style=style()
    )


def style() -> Markup:
    """The style sheet of the report, which all pages share."""
    text = files(__package__).joinpath(REPORT).read_text(encoding="utf-8")
    found = re.search(r"<style>\n(.*?)</style>", text, re.DOTALL)
    assert found is not None
    return Markup(found[1])
