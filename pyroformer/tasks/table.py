"""Tables of numbers from CSV files, with one column to predict."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass

import numpy as np

from ..inference import DataError
from .idx import ReadFile

MISSING = {"", "?", "na", "n/a", "nan", "null", "none"}
MOST_CLASSES = 100
LARGEST = float(np.finfo(np.float32).max)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_EXPECTED = "expected a CSV file: rows of numbers and one column to predict, separated by commas, semicolons or tabs"


@dataclass(frozen=True)
class Table:
    """The cells of a CSV file.

    Args:
        file: Where they are from.
        names: Of the columns: the header's, or ``column 1``, ``column 2``, ... where there is none.
        rows: Cells as text, without blanks around them.
        lines: The line on which each row starts, counted from 1.
        header: Whether the file has a header.
    """

    file: ReadFile
    names: list[str]
    rows: list[list[str]]
    lines: list[int]
    header: bool

    def column(self, target: str | int | None) -> int:
        """The place of a column given by name or by number, counted from 1; the last one for None.

        Raises:
            DataError: There is no such column.
        """
        if target is None:
            return len(self.names) - 1
        if isinstance(target, str) and self.header and target in self.names:
            return self.names.index(target)
        if isinstance(target, int) and 1 <= target <= len(self.names):
            return target - 1
        names = ", ".join(self.names) + ", or " if self.header else ""
        raise DataError(
            f"{self.file.path} has no column {target}: expected {names}a number from 1 to {len(self.names)}"
        )

    def numbers(self, skipped: int) -> np.ndarray:
        """All columns but one as real numbers ``[N, F]``.

        Raises:
            DataError: A cell is missing or no number.
        """
        kept = [c for c in range(len(self.names)) if c != skipped]
        return np.array([[self.number(row, c) for c in kept] for row in range(len(self.rows))], dtype=np.float64)

    def number(self, row: int, column: int) -> float:
        """One cell as a number."""
        cell = self.filled(row, column)
        if not _NUMBER.fullmatch(cell):
            raise DataError(f"{self.place(row, column)} holds {cell!r}: expected a number such as 1.5")
        if abs(value := float(cell)) > LARGEST:
            raise DataError(f"{self.place(row, column)} holds {cell!r}: expected at most {LARGEST:.2g}")
        return value

    def filled(self, row: int, column: int) -> str:
        """One cell that is not missing."""
        cell = self.rows[row][column]
        if cell.lower() in MISSING:
            raise DataError(f"{self.place(row, column)} is missing ({cell!r}): expected a value in every cell")
        return cell

    def place(self, row: int, column: int) -> str:
        """A cell in words."""
        name = f" ({self.names[column]})" if self.header else ""
        return f"{self.file.path}: line {self.lines[row]}, column {column + 1}{name}"


def read_table(file: ReadFile) -> Table:
    """The cells of a CSV file in UTF-8, with quotes as spreadsheets write them.

    The separator is the semicolon if one stands in the first line outside quotes, else the tab, else the comma. The
    first row is a header if no cell of it is a number.

    Args:
        file: The file's bytes.

    Raises:
        DataError: The file is empty, no text, or rows differ in length; or names stand twice in the header.
    """
    path = file.path
    try:
        text = file.content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}): {_EXPECTED}") from None
    if not text.strip():
        raise DataError(f"{path} is empty: {_EXPECTED}")
    first = re.sub(r'"[^"]*"', "", next(line for line in text.splitlines() if line.strip()))
    separator = next((s for s in (";", "\t") if s in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    rows, lines, line = [], [], 1
    try:
        for row in reader:
            if row:
                rows.append([cell.strip() for cell in row])
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}: line {line}: {error}: {_EXPECTED}") from None
    columns = len(rows[0])
    if columns < 2:
        raise DataError(f"{path} has one column: {_EXPECTED}")
    for row, at in zip(rows, lines, strict=True):
        if len(row) != columns:
            raise DataError(f"{path}: line {at} has {len(row)} cells: expected {columns}, as line {lines[0]} has")
    header = not any(_NUMBER.fullmatch(cell) or cell.lower() in MISSING - {""} for cell in rows[0])
    if not header:
        return Table(file, [f"column {c + 1}" for c in range(columns)], rows, lines, False)
    names = rows[0]
    for column, name in enumerate(names):
        if not name:
            raise DataError(f"{path}: line {lines[0]}: column {column + 1} has no name: expected one in the header")
        if name in names[:column]:
            raise DataError(f"{path}: line {lines[0]}: the name {name} stands twice: expected each column once")
    if len(rows) == 1:
        raise DataError(f"{path} has a header and no rows: {_EXPECTED}")
    return Table(file, names, rows[1:], lines[1:], True)


@dataclass(frozen=True)
class Target:
    """The column to predict.

    Args:
        name: Of the column.
        values: One array a table: places in ``classes`` ``[N]`` (int64), or real numbers ``[N]``.
        classes: The classes in order, or None for a regression.
    """

    name: str
    values: list[np.ndarray]
    classes: list[str] | None


def read_target(tables: list[Table], columns: list[int], regression: bool | None) -> Target:
    """The column to predict, of a table to train on and perhaps another to test on.

    Words are classes, in alphabetical order; whole numbers are classes, in the order of numbers; others are real.

    Args:
        tables: One or two tables.
        columns: The column's place in each.
        regression: Whether the column holds real numbers; None to tell by the rule above.

    Raises:
        DataError: A cell is missing or no number, there is one class only, or there are too many.
    """
    cells = [[t.filled(row, c) for row in range(len(t.rows))] for t, c in zip(tables, columns, strict=True)]
    name = tables[0].names[columns[0]]
    each = [cell for part in cells for cell in part]
    whole = all(_WHOLE.fullmatch(cell) for cell in each)
    if regression is None:
        regression = not whole and all(_NUMBER.fullmatch(cell) for cell in each)
    if regression:
        pairs = zip(tables, columns, strict=True)
        return Target(name, [np.array([t.number(row, c) for row in range(len(t.rows))]) for t, c in pairs], None)
    if whole:
        cells = [[str(int(cell)) for cell in part] for part in cells]
    classes = sorted({cell for part in cells for cell in part}, key=int if whole else None)
    path = tables[0].file.path
    if len(set(cells[0])) < 2:
        raise DataError(f"{path}: the target {name} holds one class, {cells[0][0]}: expected at least two")
    if len(classes) > MOST_CLASSES:
        more = " (for a regression set task.arrays.regression=true)" if whole else ""
        raise DataError(
            f"{path}: the target {name} holds {len(classes)} classes: expected at most {MOST_CLASSES}{more}"
        )
    place = {cell: index for index, cell in enumerate(classes)}
    return Target(name, [np.array([place[cell] for cell in part], dtype=np.int64) for part in cells], classes)


def same_columns(table: Table, other: Table) -> None:
    """Raise a `DataError` unless two tables have the same columns in the same order."""
    one, two = (
        [str(n) for n in t.names] if t.header else [f"{len(t.names)} columns, no header"] for t in (table, other)
    )
    if one != two:
        raise DataError(
            f"{other.file.path} has the columns {', '.join(two)}: expected those of {table.file.path}, {', '.join(one)}"
        )
