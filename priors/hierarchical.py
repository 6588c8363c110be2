"""Weight priors with one random scale for each site."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from .base import Distribution, Site
from .hierarchy import Hypers
from .hyperpriors import HalfCauchy, Hyperprior
from .random_scale import RandomScale, check_hyperprior
from .sharing import spread


@dataclass(frozen=True, kw_only=True)
class Hierarchical(RandomScale):
    r"""A weight prior whose scale is multiplied by a random factor, one for each weight site.

    .. math:: \tau \sim p(\tau), \qquad w_i \sim p(w_i \mid c, \tau s)

    with the centre :math:`c` and the scale :math:`s` that ``prior`` has for the site. The hyper-site is called
    ``<weight>_scale``.

    Args:
        prior, centered: See `RandomScale`.
        hyperprior: That of :math:`\tau`: ``half_cauchy`` (default), ``gamma``, ``precision_gamma`` or
            ``uniform_scale``.

    Raises:
        SettingError: ``prior`` has no scale, ``hyperprior`` is none, or the centred form is asked of a bounded prior:
            its support would move with :math:`\tau`.

    Reference:
        Papaspiliopoulos, Roberts and Sköld, 2007, "A general framework for the parametrization of hierarchical models";
        in Bayesian networks: Ghosh, Yao and Doshi-Velez, 2018, "Structured variational learning of Bayesian neural
        networks with horseshoe priors".
    """

    hyperprior: Hyperprior = field(default_factory=HalfCauchy)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_hyperprior("hyperprior", self.hyperprior)

    def hyper_sites(self, site: Site) -> dict[str, Distribution]:
        return {f"{site.name}_scale": self.hyperprior.distribution(site.value.new_zeros(()))}

    def start(self, site: Site) -> dict[str, Tensor]:
        return {f"{site.name}_scale": self.hyperprior.start(site.value.new_zeros(()))}

    def factor(self, site: Site, hypers: Hypers) -> Tensor:
        return spread(hypers[f"{site.name}_scale"], site, "site")
