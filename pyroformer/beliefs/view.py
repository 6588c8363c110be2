"""How the beliefs of a prior look in a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from ..help.terminal import WIDEST
from .classes import ClassBeliefs
from .flags import percent
from .predictive import PriorPredictive
from .reals import RealBeliefs

QUANTILES = ("5 %", "25 %", "50 %", "75 %", "95 %")


class BeliefsView:
    """The beliefs of a prior as text."""

    def __init__(self, found: PriorPredictive):
        self.found = found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, WIDEST)
        yield from console.render(Group(*self._parts()), options.update(width=width))

    def _parts(self) -> Iterator[RenderableType]:
        found = self.found
        yield Text(f"{found.num_samples} functions of the prior on {found.num_inputs} {found.inputs} inputs")
        for line in start_lines(found):
            yield Text(line)
        yield from _heading("Functions")
        yield _figures(figures(found.beliefs))
        yield _quantiles(*quantile_line(found.beliefs))
        if found.attention:
            yield from _heading("Attention, entropy of rows")
            yield self._attention()
        if found.tokens:
            yield from _heading("Tokens, root mean square over draws")
            table = _table("", "5 %", "50 %", "95 %")
            for size in found.tokens:
                table.add_row(size.name, *(f"{value:.3g}" for value in (size.low, size.median, size.high)))
            yield table
        yield from _heading("In words")
        lines = Table.grid(padding=(0, 1, 0, 0))
        for flag in found.flags or ("nothing is flagged",):
            lines.add_row(Text("  -", "yellow" if found.flags else "green"), Text(flag))
        yield lines

    def _attention(self) -> Table:
        table = _table("", "nats by head", "of log T", "uniform", "one-hot")
        for rows in self.found.attention:
            table.add_row(
                rows.name.removesuffix(".rows"),
                by_head(rows.entropy),
                f"{mean(rows.relative):.2f}",
                percent(round(mean(rows.uniform), 3)),
                percent(round(mean(rows.one_hot), 3)),
            )
        table.caption = Text(f"log T is {self.found.attention[0].most:.3f} nats", "dim")
        table.caption_justify = "left"
        return table


def by_head(entropy: tuple[float, ...], most: int = 6) -> str:
    """Entropies of a few heads; of many, the smallest and the largest."""
    if len(entropy) > most:
        return f"{min(entropy):.2f} to {max(entropy):.2f}"
    return " ".join(f"{value:.2f}" for value in entropy)


def mean(values: tuple[float, ...]) -> float:
    """The mean of a few numbers."""
    return sum(values) / len(values)


def figures(beliefs: ClassBeliefs | RealBeliefs) -> list[tuple[str, str]]:
    """Names and numbers of what functions are like."""
    if isinstance(beliefs, ClassBeliefs):
        return [
            ("entropy of a function, mean", f"{beliefs.mean_entropy:.3f} of log C = {beliefs.most:.3f} nats"),
            ("entropy of the average", f"{beliefs.averaged_entropy:.3f} nats"),
            ("logits, sd over classes", f"{beliefs.logit_sd:.3g}"),
            ("logits, sd over functions", f"{beliefs.draw_sd:.3g}"),
            ("variance over inputs", percent(beliefs.over_inputs)),
            ("functions of one class", percent(beliefs.constant)),
        ]
    found = [
        ("sd of functions", f"{beliefs.sd:.3g}, of the observations {beliefs.observed_sd:.3g}"),
        ("variance over inputs", percent(beliefs.over_inputs)),
        ("constant functions", percent(beliefs.constant)),
    ]
    if beliefs.turns is not None:
        found.append(("turns of a function", f"{beliefs.turns:.1f}"))
    if beliefs.roughness is not None:
        found.append(("roughness", f"{beliefs.roughness:.2g} (2 is noise, 0 is smooth)"))
    return found


def quantile_line(beliefs: ClassBeliefs | RealBeliefs) -> tuple[str, tuple[float, ...]]:
    """What the quantiles are of, and the quantiles."""
    if isinstance(beliefs, ClassBeliefs):
        return "entropy of a function", beliefs.entropy
    return "range of a function", beliefs.value_range


def start_lines(found: PriorPredictive) -> Iterator[str]:
    """What no prior draws, in words."""
    for kind, names in found.at_their_start.items():
        count = f"{len(names)} {kind} parameters are" if len(names) > 1 else f"1 {kind} parameter ({names[0]}) is"
        yield f"{count} taken at {'their' if len(names) > 1 else 'its'} start"


def _figures(found: list[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, text in found:
        table.add_row(f"  {name}", Text(text))
    return table


def _quantiles(name: str, values: tuple[float, ...]) -> Table:
    table = _table("", *QUANTILES)
    table.add_row(name, *(number(value) for value in values))
    return table


def number(value: float) -> str:
    """A number in a few digits; what is tiny is told as that."""
    if 0 < abs(value) < 1e-4:
        return "< 0.0001"
    return f"{value:.3g}"


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 2), header_style="dim")
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _heading(text: str) -> Iterator[Text]:
    yield Text()
    yield Text(text, "bold")
