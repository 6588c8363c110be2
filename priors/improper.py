"""The flat, improper prior."""

from __future__ import annotations

from dataclasses import dataclass

import pyro.distributions as dist
import torch

from .base import Distribution, Prior, Site


@dataclass(frozen=True, kw_only=True)
class Improper(Prior):
    r"""A flat density over the reals.

    .. math:: p(w) \propto 1

    It is a standard normal around the centre whose log-density is masked to 0, so that samplers and guides can start
    from it; its draws are starting values and no draws from a prior.
    """

    def distribution(self, site: Site) -> Distribution:
        return dist.Normal(site.loc, torch.ones_like(site.value)).mask(False).to_event(site.value.dim())


def is_flat(distribution: Distribution) -> bool:
    """Whether the log-density is masked to 0 everywhere, so that draws mean nothing."""
    while isinstance(distribution, dist.Independent):
        distribution = distribution.base_dist
    return isinstance(distribution, dist.MaskedDistribution) and distribution._mask is False
