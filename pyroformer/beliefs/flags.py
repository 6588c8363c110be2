"""What is wrong with a prior, in plain words, each with the threshold that it passed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .classes import NEARLY_ALL, ClassBeliefs
from .reals import STILL, RealBeliefs
from .rows import ONE_HOT, UNIFORM, Rows

CONSTANT = 0.5
"""Flagged above: share of the functions that are constants."""
BLIND = 0.05
"""Flagged below: share of the variance that is over inputs."""
UNDECIDED, SATURATED = 0.99, 0.05
"""Flagged above and below: median entropy of single functions, as a share of ``log C``."""
WIDE, NARROW = 10.0, 0.1
"""Flagged above and below: standard deviation of functions in that of the observations."""


def flags(beliefs: ClassBeliefs | RealBeliefs, attention: Sequence[Rows]) -> Iterator[str]:
    """What a user should know before they train under this prior."""
    yield from _classes(beliefs) if isinstance(beliefs, ClassBeliefs) else _reals(beliefs)
    if beliefs.over_inputs < BLIND:
        yield (
            f"ignores the inputs: {percent(beliefs.over_inputs)} of the variance of functions is over inputs, the rest "
            f"between functions (flagged below {percent(BLIND)})"
        )
    for word, sign, bound, found in (
        ("uniform", "above", UNIFORM, [(r, h) for r in attention for h, v in enumerate(r.relative) if v > UNIFORM]),
        ("one-hot", "below", ONE_HOT, [(r, h) for r in attention for h, v in enumerate(r.relative) if v < ONE_HOT]),
    ):
        if found:
            yield f"attention is {word}: mean entropy {sign} {bound:g} log T in {_heads(found)}"


def overflow(overflowing: int, num_samples: int) -> Iterator[str]:
    """That some functions are not finite."""
    if overflowing:
        yield f"{overflowing} of {num_samples} functions overflow: they are not finite, and left out of the figures"


def _classes(found: ClassBeliefs) -> Iterator[str]:
    if found.constant > CONSTANT:
        yield (
            f"collapses: {percent(found.constant)} of the functions predict one class for at least "
            f"{percent(NEARLY_ALL)} of the inputs (flagged above {percent(CONSTANT)})"
        )
    median = found.entropy[2] / found.most
    if median > UNDECIDED:
        yield (
            f"undecided: every class is about as probable; the median entropy is {median:.3f} log C "
            f"(flagged above {UNDECIDED:g})"
        )
    if median < SATURATED:
        yield (
            f"saturated: single functions are sure of a class before they have seen any; the median entropy is "
            f"{median:.3f} log C (flagged below {SATURATED:g})"
        )


def _reals(found: RealBeliefs) -> Iterator[str]:
    if found.constant > CONSTANT:
        yield (
            f"collapses: {percent(found.constant)} of the functions are constants, with a standard deviation over "
            f"inputs below {STILL:g} of that of all values (flagged above {percent(CONSTANT)})"
        )
    if not found.observed_sd > 0:
        return
    ratio = found.sd / found.observed_sd
    if ratio > WIDE:
        yield f"wide: functions vary {ratio:.3g} times as much as the observations (flagged above {WIDE:g})"
    if ratio < NARROW:
        yield f"narrow: functions vary {ratio:.2g} times as much as the observations (flagged below {NARROW:g})"


def percent(share: float) -> str:
    """A share as a percentage, and whole ones without a point."""
    return f"{100 * share:.3g} %"


def _heads(found: list[tuple[Rows, int]]) -> str:
    """``blocks.0.attention (heads 0, 2), blocks.1.attention (all heads)``."""
    layers: dict[str, tuple[Rows, list[int]]] = {}
    for rows, head in found:
        layers.setdefault(rows.name, (rows, []))[1].append(head)
    texts = []
    for name, (rows, heads) in layers.items():
        every = len(heads) == len(rows.relative)
        which = "all heads" if every else f"head{'s' if len(heads) > 1 else ''} {', '.join(map(str, heads))}"
        texts.append(f"{name.removesuffix('.rows')} ({which})")
    return ", ".join(texts)
