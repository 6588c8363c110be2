"""How wide the prior of each unconstrained number is: the masses that chains begin with."""

from __future__ import annotations

import torch
from torch import Tensor

from ..models import BayesianModel
from .density import Layout
from .prior_functions import PriorFunctions, flat_sites

DRAWS = 32
MOST = 1e12
"""Variances above it or below its inverse say nothing of a posterior."""
NORMAL = 1.4826
"""Standard deviation of a normal distribution by its median distance from its median."""


def prior_variances(model: BayesianModel, layout: Layout, seed: int = 0) -> Tensor:
    r"""A variance of each unconstrained number under the prior, one for all numbers of a site.

    .. math:: v = \big(1.4826\, \operatorname{median}_{s, i} |z_{si} - \operatorname{median}_s z_{si}|\big)^2

    Medians, since priors with heavy tails may have no variance. Attention rows have 1, and so has everything where a
    prior is flat, and has no draws.

    Args:
        model: The model.
        layout: Of its density.
        seed: Of the draws.

    Returns:
        ``[D]``.
    """
    found = {name: 1.0 for name in layout.names}
    if not flat_sites(model):
        drawn = PriorFunctions(model).draw(DRAWS, seed=seed)
        for name in set(layout.names) & set(drawn):
            z = layout.transforms[name].inv(drawn[name]).double()
            variance = float(NORMAL * (z - z.median(0).values).abs().median()) ** 2
            if 1 / MOST < variance < MOST:
                found[name] = variance
    sizes = zip(found.values(), layout.sizes, strict=True)
    return torch.cat([torch.full((size,), variance, dtype=layout.dtype) for variance, size in sizes]).to(layout.device)
