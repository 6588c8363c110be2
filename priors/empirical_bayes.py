"""Scales learned by type-II maximum likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .base import Distribution, Site
from .hierarchy import Hypers
from .random_scale import RandomScale
from .settings import check, check_positive
from .sharing import spread


@dataclass(frozen=True, kw_only=True)
class EmpiricalBayes(RandomScale):
    r"""A weight prior whose scale is multiplied by a number that is learned: type-II maximum likelihood.

    .. math:: w_i \sim p(w_i \mid c, \tau s), \qquad \tau = \arg\max_t p(y \mid t)

    with the centre :math:`c` and the scale :math:`s` that ``prior`` has for the site. The evidence is replaced by its
    bound: a driver that optimises a guide optimises :math:`\ln \tau`, the parameter ``<weight>_log_scale``, with it.
    There is no posterior over :math:`\tau`, so `NUTS` refuses it; and as the joint density of :math:`\tau` and the
    weights has no maximum, so does `MAP`. A guide of point masses has the same fault: :math:`\tau` falls to 0.

    Args:
        prior: See `RandomScale`.
        centered: See `RandomScale`. Here: default True, in which a normal guide has the best :math:`\tau` in closed
            form, the root of the mean of :math:`E_q (w_i - c)^2 / s^2`; the other form goes there far more slowly.
        group: A name for the number, ``<group>_log_scale``, which all weights whose prior gives this group share;
            default None: every site has its own.
        init: :math:`\tau` at the start, above 0, default 1.

    Raises:
        SettingError: ``init`` is not above 0, ``group`` is no name, ``prior`` has no scale, or the centred form is
            asked of a bounded prior.

    Reference:
        MacKay, 1992, "Bayesian interpolation"; in variational networks: Graves, 2011, "Practical variational
        inference for neural networks".
    """

    centered: bool = True
    group: str | None = None
    init: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "init")
        named = isinstance(self.group, str) and self.group.isidentifier()
        check(self, "group", self.group is None or named, "a name of letters, digits and underscores, or null")

    def hyper_sites(self, site: Site) -> dict[str, Distribution]:
        return {}

    def start(self, site: Site) -> dict[str, Tensor]:
        return {}

    def learned(self, site: Site) -> dict[str, Tensor]:
        return {self._name(site): site.value.new_tensor(math.log(self.init))}

    def factor(self, site: Site, hypers: Hypers) -> Tensor:
        return spread(hypers[self._name(site)].exp(), site, "site")

    def _name(self, site: Site) -> str:
        return f"{site.name if self.group is None else self.group}_log_scale"
