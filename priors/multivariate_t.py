"""Multivariate Student-t prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .base import Distribution, Site
from .correlated import CorrelatedPrior
from .kronecker import KroneckerT
from .settings import check, check_option, check_positive


@dataclass(frozen=True, kw_only=True)
class MultivariateT(CorrelatedPrior):
    r"""A Student-t weight: a correlated normal one divided by a random scale, so that entries are large together.

    .. math:: p(W) = \frac{\Gamma(\frac{\nu + n}2)}{\Gamma(\frac\nu2)\, (\pi\nu)^{n/2}\, |\Sigma|^{1/2}}
        \left(1 + \frac{(w - c)^\top \Sigma^{-1} (w - c)}{\nu}\right)^{-(\nu + n)/2}, \qquad
        \Sigma_{ij,kl} = s^2 U_{ik} V_{jl}

    with all :math:`n` entries :math:`w` of the weight, and the centre :math:`c` of the site (1 for normalisation gains,
    else 0). Every entry alone is a Student-t with the scale :math:`s`. This is the elliptical law, which has one random
    scale; the matrix-t of Dickey, with a random covariance, is another one.

    Args:
        scale: The scale parameter :math:`s`, above 0, default 1; the standard deviation is
            :math:`s\sqrt{\nu / (\nu - 2)}`, and infinite for :math:`\nu \le 2`.
        scaling: ``absolute`` (default), ``fan_in`` or ``depth``. See `ScaledPrior`.
        rows, columns, row_correlation, column_correlation: See `CorrelatedPrior`.
        df: Degrees of freedom :math:`\nu`, above 0, default 3 (a reconstruction, after `StudentT`).
        joint: What has one random scale: the whole weight (``site``, the default), or every ``row``, that is output
            unit, on its own, which needs ``rows: identity``.

    Raises:
        SettingError: A setting is out of range, ``joint`` is ``row`` with correlated rows, or a weight has 3 axes or
            more than 4.

    Reference:
        Kotz and Nadarajah, 2004, "Multivariate t distributions and their applications", Eq. 1.1; in networks: Fortuin
        et al., 2022, "Bayesian neural network priors revisited" (arXiv 2102.06571).
    """

    df: float = 3.0
    joint: Literal["site", "row"] = "site"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "df")
        check_option(self, "joint", ("site", "row"))
        check(self, "joint", self.joint == "site" or self.rows == "identity", f"site with rows = {self.rows}")

    def distribution(self, site: Site) -> Distribution:
        return KroneckerT(df=self.df, by_row=self.joint == "row", **self.parts_of(site))
