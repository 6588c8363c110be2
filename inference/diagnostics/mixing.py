"""Findings about whether chains agree, and how many draws they are worth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from .finding import Finding, number
from .table import Line

CAUTION, BAD = 1.01, 1.05
"""Of R-hat: above, chains do not agree yet; above, they do not agree."""
ENOUGH, FEW = 100, 20
"""Effective draws a chain: below, R-hat and quantiles are rough; below, they mean nothing."""


def mixing(lines: Sequence[Line], chains: int) -> Iterator[Finding]:
    """What is to be said of R-hat and effective sample sizes.

    Args:
        lines: Of the table; those that are not judged are left out.
        chains: ``K``.
    """
    judged = [line for line in lines if line.judged]
    wild = [line.name for line in judged if not math.isfinite(line.mean)]
    if wild:
        yield Finding(
            "bad",
            "numbers",
            f"{wild[0]}{f' and {len(wild) - 1} more' if len(wild) > 1 else ''} is no number in some draws",
            "look at the draws where it is not: weights that overflow, or an input that the net cannot take",
        )
    known = [line for line in judged if line.r_hat == line.r_hat]
    if not known:
        yield Finding(
            "bad",
            "agreement",
            "no function of the draws changes, or is a number: there is nothing to judge",
            "look at the findings about gradient and step size first",
        )
        return
    yield from _agreement(known)
    yield from _worth(known, chains)
    if chains == 1:
        yield Finding(
            "caution",
            "chains",
            "there is one chain: it agrees with itself, and whether another would have gone elsewhere is not known",
            "4 chains",
        )


def _agreement(lines: Sequence[Line]) -> Iterator[Finding]:
    worst = max(lines, key=lambda line: line.r_hat)
    above = [line for line in lines if line.r_hat > CAUTION]
    if not above:
        yield Finding("good", "agreement", f"R-hat is at most {worst.r_hat:.3f} ({worst.name})")
        return
    others = f"; {len(above)} of {len(lines)} functions are above {CAUTION:g}" if len(lines) > 1 else ""
    apart = worst.r_hat > BAD
    yield Finding(
        "bad" if apart else "caution",
        "agreement",
        f"the chains {'do not agree' if apart else 'do not quite agree yet'} about {worst.name}: R-hat "
        f"{worst.r_hat:.2f}{others}",
        "more draws and a longer warm-up; where that does not help, chains are in different modes: more chains, from "
        "starts of trained nets, and look at what each predicts"
        if apart
        else "twice as many draws",
    )


def _worth(lines: Sequence[Line], chains: int) -> Iterator[Finding]:
    sizes = [(size, line.name, kind) for line in lines for kind, size in _sizes(line) if size == size]
    if not sizes:
        return
    least, name, kind = min(sizes)
    text = f"the smallest {kind} ESS is {number(least)} ({name})"
    if least >= ENOUGH * chains:
        yield Finding("good", "effective draws", text)
        return
    yield Finding(
        "bad" if least < FEW * chains else "caution",
        "effective draws",
        f"{text}, below {ENOUGH * chains} ({ENOUGH} a chain)",
        f"about {_times(ENOUGH * chains / max(least, 1.0))} as many draws",
    )


def _sizes(line: Line) -> tuple[tuple[str, float], ...]:
    return ("bulk", line.ess_bulk), ("tail", line.ess_tail)


def _times(factor: float) -> str:
    return "twice" if factor <= 2 else f"{factor:.0f} times"
