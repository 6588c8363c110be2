"""Priors that add sample sites of their own, and the one whose scale is a sample site."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.distributions import constraints

from .base import Distribution, ScaleFamily, Site, check_scale_family
from .hyperpriors import HalfCauchy, Hyperprior
from .normal import Normal
from .settings import SettingError, check
from .support import base

Hypers = Mapping[str, Tensor]
"""Values by name, ``[*event]`` or with leading sample dimensions ``[S, 1, *event]``, where the 1 is the data plate."""


class HierarchicalPrior(ABC):
    r"""A prior over one parameter of a net, given hyperparameters that are drawn or learned with it.

    .. math:: \tau \sim p(\tau), \qquad w \sim p(w \mid \tau)

    A model draws the hyper-sites first, then the weight. A name that several weights give is one site, which they
    share. No name may begin with that of a weight and a dot, for stock autoguides keep sites as attributes. The weight
    itself may be drawn under another name and computed from there: a non-centred form.
    """

    @abstractmethod
    def hyper_sites(self, site: Site) -> dict[str, Distribution]:
        """The sample sites that belong to ``site``, by name, with batch shape (); none if all is learned."""

    @abstractmethod
    def start(self, site: Site) -> dict[str, Tensor]:
        """Where guides and samplers start each hyper-site, inside its support."""

    def learned(self, site: Site) -> dict[str, Tensor]:
        """Hyperparameters that are trained as numbers (empirical Bayes), by name, at their start; any real number."""
        return {}

    conditional = True
    """Whether `distribution` looks at the hyperparameters; if not, it is called once and kept."""

    @abstractmethod
    def distribution(self, site: Site, hypers: Hypers) -> Distribution:
        """The prior of what is drawn for ``site``: batch shape () or that of the leading dimensions of ``hypers``.

        Args:
            site: The weight.
            hypers: Every hyperparameter of the model; empty when the prior is not `conditional`.
        """

    def drawn_as(self, site: Site) -> str:
        """The name of the sample site that `distribution` belongs to; default the weight's own."""
        return site.name

    def weight(self, site: Site, drawn: Tensor, hypers: Hypers) -> Tensor:
        """The weight, from what was drawn."""
        return drawn

    def undo(self, site: Site, weight: Tensor, hypers: Hypers) -> Tensor:
        """What has to be drawn for this weight: the inverse of `weight`."""
        return weight


@dataclass(frozen=True, kw_only=True)
class Hierarchical(HierarchicalPrior):
    r"""A weight prior whose scale is multiplied by a random factor, one for each weight site.

    .. math:: \tau \sim p(\tau), \qquad w_i \sim p(w_i \mid c, \tau s)

    with the centre :math:`c` and the scale :math:`s` that ``prior`` has for the site. The hyper-site is called
    ``<weight>_scale``. In the centred form ``w`` is the sample site ``<weight>``. In the non-centred form

    .. math:: z_i \sim p(z_i \mid 0, s), \qquad w_i = c + \tau z_i

    is the same prior, ``z`` the sample site ``<weight>_standard`` and ``<weight>`` a `pyro.deterministic`. The weights
    of a large net are known better by their prior than by the data; there, the funnel of the centred form is hard for
    samplers and for guides that take sites as independent, and :math:`\tau` and ``z`` are nearly independent.

    The maximum a posteriori of the centred form does not exist where the hyperprior reaches down to 0: the density is
    unbounded as :math:`\tau \to 0` with :math:`w \to c`. That of the non-centred form is another point than that of
    ``w``, for densities change with the variables they are over.

    Args:
        prior: A prior with a scale (``normal``, the default, ``laplace``, ``student_t``, a mixture, ...).
        hyperprior: That of :math:`\tau`: ``half_cauchy`` (default), ``gamma`` or ``uniform_scale``.
        centered: Default False: the non-centred form.

    Raises:
        SettingError: ``prior`` has no scale, ``hyperprior`` is none, or the centred form is asked of a bounded prior:
            its support would move with :math:`\tau`.

    Reference:
        Papaspiliopoulos, Roberts and Sköld, 2007, "A general framework for the parametrization of hierarchical models";
        in Bayesian networks: Ghosh, Yao and Doshi-Velez, 2018, "Structured variational learning of Bayesian neural
        networks with horseshoe priors".
    """

    prior: ScaleFamily = field(default_factory=Normal)
    hyperprior: Hyperprior = field(default_factory=HalfCauchy)
    centered: bool = False

    def __post_init__(self) -> None:
        check_scale_family("prior", self.prior)
        if not isinstance(self.hyperprior, Hyperprior):
            raise SettingError("hyperprior", self.hyperprior, "a prior over scales, such as HalfCauchy()")
        check(self, "centered", isinstance(self.centered, bool), "true or false")
        support = base(self.prior.distribution(Site("", torch.zeros(()))).support)
        expected = f"false: the support of {type(self.prior).__name__} moves with its scale"
        check(self, "centered", not self.centered or support is constraints.real, expected)

    @property
    def conditional(self) -> bool:  # type: ignore[override]
        return self.centered

    def hyper_sites(self, site: Site) -> dict[str, Distribution]:
        return {f"{site.name}_scale": self.hyperprior.distribution(site.value.new_zeros(()))}

    def start(self, site: Site) -> dict[str, Tensor]:
        return {f"{site.name}_scale": self.hyperprior.start(site.value.new_zeros(()))}

    def distribution(self, site: Site, hypers: Hypers) -> Distribution:
        if self.centered:
            return self.prior.distribution(replace(site, scale=self._factor(site, hypers)))
        return self.prior.distribution(replace(site, center=0.0))

    def drawn_as(self, site: Site) -> str:
        return site.name if self.centered else f"{site.name}_standard"

    def weight(self, site: Site, drawn: Tensor, hypers: Hypers) -> Tensor:
        return drawn if self.centered else site.center + self._factor(site, hypers) * drawn

    def undo(self, site: Site, weight: Tensor, hypers: Hypers) -> Tensor:
        return weight if self.centered else (weight - site.center) / self._factor(site, hypers)

    @staticmethod
    def _factor(site: Site, hypers: Hypers) -> Tensor:
        """The factor with axes for the entries of the weight."""
        factor = hypers[f"{site.name}_scale"]
        return factor.reshape(factor.shape + (1,) * site.value.dim())
