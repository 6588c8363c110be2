"""Weight priors whose scale is multiplied by a factor that is drawn or learned, in centred and non-centred form."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.distributions import constraints

from .base import Distribution, ScaleFamily, Site, check_scale_family
from .hierarchy import HierarchicalPrior, Hypers
from .hyperpriors import Hyperprior
from .normal import Normal
from .settings import SettingError, check
from .support import base


def check_hyperprior(key: str, hyperprior: object) -> None:
    """Raise a `SettingError` about the setting ``key`` unless ``hyperprior`` is a `Hyperprior`."""
    if not isinstance(hyperprior, Hyperprior):
        raise SettingError(key, hyperprior, "a prior over scales, such as HalfCauchy()")


@dataclass(frozen=True, kw_only=True)
class RandomScale(HierarchicalPrior):
    r"""A weight prior whose scale is multiplied by a factor made of hyperparameters.

    .. math:: w_i \sim p(w_i \mid c, f_i s)

    with the centre :math:`c` and the scale :math:`s` that ``prior`` has for the site. In the centred form ``w`` is the
    sample site ``<weight>``. In the non-centred form

    .. math:: z_i \sim p(z_i \mid 0, s), \qquad w_i = c + f_i z_i

    is the same prior, ``z`` the sample site ``<weight>_standard`` and ``<weight>`` a `pyro.deterministic`. The weights
    of a large net are known better by their prior than by the data; there, the funnel of the centred form is hard for
    samplers and for guides that take sites as independent, and the factor and ``z`` are nearly independent.

    The maximum a posteriori of the centred form does not exist where the factor may come near 0: the density is
    unbounded as :math:`f \to 0` with :math:`w \to c`. That of the non-centred form is another point than that of
    ``w``, for densities change with the variables they are over.

    Args:
        prior: A prior with a scale (``normal``, the default, ``laplace``, ``student_t``, a mixture, ...).
        centered: Default False: the non-centred form.

    Raises:
        SettingError: ``prior`` has no scale, or the centred form is asked of a bounded prior: its support would move
            with the factor.

    Reference:
        Papaspiliopoulos, Roberts and Sköld, 2007, "A general framework for the parametrization of hierarchical models".
    """

    prior: ScaleFamily = field(default_factory=Normal)
    centered: bool = False

    def __post_init__(self) -> None:
        check_scale_family("prior", self.prior)
        check(self, "centered", isinstance(self.centered, bool), "true or false")
        support = base(self.prior.distribution(Site("", torch.zeros(()))).support)
        expected = f"false: the support of {type(self.prior).__name__} moves with its scale"
        check(self, "centered", not self.centered or support is constraints.real, expected)

    def check_site(self, site: Site) -> None:
        self.prior.check_site(site)

    @abstractmethod
    def factor(self, site: Site, hypers: Hypers) -> Tensor:
        """The factor :math:`f`, above 0, broadcastable to ``[..., *site.value.shape]``."""

    @property
    def conditional(self) -> bool:  # type: ignore[override]
        return self.centered

    def distribution(self, site: Site, hypers: Hypers) -> Distribution:
        if self.centered:
            return self.prior.distribution(replace(site, scale=site.scale * self.factor(site, hypers)))
        return self.prior.distribution(replace(site, center=0.0))

    def drawn_as(self, site: Site) -> str:
        return site.name if self.centered else f"{site.name}_standard"

    def weight(self, site: Site, drawn: Tensor, hypers: Hypers) -> Tensor:
        return drawn if self.centered else site.center + self.factor(site, hypers) * drawn

    def undo(self, site: Site, weight: Tensor, hypers: Hypers) -> Tensor:
        return weight if self.centered else (weight - site.center) / self.factor(site, hypers)
