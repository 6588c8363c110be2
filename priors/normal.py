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
        scaling: ``absolute`` (default), ``fan_in`` or ``depth``. See `ScaledPrior`.

    Raises:
        SettingError: ``scale`` is not above 0, or ``scaling`` is unknown.

    Reference:
        MacKay, 1992, "A practical Bayesian framework for backpropagation networks".
    """

    def distribution(self, site: Site) -> Distribution:
        return dist.Normal(site.loc, self.scale_of(site)).to_event(site.value.dim())
