"""A comparison as a table: in the terminal and as CSV files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from ..inference.files import write_text
from ..results import Comparison, Reference
from .columns import REFERENCE, Column, best, blank, cells, columns, details, is_number, texts
from .reading import unmeasured

GAP, CLOSE = 3, 1  # characters between columns of numbers, and where there is little room


class Block:
    """Columns of one set, laid out under a common heading; it is never split over two lines.

    Args:
        comparison: Where the numbers are from.
        shown: The columns, all of one group.
        signs: What stands between mean and error, behind a mean among the best, and behind a mean of too few seeds.
        gap: Characters between columns.
    """

    def __init__(self, comparison: Comparison, shown: list[Column], signs: tuple[str, str, str], gap: int):
        between, star, dagger = signs
        self.group, self.methods, self.gap = shown[0].group, comparison.methods, gap
        self.lines: list[dict[str, Text]] = []
        self.headings: list[Text] = []
        for column in shown:
            found = cells(comparison, column)
            marked = best(column, found) if len(found) > 1 else []
            entries = {}
            for method, (mean, error) in texts(column, found).items():
                number = (between.join(filter(None, (mean, error))), "bold" if method in marked else "")
                sign = star if method in marked else dagger if found[method].missing else " "
                entries[method] = Text.assemble(number, sign)
            for method in self.methods:
                entries.setdefault(method, Text(f"{blank(comparison, column, method) or '-'} "))
            width = max([cell_len(column.label) + 1, *(entry.cell_len for entry in entries.values())])
            self.headings.append(_right(Text(column.label + " "), width))
            self.lines.append({method: _right(entries[method], width) for method in self.methods})
        self.width = max(sum(h.cell_len for h in self.headings) + gap * (len(shown) - 1), cell_len(self.group))

    def heading(self, rule: str) -> Text:
        """The name of the set in a line of its own, above the labels of its columns."""
        name = "" if self.group == "fit" else self.group
        if len(self.headings) > 1:
            name = f" {name} ".center(self.width, rule)
        return Text("\n").join([Text(name.rjust(self.width)), self._line(self.headings)])

    def line(self, method: str) -> Text:
        """The numbers of one method."""
        return self._line([line[method] for line in self.lines])

    def _line(self, parts: list[Text]) -> Text:
        return _right(Text(" " * self.gap).join(parts), self.width)


def _right(text: Text, width: int) -> Text:
    return Text(" " * (width - text.cell_len)) + text


class ComparisonTable:
    """What `rich_table` returns: as many tables below each other as the width of the console asks for."""

    def __init__(self, comparison: Comparison):
        self.comparison, self.columns = comparison, columns(comparison)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plain, coloured = options.ascii_only, console.is_terminal
        star = " " if coloured else "*"  # bold is lost in a file
        sign, dagger = ("+-", "!") if plain else ("±", "†")
        yield Text(self.comparison.title, "bold")
        for table in self.tables(options.max_width, sign, star, dagger, "-" if plain else "─"):
            yield Text("")
            yield table
        yield from self.notes(sign, "bold" if coloured else star, dagger)

    def tables(self, width: int, sign: str, star: str, dagger: str, rule: str) -> Iterator[Table]:
        """The tables that hold all columns within a width."""
        comparison = self.comparison
        longest = max((cell_len(method) for method in comparison.methods), default=0)
        names = max(min(longest, max(width * 2 // 5, 12)), len("method"))
        room = width - names - GAP
        groups = [list(group) for _, group in groupby(self.columns, lambda column: column.group)]
        blocks = [Block(comparison, group, (f" {sign} ", star, dagger), GAP) for group in groups]
        if any(block.width > room for block in blocks):
            blocks = []
            for group in groups:
                blocks += _fitting(comparison, group, (sign, star, dagger), room)
        rows: list[list[Block]] = []
        for block in blocks:
            # the time of the fit belongs to no set: it fills a gap wherever there is one
            free = [row for row in (rows if block.group == "fit" else rows[-1:]) if _width([*row, block]) <= room]
            free[0].append(block) if free else rows.append([block])
        for row in rows:
            table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="")
            table.add_column(Text("\nmethod"), width=names, overflow="fold")
            for block in row:
                table.add_column(block.heading(rule), width=block.width, no_wrap=True, overflow="crop")
            for method in comparison.methods:
                table.add_row(Text(method), *(block.line(method) for block in row))
            yield table

    def notes(self, sign: str, mark: str, dagger: str) -> Iterator[Text]:
        """What the signs mean, and which cells did not finish."""
        comparison, found = self.comparison, []
        per_column = [cells(comparison, column) for column in self.columns]
        every = [cell for in_column in per_column for cell in in_column.values()]
        if any(len(in_column) > 1 for in_column in per_column):
            several = any(cell.count > 1 for cell in every)
            near = (
                f", and means within 2 combined standard errors of it; {sign}: standard error over seeds"
                if several
                else ""
            )
            found.append(f"{mark}: the best mean of a column{near}")
        if any(column.metric.startswith("auroc") for column in self.columns):
            found.append("AUROC against the test set, by entropy (H) and by mutual information (MI)")
        if comparison.reference is not None and any(column.group == REFERENCE for column in self.columns):
            found += _reference_notes(comparison.reference, [c.metric for c in self.columns if c.group == REFERENCE])
        found += (said.replace("“", "").replace("”", "") for said in unmeasured(comparison))
        if any(cell.missing for cell in every):
            found.append(f"{dagger}: some seeds gave no finite number; the mean is of the others and is not marked")
        if not comparison.results:
            found.append("no run finished")
        yield Text("")
        for note in found:
            yield Text(note, "dim")
        if comparison.failures:
            yield Text("not finished:")
        for method, seed, reason in comparison.failures:
            yield Text(f"  {method}, seed {seed}: {reason}")


def _reference_notes(reference: Reference, shown: list[str]) -> Iterator[str]:
    said = {
        "agreement": "agree: same most probable class",
        "total_variation": "TV: total variation",
        "wasserstein": "W2: Wasserstein distance of normals with the same mean and sd, in sds of the reference",
    }
    each = ", seed by seed" if reference.is_method else ""
    yield f"reference: test predictions against those of {reference.name}{each}; {', '.join(said[m] for m in shown)}"


def _width(row: list[Block]) -> int:
    return sum(block.width for block in row) + GAP * (len(row) - 1)


def _fitting(comparison: Comparison, group: list[Column], signs: tuple[str, str, str], room: int) -> Iterator[Block]:
    """One group in as few blocks as the room allows."""
    start = 0
    while start < len(group):
        end = len(group)
        while end - start > 1 and Block(comparison, group[start:end], signs, CLOSE).width > room:
            end -= 1
        yield Block(comparison, group[start:end], signs, CLOSE)
        start = end


def rich_table(comparison: Comparison) -> ComparisonTable:
    """A comparison for `rich.print`: mean ± standard error over seeds, fitted to the width of the console.

    The best mean of each column is bold, with those that the seeds do not tell apart from it (`best`); where there is
    no terminal a star stands for bold. Cells that did not finish are listed below with their reason.
    """
    return ComparisonTable(comparison)


def write_csv(comparison: Comparison, path: str | Path) -> None:
    """Write one row a method: mean, standard error and number of seeds of each metric, unrounded and in units of 1.

    Methods without a finished run have a row too, with a count of 0.
    """
    shown = [*columns(comparison), *details(comparison)]
    filled = [cells(comparison, column) for column in shown]
    names = [f"{column.group}.{column.metric}" for column in shown]
    rows: list[list[Any]] = [["method", *(f"{name}.{part}" for name in names for part in ("mean", "se", "n"))]]
    for method in dict.fromkeys([*comparison.methods, *(method for method, _, _ in comparison.failures)]):
        row: list[Any] = [method]
        for column in filled:
            cell = column.get(method)
            row += ["", "", 0] if cell is None else [cell.mean, _or_empty(cell.standard_error), cell.count]
        rows.append(row)
    _write(rows, path)


def write_long_csv(comparison: Comparison, path: str | Path) -> None:
    """Write one row a measured number: method, seed, set, metric, value; numbers that are not finite are left empty."""
    rows: list[list[Any]] = [["method", "seed", "set", "metric", "value"]]
    for result in comparison.results:
        for group, metrics in result.metrics.items():
            for metric, value in (metrics or {}).items():
                if value is None or isinstance(value, float) or is_number(value):
                    rows.append([result.method, result.seed, group, metric, value if is_number(value) else ""])
    _write(rows, path)


def _or_empty(number: float) -> float | str:
    return "" if math.isnan(number) else number


def _write(rows: list[list[Any]], path: str | Path) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(Path(path), text.getvalue())
