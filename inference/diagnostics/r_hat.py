"""Whether chains agree with each other, and each with itself."""

from __future__ import annotations

import torch
from torch import Tensor

from .chunks import over_quantities
from .ranks import folded, normal_scores, split_chains


def plain_r_hat(values: Tensor) -> Tensor:
    """The potential scale reduction ``[M]`` of chains ``[K, S, M]`` as they are."""
    draws = values.shape[1]
    within = values.var(1).mean(0)
    between = draws * values.mean(1).var(0)
    return ((between / within + draws - 1) / draws).sqrt()


@over_quantities
def r_hat(values: Tensor) -> Tensor:
    r"""Rank-normalised split R-hat: the larger one of that of the draws and of that of their distances to the median.

    .. math:: \hat R = \sqrt{\frac{S - 1}{S} + \frac{B}{S\, W}}

    with the variances :math:`B / S` between and :math:`W` within half chains, of normal scores of ranks. The first
    part sees chains with different locations, the folded one those with different scales. Values near 1 say that the
    half chains agree; above 1.01 they do not yet. One chain alone is compared with itself only.

    Args:
        values: ``[K, S, ...]``, from 4 draws a chain.

    Returns:
        ``[...]`` in float64; NaN where a quantity is constant or not finite.

    Raises:
        SettingError: There are fewer than 4 draws a chain.

    Reference:
        Vehtari, Gelman, Simpson, Carpenter and Bürkner, 2021, "Rank-normalization, folding, and localization: an
        improved R-hat for assessing convergence of MCMC", Sec. 3 and 4.
    """
    halves = split_chains(values)
    return torch.maximum(plain_r_hat(normal_scores(halves)), plain_r_hat(normal_scores(folded(halves))))
