"""How a weight study looks in a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from ..help.terminal import WIDEST
from .correlation import Correlation
from .study import FEWEST, GroupStudy, WeightStudy

SHORT = {"generalized_normal": "gen. normal", "student_t": "Student-t", "laplace": "Laplace", "cauchy": "Cauchy"}


class StudyView:
    """A weight study as text."""

    def __init__(self, found: WeightStudy):
        self.found = found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, WIDEST)
        yield from console.render(Group(*self._parts(width)), options.update(width=width))

    def _parts(self, width: int) -> Iterator[RenderableType]:
        found = self.found
        what = "changes of weights since their start" if found.change else "weights"
        yield Text(f"{found.title}: {what} of {found.groups[0].seeds} nets")
        if found.fixed:
            yield Text(f"not trained, and left out: {', '.join(found.fixed)}")
        yield Text()
        yield families(found, wide=width >= 90)
        yield Text("kurtosis: excess, ± over nets; > normal: nats a weight, on nets left out", "dim")
        yield Text()
        yield correlations(found)
        yield Text("mean absolute correlation, and standard deviations above that of permuted entries", "dim")


def families(found: WeightStudy, *, wide: bool) -> Table:
    """Moments and the winning family of every group; where there is room, with the scale relative to the fan-in."""
    relative = ["relative"] if wide else []
    table = _table("", "n", "sd", *relative, "kurtosis", "family", "> normal")
    for one in found.groups:
        table.add_row(
            one.group.name,
            str(one.n),
            f"{one.sd:.3g}",
            *([f"{one.relative_sd:.2g}"] if wide else []),
            f"{one.kurtosis:.2f} ± {one.kurtosis_error:.2f}",
            family(one),
            gain(one),
        )
    return table


def correlations(found: WeightStudy) -> Table:
    """How correlated rows, columns and heads are in every group of matrices."""
    table = _table("", "rows", "z", "columns", "z", "heads", "z")
    for one in found.groups:
        if one.rows or one.columns:
            table.add_row(one.group.name, *(t for c in (one.rows, one.columns, one.heads) for t in correlation(c)))
    return table


def correlation(found: Correlation | None) -> tuple[str, str]:
    """The statistic and its z-score; dashes where there is none."""
    return ("-", "-") if found is None else (f"{found.statistic:.3f}", f"{found.z:.1f}")


def family(one: GroupStudy) -> str:
    """The winner with the number that says how heavy its tails are."""
    best = one.best
    if best is None:
        return "too few weights" if one.n * one.seeds < FEWEST else "no spread"
    name = SHORT.get(best.family, best.family)
    tail = {"student_t": "df", "generalized_normal": "power"}.get(best.family)
    return name if tail is None else f"{name} {getattr(best.prior, tail):.2g}"


def gain(one: GroupStudy) -> str:
    """What the winner gains over the normal family, with its standard error."""
    if one.best is None or one.winner == "normal":
        return "-"
    value, error = one.over_normal()
    return f"{value:.3f} ± {error:.3f}"


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=False)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table
