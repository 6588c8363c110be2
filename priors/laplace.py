"""Independent Laplace prior."""

from __future__ import annotations

from dataclasses import dataclass

import pyro.distributions as dist

from .base import Distribution, ScaledPrior, Site


@dataclass(frozen=True, kw_only=True)
class Laplace(ScaledPrior):
    r"""Independent Laplace entries.

    .. math:: p(w_i) = \frac{1}{2s}\, e^{-|w_i - c| / s}

    with the centre :math:`c` of the site (1 for normalisation gains, else 0).

    Args:
        scale: The mean distance from the centre, above 0, default 1; the standard deviation is :math:`\sqrt2\,s`.
        scaling: ``absolute`` (default), ``fan_in`` or ``depth``. See `ScaledPrior`.

    Raises:
        SettingError: ``scale`` is not above 0, or ``scaling`` is unknown.

    Reference:
        Williams, 1995, "Bayesian regularization and pruning using a Laplace prior".
    """

    def distribution(self, site: Site) -> Distribution:
        return dist.Laplace(site.loc, self.scale_of(site)).to_event(site.value.dim())
