"""A table of what chains estimate, and of how far that can be relied upon."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from .effective_size import ess_bulk, ess_tail
from .quantity import Quantities, Quantity
from .r_hat import r_hat
from .standard_errors import mcse_mean, mcse_sd

MOST_LINES = 40
"""A quantity of more entries that is not judged has one line, for the worst of them."""


@dataclass(frozen=True)
class Line:
    """A line of the table: one number, or the worst of many.

    Args:
        name: Of the quantity, with the place in it.
        entries: How many numbers it stands for: 1, or those of a whole quantity, whose largest R-hat and Monte Carlo
            errors and smallest effective sizes are told, and whose mean and standard deviation are averages.
        mean, sd: Over all draws.
        mcse_mean, mcse_sd: Their Monte Carlo standard errors.
        ess_bulk, ess_tail: Effective sample sizes.
        r_hat: Rank-normalised split R-hat; NaN, like the others, where a quantity is constant or not finite.
        judged: Whether convergence is judged by it.
    """

    name: str
    entries: int
    mean: float
    sd: float
    mcse_mean: float
    mcse_sd: float
    ess_bulk: float
    ess_tail: float
    r_hat: float
    judged: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The line as plain data."""
        return asdict(self)


def table(quantities: Quantities) -> list[Line]:
    """Mean, standard deviation, Monte Carlo errors, effective sample sizes and R-hat of quantities.

    Args:
        quantities: By name; those that are not judged have one line from 41 entries on, for the worst of them.
    """
    return [line for name, quantity in quantities.items() for line in _lines(name, quantity)]


def _lines(name: str, quantity: Quantity) -> Iterator[Line]:
    values = quantity.values
    flat = values.reshape(*values.shape[:2], -1)
    sizes = {"ess_bulk": ess_bulk(flat), "ess_tail": ess_tail(flat)}
    errors = {"mcse_mean": mcse_mean(flat), "mcse_sd": mcse_sd(flat), "r_hat": r_hat(flat)}
    moments = {"mean": flat.double().mean((0, 1)), "sd": flat.double().flatten(0, 1).std(0)}
    count = flat.shape[-1]
    if count > MOST_LINES and not quantity.judged:
        worst = {key: _largest(found) for key, found in errors.items()}
        worst |= {key: -_largest(-found) for key, found in sizes.items()}
        yield Line(name, count, **{k: float(v.mean()) for k, v in moments.items()}, **worst, judged=quantity.judged)
        return
    everything = {**moments, **errors, **sizes}
    for index, place in enumerate(quantity.places(name)):
        yield Line(place, 1, **{k: float(v[index]) for k, v in everything.items()}, judged=quantity.judged)


def _largest(values: Tensor) -> float:
    """The largest number that is known; NaN without any."""
    known = values[~values.isnan()]
    return float(known.max()) if len(known) else float("nan")
