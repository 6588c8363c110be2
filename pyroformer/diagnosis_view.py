"""How a diagnosis looks in a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from .help.terminal import WIDEST
from .inference.diagnostics import Diagnosis, Line
from .inference.diagnostics.finding import sentence
from .inference.diagnostics.mixing import BAD, CAUTION

COLORS = {"good": "green", "note": "cyan", "caution": "yellow", "bad": "red"}
HEADINGS = ("mean", "sd", "MCSE", "ESS bulk", "tail", "R-hat")


class DiagnosisView:
    """A diagnosis as text."""

    def __init__(self, found: Diagnosis):
        self.found = found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, WIDEST)
        yield from console.render(Group(*self._parts()), options.update(width=width))

    def _parts(self) -> Iterator[RenderableType]:
        found = self.found
        many = f"{found.chains} chains" if found.chains > 1 else "1 chain"
        yield Text(f"{many} of {found.draws} draws")
        yield Text()
        yield lines(found.lines)
        if any(line.entries > 1 for line in found.lines):
            yield Text("of many entries: mean and sd on average, the others of the worst entry", "dim")
        yield Text()
        yield Text("In words", "bold")
        for finding in found.verdict.findings:
            line = Table.grid(padding=(0, 1, 0, 0))
            line.add_row(Text(f"  {finding.level}", COLORS[finding.level]), Text(sentence(finding.text)))
            if finding.advice:
                line.add_row("", Text(f"Try: {finding.advice}.", "dim"))
            line.columns[0].min_width = len("  caution")
            yield line
        yield Text()
        yield Text(found.verdict.summary)


def lines(found: list[Line]) -> Table:
    """The table of quantities."""
    table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=False)
    table.add_column("", overflow="fold")
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for line in found:
        name = line.name if line.entries == 1 else f"{line.name} ({line.entries:,})"
        *texts, r_hat = cells(line)
        color = "red" if line.r_hat > BAD else "yellow" if line.r_hat > CAUTION else ""
        table.add_row(Text(name), *texts, Text(r_hat, color if line.judged else ""))
    return table


def cells(line: Line) -> tuple[str, ...]:
    """The entries of a line of the table, a dash where there is none."""
    numbers = (f"{line.mean:.4g}", f"{line.sd:.3g}", f"{line.mcse_mean:.2g}")
    sizes = (f"{line.ess_bulk:.0f}", f"{line.ess_tail:.0f}", f"{line.r_hat:.3f}")
    return tuple("-" if text == "nan" else text for text in (*numbers, *sizes))
