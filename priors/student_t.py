"""Independent Student-t prior."""

from __future__ import annotations

from dataclasses import dataclass

import pyro.distributions as dist

from .base import Distribution, ScaledPrior, Site
from .settings import check_positive


@dataclass(frozen=True, kw_only=True)
class StudentT(ScaledPrior):
    r"""Independent Student-t entries: tails of a power law.

    .. math:: p(w_i) = \frac{\Gamma(\frac{\nu + 1}{2})}{\Gamma(\frac\nu2)\sqrt{\pi\nu}\,s}
        \left(1 + \frac{(w_i - c)^2}{\nu s^2}\right)^{-(\nu + 1)/2}

    with the centre :math:`c` of the site (1 for normalisation gains, else 0).

    Args:
        scale: The scale parameter :math:`s`, above 0, default 1; the standard deviation is
            :math:`s\sqrt{\nu / (\nu - 2)}`, and infinite for :math:`\nu \le 2`.
        scaling: ``absolute`` (default), ``fan_in`` or ``depth``. See `ScaledPrior`; sums grow with the root of their
            length, as it supposes, for :math:`\nu > 2`.
        df: Degrees of freedom :math:`\nu`, above 0, default 3.

    Raises:
        SettingError: ``scale`` or ``df`` is not above 0, or ``scaling`` is unknown.

    Reference:
        Fortuin et al., 2022, "Bayesian neural network priors revisited" (arXiv 2102.06571).
    """

    df: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "df")

    def distribution(self, site: Site) -> Distribution:
        return dist.StudentT(self.df, site.loc, self.scale_of(site)).to_event(site.value.dim())
