"""Statistics of chains for many quantities at once, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

from ...priors import SettingError

FEWEST = 4
"""Draws a chain that a statistic of split chains needs."""
MOST_NUMBERS = 2**21
"""About how many numbers are looked at together; a statistic needs a few copies of them."""

Statistic = Callable[[Tensor], Tensor]


def over_quantities(statistic: Statistic) -> Statistic:
    """Make a statistic of ``[K, S, M]`` one of ``[K, S, ...]``, which takes a part of the quantities at a time.

    The numbers become float64 on the CPU. A quantity that is not finite throughout, or the same in every draw, has no
    statistic: it gets NaN.

    Args:
        statistic: ``[K, S, M]`` to ``[..., M]``.

    Raises:
        SettingError: When called with fewer than 4 draws a chain, or with a tensor without chains.
    """

    @wraps(statistic)
    def whole(values: Tensor) -> Tensor:
        if values.dim() < 2 or values.shape[1] < FEWEST or not values.numel():
            raise SettingError("values", tuple(values.shape), f"[K, S, ...]: chains of at least {FEWEST} draws each")
        chains, draws = values.shape[:2]
        flat = values.detach().reshape(chains, draws, -1)
        parts = [_with_gaps(statistic, part.cpu().double()) for part in flat.split(_size(chains * draws), -1)]
        found = torch.cat(parts, -1)
        return found.reshape((*found.shape[:-1], *values.shape[2:]))

    return whole


def _size(draws: int) -> int:
    return max(1, MOST_NUMBERS // draws)


def _with_gaps(statistic: Statistic, values: Tensor) -> Tensor:
    least, most = values.amin((0, 1)), values.amax((0, 1))
    known = values.isfinite().all(0).all(0) & (most > least)
    # a ramp takes the place of what has none: statistics need numbers that differ
    found = statistic(torch.where(known, values, torch.linspace(0, 1, values.shape[1], dtype=values.dtype)[:, None]))
    return torch.where(known, found, torch.nan)
