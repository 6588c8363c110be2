"""Independent uniform prior."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor

from .base import Distribution, ScaledPrior, Site


class _ClosedUniform(dist.Uniform):
    """A uniform distribution that holds both of its ends: constrained values may round to them."""

    def log_prob(self, value: Tensor) -> Tensor:
        inside = (value >= self.low) & (value <= self.high)
        return torch.where(inside, -(self.high - self.low).log(), -math.inf)


@dataclass(frozen=True, kw_only=True)
class Uniform(ScaledPrior):
    r"""Independent uniform entries around the centre.

    .. math:: w_i \sim \mathcal U(c - s,\, c + s)

    with the centre :math:`c` of the site (1 for normalisation gains, else 0). Guides and samplers keep to this support,
    and so do drivers that ignore the density; a net's own values outside it start just inside.

    Args:
        scale: Half the width :math:`s`, above 0, default 1; the standard deviation is :math:`s/\sqrt3`.
        scaling: ``absolute`` (default), ``fan_in`` or ``depth``. See `ScaledPrior`.

    Raises:
        SettingError: ``scale`` is not above 0, or ``scaling`` is unknown.
    """

    def distribution(self, site: Site) -> Distribution:
        loc, scale = site.loc, self.scale_of(site)
        return _ClosedUniform(loc - scale, loc + scale).to_event(site.value.dim())
