"""Independent log-normal prior, for gains."""

from __future__ import annotations

from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor

from .base import Distribution, Prior, Site
from .settings import SettingError, check_positive


@dataclass(frozen=True, kw_only=True)
class LogNormal(Prior):
    r"""Independent log-normal entries around a centre above 0: gains that keep their sign.

    .. math:: \ln w_i \sim \mathcal N(\ln c, s^2)

    with the centre :math:`c` of the site, which is the median: 1 for normalisation gains. Doubled gains are as likely
    as halved ones. Weights whose centre is 0, which is all others, are refused.

    Args:
        scale: The standard deviation :math:`s` of the logarithm, above 0, default 0.5 (ours).

    Raises:
        SettingError: ``scale`` is not above 0, or the centre of a weight is not.

    Reference:
        Aitchison and Brown, 1957, "The lognormal distribution", Chapter 2.

    Example:
        task: digits
        prior: {"*norm*.weight": {log_normal: {scale: 0.5}}, "*": normal}
    """

    scale: float = 0.5

    def __post_init__(self) -> None:
        check_positive(self, "scale")

    def check_site(self, site: Site) -> None:
        if not bool((torch.as_tensor(site.center) > 0).all()):
            raise SettingError("", site.name, "a weight with a centre above 0 for log_normal: a normalisation gain")

    def distribution(self, site: Site) -> Distribution:
        self.check_site(site)
        return dist.LogNormal(site.loc.log(), torch.full_like(site.value, self.scale)).to_event(site.value.dim())

    def __call__(self, name: str, parameter: Tensor) -> Distribution:
        """The prior of a bare tensor, taken for a gain: centre 1."""
        return self.distribution(Site(name, parameter.detach(), center=1.0))
