"""Automatic relevance determination."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from .base import Distribution, Site
from .hierarchy import Hypers
from .hyperpriors import Hyperprior, PrecisionGamma
from .random_scale import RandomScale, check_hyperprior
from .sharing import scales_like, spread


@dataclass(frozen=True, kw_only=True)
class ARD(RandomScale):
    r"""Automatic relevance determination: one random scale for each input of a layer, which may switch it off.

    .. math:: \tau_j \sim p(\tau), \qquad w_{ij} \sim \mathcal N\big(c, (\tau_j s)^2\big)

    with the centre :math:`c` and the scale :math:`s` that ``prior`` has for the site. The inputs of a matrix are its
    columns, those of a table (embeddings of tokens and positions) its rows; a vector, such as a bias, has one scale.
    The hyper-site ``<weight>_relevance`` holds the scales, one for each input. In the non-centred form the sample site
    is ``<weight>_standard``.

    Args:
        prior, centered: See `RandomScale`.
        hyperprior: That of every :math:`\tau_j`, default ``precision_gamma``, under which the entries of one input are
            a multivariate Student-t.

    Raises:
        SettingError: ``hyperprior`` is none, ``prior`` has no scale, or the centred form is asked of a bounded prior.

    Reference:
        MacKay, 1994, "Bayesian nonlinear modeling for the prediction competition"; Neal, 1996, "Bayesian learning for
        neural networks", Chapter 4. The hyperprior's default numbers are ours.
    """

    hyperprior: Hyperprior = field(default_factory=PrecisionGamma)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_hyperprior("hyperprior", self.hyperprior)

    def hyper_sites(self, site: Site) -> dict[str, Distribution]:
        return {f"{site.name}_relevance": self.hyperprior.distribution(scales_like(site, "input"))}

    def start(self, site: Site) -> dict[str, Tensor]:
        return {f"{site.name}_relevance": self.hyperprior.start(scales_like(site, "input"))}

    def factor(self, site: Site, hypers: Hypers) -> Tensor:
        return spread(hypers[f"{site.name}_relevance"], site, "input")
