"""A relaxed spike-and-slab prior, by gates between 0 and 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor

from .base import Distribution, Site
from .hierarchy import Hypers
from .random_scale import RandomScale
from .settings import check, check_option, check_positive
from .sharing import scales_like, spread

OPEN = math.log(9.0)
"""Where the logits of gates start: a gate of 0.9."""


@dataclass(frozen=True, kw_only=True)
class SpikeAndSlab(RandomScale):
    r"""A relaxed spike and slab: weights are switched off by gates that are Concrete instead of Bernoulli variables.

    .. math:: g_i = \frac{1}{1 + e^{-l_i}}, \qquad l_i \sim \mathrm{Logistic}\big(\tfrac1T \ln\tfrac{\pi}{1 - \pi},
        \tfrac1T\big), \qquad w_i \sim \mathcal N\big(c, (\epsilon + (1 - \epsilon) g_i)^2 s^2\big)

    with the centre :math:`c` and the scale :math:`s` that ``prior`` has for the site, the slab; the spike is
    :math:`\epsilon` times as wide. The gates are relaxed Bernoulli variables: as :math:`T \to 0` they become 1 with
    probability :math:`\pi` and else 0, and at any temperature they are above 1/2 with that probability. The hyper-site
    ``<weight>_logit`` holds :math:`l`, which no dtype rounds to an end of its range. In the non-centred form the sample
    site is ``<weight>_standard``.

    Another relaxation leaves the gates out by a sum over both of their values (George and McCulloch); that is a
    `Mixture` of ``normal`` components with the scales :math:`s` and :math:`\epsilon s`.

    Args:
        prior, centered: See `RandomScale`.
        inclusion: :math:`\pi`, between 0 and 1, default 0.5.
        temperature: :math:`T > 0`, default 2/3, that of Maddison et al.
        spike: :math:`\epsilon`, between 0 and 1, default 0.01.
        per: What has a gate: every ``entry`` (default); every ``input``, that is column of a matrix or row of a table;
            every output ``unit``, that is row of a matrix or entry of a vector.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Mitchell and Beauchamp, 1988, "Bayesian variable selection in linear regression"; George and McCulloch, 1993,
        "Variable selection via Gibbs sampling"; the gates: Maddison, Mnih and Teh, 2017, "The Concrete distribution",
        App. B; Jang, Gu and Poole, 2017, "Categorical reparameterization with Gumbel-softmax". The numbers but for the
        temperature are ours.
    """

    inclusion: float = 0.5
    temperature: float = 2 / 3
    spike: float = 0.01
    per: Literal["entry", "input", "unit"] = "entry"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "temperature")
        for key in ("inclusion", "spike"):
            check(self, key, 0 < getattr(self, key) < 1, "a number between 0 and 1")
        check_option(self, "per", ("entry", "input", "unit"))

    def hyper_sites(self, site: Site) -> dict[str, Distribution]:
        like = scales_like(site, self.per)
        loc = torch.full_like(like, math.log(self.inclusion / (1 - self.inclusion)) / self.temperature)
        logits = dist.Logistic(loc, torch.full_like(like, 1 / self.temperature))
        return {f"{site.name}_logit": logits.to_event(like.dim())}

    def start(self, site: Site) -> dict[str, Tensor]:
        return {f"{site.name}_logit": torch.full_like(scales_like(site, self.per), OPEN)}

    def factor(self, site: Site, hypers: Hypers) -> Tensor:
        gate = spread(hypers[f"{site.name}_logit"], site, self.per).sigmoid()
        return self.spike + (1 - self.spike) * gate
