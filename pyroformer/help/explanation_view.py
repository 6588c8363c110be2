"""How an explanation looks in a terminal: the spec, its sites by prior and posterior, sums and notes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from .explanation import Explanation, Point, RandomSite
from .grouping import grouped
from .terminal import WIDEST

ROLES = {
    "weight": "weights",
    "standard": "weights, non-centred",
    "hyper": "hyperparameters",
    "likelihood": "of the likelihood",
    "rows": "attention rows of an example",
    "row prior": "of row priors",
    "hyperparameter": "hyperparameters",
}


@dataclass(frozen=True)
class Section:
    """What sites have in common: what they are, and one or two things that are said of them."""

    role: str
    first: str
    second: str = ""

    def heading(self, width: int) -> Text:
        """In one line, or in two or three where it does not fit."""
        said = f"  {self.first}  {self.second}".rstrip()
        if len(self.role) + len(said) + 2 > width:
            start = "  " if len(self.role) + len(self.first) + 4 <= width else "\n    "
            said = f"{start}{self.first}\n    {self.second}".rstrip()
        return Text.assemble("  ", (self.role, "bold"), (said, "green"))


@dataclass(frozen=True)
class Line:
    """A site, or sites that differ in the number of their block alone."""

    section: Section
    name: str
    shape: str
    parameters: str


def times(count: int, text: str) -> str:
    """``2 × 64×64`` for what there is twice."""
    return text if count == 1 else f"{count} × {text}"


class ExplanationView:
    """An explanation as text."""

    def __init__(self, explanation: Explanation):
        self.explanation = explanation

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, WIDEST)
        yield from console.render(Group(*self._parts(width)), options.update(width=width))

    def _parts(self, width: int) -> Iterator[RenderableType]:
        found = self.explanation
        yield self._spec()
        lines = [*_site_lines(found)]
        if lines:
            yield from _heading("Random sites")
            yield from _laid_out(lines, width)
        for shared in found.shared:
            names = ", ".join(grouped(dict.fromkeys(shared.sites), [site.name for site in found.sites]))
            yield Text(f"  shared: {shared.count:,} by {names}")
        points = [*_point_lines(found)]
        if points:
            yield from _heading("Point estimates")
            yield from _laid_out(points, width)
        yield from _heading("Totals")
        yield self._totals()
        if found.notes:
            yield from _heading("Notes")
            yield self._notes()

    def _spec(self) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for key, words in self.explanation.parts.items():
            table.add_row(key, _map(words) if isinstance(words, dict) else Text(words))
            if key == "task":
                table.add_row("  sets", Text(", ".join(_sets(self.explanation.sets))))
                table.add_row("  likelihood", Text(self.explanation.likelihood))
        return table

    def _notes(self) -> Table:
        table = Table.grid(padding=(0, 1, 0, 0))
        for note in self.explanation.notes:
            table.add_row(Text("  -", "yellow"), Text(note))
        return table

    def _totals(self) -> Table:
        found, totals = self.explanation, self.explanation.totals
        of_members = f"in each of {found.members} members" if found.members > 1 else ""
        rows = [
            ("random numbers", totals.random, ""),
            ("random numbers of attention rows", totals.random_per_example, "an example"),
            ("parameters of the posterior", totals.variational, of_members),
            ("learned numbers", totals.trained, of_members),
            ("fixed numbers", totals.fixed, ""),
        ]
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column()
        table.add_column(justify="right")
        table.add_column(style="dim")
        for name, count, unit in rows:
            if count or name == "random numbers":
                table.add_row(f"  {name}", f"{count:,}", unit)
        return table


def _heading(title: str) -> Iterator[Text]:
    yield Text("")
    yield Text(title, "bold cyan")


def _map(words: dict[str, str]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="green", overflow="fold")
    table.add_column(overflow="fold")
    for glob, choice in words.items():
        table.add_row(Text(f'"{glob}"'), Text(choice))
    return table


def _sets(sets: dict[str, int]) -> Iterator[str]:
    """Sizes of sets; the five severities of a corruption in one."""
    for (_, size), found in groupby(sets.items(), key=lambda item: (re.sub(r"-\d$", "", item[0]), item[1])):
        names = [name for name, _ in found]
        if len(names) == 1:
            yield f"{names[0]} {size:,}"
        else:
            yield f"{names[0]} to {names[-1]} ({size:,} each)"


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) if shape else "1"


def _site_lines(found: Explanation) -> Iterator[Line]:
    sites = {site.name: site for site in found.sites}
    everything = [*sites, *(point.name for point in found.points)]

    def entry(site: RandomSite) -> tuple[object, ...]:
        return site.role, site.shape, site.prior, site.posterior, site.parameters

    for glob, names in grouped({name: entry(site) for name, site in sites.items()}, everything).items():
        site = sites[names[0]]
        section = Section(ROLES[site.role], f"prior {site.prior}", f"posterior {site.posterior}")
        parameters = times(len(names), f"{site.parameters:,}") if site.parameters else ""
        yield Line(section, glob, times(len(names), _shape(site.shape)), parameters)


def _point_lines(found: Explanation) -> Iterator[Line]:
    points = {point.name: point for point in found.points}
    everything = [*points, *(site.name for site in found.sites)]

    def entry(point: Point) -> tuple[object, ...]:
        return point.role, point.shape, point.trained

    for glob, names in grouped({name: entry(point) for name, point in points.items()}, everything).items():
        point = points[names[0]]
        section = Section(ROLES[point.role], "learned" if point.trained else "fixed")
        yield Line(section, glob, times(len(names), _shape(point.shape)), "")


def _laid_out(lines: list[Line], width: int) -> Iterator[Text]:
    """Lines under the headings of their sections, in columns that hold for all; a long name has a line of its own."""
    shapes = max(len("shape"), *(len(line.shape) for line in lines))
    counts = max(len(line.parameters) for line in lines)
    counts = max(counts, len("parameters")) if counts else 0
    names = min(max(len(line.name) for line in lines), width - 6 - shapes - (counts + 2 if counts else 0))
    yield Text(f"    {'':<{names}}  {'shape':>{shapes}}" + ("  parameters" if counts else ""), "dim")
    sections: dict[Section, list[Line]] = {}
    for line in lines:
        sections.setdefault(line.section, []).append(line)
    for section, own in sections.items():
        yield section.heading(width)
        for line in own:
            head = line.name if len(line.name) <= names else ""
            if not head:
                yield Text(f"    {line.name}", overflow="fold")
            yield Text(f"    {head:<{names}}  {line.shape:>{shapes}}" + f"  {line.parameters:>{counts}}" * bool(counts))
