"""Independent normal prior."""

from __future__ import annotations

from dataclasses import dataclass

import pyro.distributions as dist

from .base import Distribution, ScaledPrior, Site


@dataclass(frozen=True, kw_only=True)
class Normal(ScaledPrior):
    r"""Independent normal entries.

    .. math:: w_i \sim \mathcal N(c, s^2)

    with the centre :math:`c` of the site (1 for normalisation gains, else 0).

    Args:
        scale: The standard deviation, above 0, default 1.
        scaling: ``absolute`` (default), or ``fan_in``: :math:`s = \text{scale}\,\sqrt{2/\text{fan\_in}}` (He et al.,
            2015, "Delving deep into rectifiers", Eq. 10, at scale 1).

    Raises:
        SettingError: ``scale`` is not above 0, or ``scaling`` is unknown.
    """

    def distribution(self, site: Site) -> Distribution:
        return dist.Normal(site.loc, self.scale_of(site)).to_event(site.value.dim())
