"""How a choice looks in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .about import About, Setting
from .docstrings import Equation
from .latex import EM_SPACE
from .terminal import WIDEST


class AboutView:
    """A choice as text: what it is, its settings in a table, an example."""

    def __init__(self, about: About):
        self.about = about

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, WIDEST)
        yield from console.render(Group(*self._parts(width)), options.update(width=width))

    def _parts(self, width: int) -> Iterator[RenderableType]:
        about = self.about
        yield Text.assemble((about.name, "bold"), (f"  {_article(about.kind)} {about.kind}", "dim"))
        yield ""
        yield Text(about.summary)
        yield from _body(about.body, width)
        yield from _section("Settings")
        yield _table(about.settings, width) if about.settings else Padding(Text("none"), (0, 0, 0, 2))
        if about.raises:
            yield from _section("Raises")
            for error, when in about.raises.items():
                yield _indented(Text.assemble((error, "bold"), "  ", when))
        if about.reference:
            yield from _section("Reference")
            yield _indented(Text(about.reference))
        for base in about.bases:
            yield from _section("Shared with others", base.name)
            yield _indented(Group(Text(base.summary), *_body(base.body, width - 2)))
        yield from _section("Example")
        yield _indented(Text(about.example.rstrip("\n"), style="green"))


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"


def _section(title: str, of: str = "") -> Iterator[RenderableType]:
    yield ""
    yield Text.assemble((title, "bold cyan"), f": {of}" if of else "")


def _indented(part: RenderableType, by: int = 2) -> Padding:
    return Padding(part, (0, 0, 0, by))


def _body(body: Sequence[str | Equation], width: int) -> Iterator[RenderableType]:
    for part in body:
        yield ""
        yield _indented(_equation(part, width - 4), 4) if isinstance(part, Equation) else Text(part)


def _equation(equation: Equation, width: int) -> Text:
    """Formulas that stand side by side are put below each other where they do not fit."""
    line = equation.text.replace(EM_SPACE, "   ")
    return Text(line if len(line) <= width else equation.text.replace(EM_SPACE, "\n"), style="magenta")


def _table(settings: Sequence[Setting], width: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", expand=False)
    table.add_column("  setting", no_wrap=True)
    table.add_column("type", max_width=16 if width < 100 else 24)
    table.add_column("default", max_width=18, overflow="fold")
    table.add_column("what it does", ratio=1)
    for setting in settings:
        table.add_row(
            Text(f"  {setting.name}", "bold"), Text(setting.type), Text(setting.default), Text(setting.description)
        )
    return table
