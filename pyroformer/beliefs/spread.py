"""What functions have in common and where they differ: over inputs, or from function to function."""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def quantiles(values: Tensor) -> tuple[float, ...]:
    """The quantiles of 5, 25, 50, 75 and 95 % of all values."""
    flat = values.flatten().double()
    if len(flat) > 2**20:  # more than torch sorts at once; evenly spaced values say the same
        flat = flat[:: len(flat) // 2**20 + 1]
    return tuple(flat.quantile(torch.tensor(LEVELS, dtype=torch.float64)).tolist())


def share_over_inputs(functions: Tensor) -> float:
    r"""How much of the variance of functions depends on their input; 0 for constants.

    .. math:: \frac{E_s[\mathrm{Var}_n f_s(x_n)]}{E_s[\mathrm{Var}_n f_s(x_n)] + \mathrm{Var}_s[E_n f_s(x_n)]}

    Args:
        functions: ``[S, N, D]``; variances are added over the outputs ``D``.
    """
    within = functions.var(1, correction=0).mean(0).sum()
    between = functions.mean(1).var(0, correction=0).sum()
    total = within + between
    return float(within / total) if total > 0 else 0.0
