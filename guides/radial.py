"""Radial posterior: a direction, and a distance that does not grow with the number of weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..priors.settings import check_positive
from .family import LatentSite
from .joint import JointFamily
from .normal_priors import HALF_LOG_2PI

EULER = 0.5772156649015329


class Radial(JointFamily):
    r"""Radial entries: in units of the scales, the distance of a site from its mean is that of one normal number.

    .. math:: w = m + s \odot \frac{\varepsilon}{\lVert \varepsilon \rVert}\, r, \qquad
              \varepsilon \sim \mathcal N(0, I_d), \quad r \sim |\mathcal N(0, 1)|

    with one :math:`r` for each site of :math:`d` numbers. Draws of a normal distribution lie in a thin shell far from
    the mean where :math:`d` is large; these do not. With :math:`\rho = \lVert (w - m) / s \rVert` and the area
    :math:`A_{d-1}` of the unit sphere the density is

    .. math:: q(w) = \frac{2\, \mathcal N(\rho \mid 0, 1)}{A_{d-1}\, \rho^{d-1} \prod_i s_i}

    The variance of an entry is :math:`s_i^2 / d`, by which the KL to normal and flat priors is a closed form, and so is
    the entropy.

    Args:
        init_scale: Every :math:`s_i` at the start, above 0, default 1e-2; :math:`m` starts at the model's own values.

    Raises:
        SettingError: ``init_scale`` is not above 0.

    Reference:
        Farquhar, Osborne and Gal, 2020, "Radial Bayesian neural networks"; the constants of density and entropy are
        our own.
    """

    def __init__(self, *, init_scale: float = 1e-2):
        super().__init__()
        self.init_scale = init_scale
        check_positive(self, "init_scale")

    def setup(self, sites: dict[str, LatentSite]) -> None:
        super().setup(sites)
        self.log_scale = nn.Parameter(torch.full_like(self.loc, math.log(self.init_scale)))

    @property
    def scale(self) -> Tensor:
        """:math:`s`, ``[D]`` in the order of the sites; standard deviations are less by the root of ``d``."""
        return self.log_scale.exp()

    def sample(self, num_samples: int) -> Tensor:
        noise = self.loc.new_empty(num_samples, len(self.loc)).normal_()
        distance = self.loc.new_empty(num_samples, len(self.sizes)).normal_().abs()
        norms = torch.stack([part.norm(dim=-1) for part in noise.split(self.sizes, -1)], -1)
        return self.loc + self.scale * noise * self._spread(distance / norms)

    def _spread(self, values: Tensor) -> Tensor:
        """One number a site, ``[..., sites]``, as one for each of its entries, ``[..., D]``."""
        sizes = torch.tensor(self.sizes, device=values.device)
        return values.repeat_interleave(sizes, -1, output_size=len(self.loc))

    @staticmethod
    def _log_area(d: int) -> float:
        """:math:`\\ln A_{d-1}`, the area of the unit sphere in ``d`` dimensions."""
        return math.log(2) + 0.5 * d * math.log(math.pi) - math.lgamma(d / 2)

    def log_density(self, flat: Tensor) -> Tensor:
        total = -self.log_scale.sum()
        for d, part in zip(self.sizes, ((flat - self.loc) / self.scale).split(self.sizes, -1), strict=True):
            distance = part.norm(dim=-1)
            radial = math.log(2) - HALF_LOG_2PI - 0.5 * distance.square()
            # a power of 0 is 1 also at the mean, where the logarithm is not finite
            power = (d - 1) * distance.log() if d > 1 else 0.0
            total = total + radial - self._log_area(d) - power
        return total

    def moments(self) -> tuple[Tensor, Tensor]:
        counts = self._spread(self.loc.new_tensor(self.sizes))
        return self.loc, (2 * self.log_scale).exp() / counts

    def entropy(self) -> Tensor:
        mean_log = -0.5 * (EULER + math.log(2))  # of the distance
        radial = HALF_LOG_2PI + 0.5 - math.log(2)
        return self.log_scale.sum() + sum(radial + self._log_area(d) + (d - 1) * mean_log for d in self.sizes)

    @torch.no_grad()
    def summary(self) -> dict[str, Any]:
        scale = self.moments()[1].sqrt()
        return {"scale": {"median": float(scale.median()), "min": float(scale.min()), "max": float(scale.max())}}
