"""Supports: where a value may be."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import constraints

MARGIN = 0.01
"""How far inside a value is moved: a share of a bounded support, which keeps the gradients of its transform alive."""


def base(support: constraints.Constraint) -> constraints.Constraint:
    """The support of one entry."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def moved_inside(value: Tensor, support: constraints.Constraint) -> Tensor:
    """``value`` with the entries that lie on or beyond a bound of the support moved a little inside."""
    support = base(support)
    low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    margin = MARGIN * (high - low) if low is not None and high is not None else MARGIN
    if low is not None:
        value = torch.where(value > low, value, low + margin)
    return value if high is None else torch.where(value < high, value, high - margin)
