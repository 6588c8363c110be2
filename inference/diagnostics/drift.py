"""Findings about chains on the way to somewhere, or to nowhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from .finding import Finding, number

GROWTH = 2.5
"""By how much the distance from where chains began may grow, from the first to the last quarter of the draws.

A random walk's squared distance grows sevenfold, that of stationary chains stays."""
POWERS = 8
"""Steps of the power method, which need not be exact."""
RISE = 2.0
"""Standard deviations of a half chain by which the log-density may rise from the first half to the second."""


def drift(flat: Mapping[str, Tensor], statistics: Mapping[str, Tensor]) -> Iterator[Finding]:
    """Whether weights under flat priors go on and on, and whether the log-density still rises.

    Args:
        flat: The draws ``[K, S, ...]`` of sites without a proper prior, by name.
        statistics: What happened to the chains; ``log_density`` is looked at.
    """
    found = {name: growth(values) for name, values in flat.items()}
    going = {name: value for name, value in found.items() if value > GROWTH}
    if going:
        worst = max(going, key=lambda name: going[name])
        names = ", ".join(sorted(going, key=lambda name: -going[name])[:3])
        more = f" and {len(going) - 3} more" if len(going) > 3 else ""
        yield Finding(
            "bad",
            "drift",
            f"a flat direction: {names}{more} went on without an end (the squared distance from the first draw of "
            f"{worst} grew {number(going[worst])}-fold from the first to the last quarter), and the improper prior "
            "does not hold them",
            "a proper prior there, such as normal, or fixed where the direction means nothing",
        )
    density = statistics.get("log_density")
    if density is not None and not going and (rise := rising(density)) > RISE:
        yield Finding(
            "bad",
            "warm-up",
            f"the log-density was still rising: from the first half to the second by {number(rise)} standard "
            "deviations in every chain",
            "a longer warm-up, or a start from trained nets; where it rises without an end, the posterior has a spike",
        )


def growth(values: Tensor) -> float:
    r"""By how much chains ``[K, S, ...]`` went on leaving their first draw, along the direction where they went most.

    .. math:: \frac{\overline{(v^\top (x_{k, s} - x_{k, 0}))^2}_{s > 3S/4}}
        {\overline{(v^\top (x_{k, s} - x_{k, 0}))^2}_{s \le S/4}}

    with the principal direction :math:`v` of the displacements in the last quarter; NaN where nothing moves.
    """
    gone = values.reshape(*values.shape[:2], -1).cpu()
    gone = gone - gone[:, :1]
    quarter = max(gone.shape[1] // 4, 1)
    # along one direction: a sum over all entries would hide it behind those that are held
    last = gone[:, -quarter:].flatten(0, 1)
    direction = last[last.square().sum(1).argmax()]
    for _ in range(POWERS):
        direction = torch.nn.functional.normalize(last.mT @ (last @ direction), dim=0)
    along = (gone @ direction).double()
    return float(along[:, -quarter:].square().mean() / along[:, 1 : quarter + 1].square().mean())


def rising(log_density: Tensor) -> float:
    """The least rise of the log-density over all chains ``[K, S]``, half against half, in standard deviations."""
    half = log_density.shape[1] // 2
    first, second = log_density[:, :half].double(), log_density[:, -half:].double()
    spread = torch.minimum(first.std(1), second.std(1))
    rise = (second.mean(1) - first.mean(1)) / spread
    return float(rise.nan_to_num(0.0).min())
