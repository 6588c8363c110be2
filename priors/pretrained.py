"""Priors around the weights that a net already has."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from .base import Distribution, Prior, ScaleFamily, Site, check_scale_family
from .normal import Normal
from .settings import check_positive


@dataclass(frozen=True, kw_only=True)
class Pretrained(Prior):
    r"""A prior centred at the value that the weight has in the net, such as one that was trained before.

    .. math:: w_i \sim p(w_i \mid w^0_i, \tau_i s), \qquad \tau_i = 1 \quad\text{or}\quad
        \tau_i = \max(\delta\,|w^0_i|, \epsilon)

    with the net's own weight :math:`w^0` in the place of the usual centre, the scale :math:`s` that ``prior`` has for
    the site, and the second :math:`\tau` where ``relative`` is given. The centres :math:`w^0` are those of the net from
    which the model was made; they are part of the model's state, so that a posterior that is loaded has them too, stay
    when the net is started afresh (all chains and members have one prior), and move only by
    `BayesianModel.centered_on`. From a spec, whose net is untrained, they are the net's random start, or with a driver
    that trains the net first (its setting ``start``) the trained net: ``driver: {svi: {start: ml}}``. In an ensemble of
    such drivers every member trains a net of its own, and has a prior of its own around it.

    Args:
        prior: A prior with a scale, default ``normal``; its centre is replaced.
        relative: :math:`\delta > 0`, a share of each weight's size; default None: the scale of ``prior`` alone.
        floor: :math:`\epsilon > 0`, the least factor where ``relative`` is given, default 0.01 (ours): biases often
            start at 0.

    Raises:
        SettingError: ``prior`` has no scale, or a number is not above 0.

    Reference:
        Krishnan, Subedar and Tickoo, 2020, "Specifying weight priors in Bayesian deep neural networks with empirical
        Bayes" (MOPED), for ``relative``, which there also gives the guide its start.
    """

    looks_at_values: ClassVar[bool] = True

    prior: ScaleFamily = field(default_factory=Normal)
    relative: float | None = None
    floor: float = 0.01

    def __post_init__(self) -> None:
        check_scale_family("prior", self.prior)
        check_positive(self, "floor")
        if self.relative is not None:
            check_positive(self, "relative")

    def check_site(self, site: Site) -> None:
        self.prior.check_site(site)

    def distribution(self, site: Site) -> Distribution:
        factor = 1.0 if self.relative is None else (self.relative * site.value.abs()).clamp(min=self.floor)
        return self.prior.distribution(replace(site, center=site.value, scale=site.scale * factor))
