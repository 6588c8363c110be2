"""Matrix-normal prior."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Distribution, Site
from .correlated import CorrelatedPrior
from .kronecker import KroneckerNormal


@dataclass(frozen=True, kw_only=True)
class MatrixNormal(CorrelatedPrior):
    r"""A normal weight whose rows and columns are correlated.

    .. math:: W \sim \mathcal{MN}(c, s^2 U, V), \qquad \mathrm{cov}(W_{ij}, W_{kl}) = s^2 U_{ik} V_{jl}

    with the centre :math:`c` of the site (1 for normalisation gains, else 0). Every entry alone is normal with the
    standard deviation :math:`s`.

    Args:
        scale: The standard deviation, above 0, default 1.
        scaling: ``absolute`` (default), ``fan_in`` or ``depth``. See `ScaledPrior`; correlated columns make the sum
            over a unit's inputs larger than these suppose where the inputs have a mean.
        rows, columns, row_correlation, column_correlation: See `CorrelatedPrior`.

    Raises:
        SettingError: A setting is out of range, or a weight has 3 axes or more than 4.

    Reference:
        Dawid, 1981, "Some matrix-variate distribution theory"; correlated weights in networks: Fortuin et al., 2022,
        "Bayesian neural network priors revisited" (arXiv 2102.06571), Sec. 3. The structures are ours.
    """

    def distribution(self, site: Site) -> Distribution:
        return KroneckerNormal(**self.parts_of(site))
