"""Independent Cauchy prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyro.distributions as dist

from .base import Distribution, ScaledPrior, Site


@dataclass(frozen=True, kw_only=True)
class Cauchy(ScaledPrior):
    r"""Independent Cauchy entries: neither a mean nor a variance.

    .. math:: p(w_i) = \frac{1}{\pi s} \left(1 + \frac{(w_i - c)^2}{s^2}\right)^{-1}

    with the centre :math:`c` of the site (1 for normalisation gains, else 0).

    Args:
        scale: The scale parameter :math:`s`, above 0, default 1: half of all entries are within it of the centre.
        scaling: ``absolute`` (default); ``fan_in``: :math:`s = \text{scale} / \text{fan\_in}`, for a sum of n Cauchy
            variables is n times as large as one; ``depth``: :math:`s = \text{scale} / (\text{fan\_in}\, R)`. See
            `ScaledPrior`.

    Raises:
        SettingError: ``scale`` is not above 0, or ``scaling`` is unknown.

    Reference:
        Neal, 1996, "Bayesian learning for neural networks", Chapter 2.
    """

    gain: ClassVar[float] = 1.0
    exponent: ClassVar[float] = 1.0

    def distribution(self, site: Site) -> Distribution:
        return dist.Cauchy(site.loc, self.scale_of(site)).to_event(site.value.dim())
