"""Normal posterior with a full covariance."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..priors.settings import check_count, check_positive
from .family import LatentSite
from .joint import JointFamily
from .normal_priors import HALF_LOG_2PI
from .triangular import count_below, solve_unit_lower, unit_lower


class FullRank(JointFamily):
    r"""One normal distribution over all sites, with a full covariance.

    .. math:: q(w) = \mathcal N(w \mid m, L L^\top), \qquad L = S (I + N)

    with a diagonal :math:`S` and numbers :math:`N` below the diagonal, in units of the scales, so that one learning
    rate suits both. Entropy and KL to normal and flat priors are closed forms:

    .. math:: H = \sum_i \ln s_i + \tfrac D2 \ln 2\pi e

    It has :math:`D (D + 3) / 2` parameters for :math:`D` numbers, so it is for small nets and for parts of large ones.

    Args:
        max_size: The largest :math:`D` that is accepted, a whole number of at least 1, default 2000.
        init_scale: Every :math:`s_i` at the start, above 0, default 1e-2; :math:`m` starts at the model's own values
            and :math:`N` at 0.

    Raises:
        SettingError: A setting is out of range, or the sites have more than ``max_size`` numbers together.

    Reference:
        Titsias and Lázaro-Gredilla, 2014, "Doubly stochastic variational Bayes for non-conjugate inference";
        Kucukelbir et al., 2017, "Automatic differentiation variational inference".
    """

    def __init__(self, *, max_size: int = 2000, init_scale: float = 1e-2):
        super().__init__()
        self.max_size, self.init_scale = max_size, init_scale
        check_count(self, "max_size")
        check_positive(self, "init_scale")

    def setup(self, sites: dict[str, LatentSite]) -> None:
        self.check_size(sites, self.max_size)
        super().setup(sites)
        self.log_scale = nn.Parameter(torch.full_like(self.loc, math.log(self.init_scale)))
        self.below = nn.Parameter(self.loc.new_zeros(count_below(len(self.loc))))

    @property
    def unit_root(self) -> Tensor:
        """:math:`I + N`, ``[D, D]``."""
        return unit_lower(self.below, len(self.loc))

    @property
    def scale_tril(self) -> Tensor:
        """:math:`L`, ``[D, D]`` in the order of the sites."""
        return self.log_scale.exp().unsqueeze(-1) * self.unit_root

    def sample(self, num_samples: int) -> Tensor:
        noise = self.loc.new_empty(num_samples, len(self.loc)).normal_()
        return self.loc + self.log_scale.exp() * (noise @ self.unit_root.mT)

    def log_density(self, flat: Tensor) -> Tensor:
        noise = solve_unit_lower(self.unit_root, (flat - self.loc) / self.log_scale.exp())
        return -0.5 * noise.square().sum(-1) - self.log_scale.sum() - len(self.loc) * HALF_LOG_2PI

    def moments(self) -> tuple[Tensor, Tensor]:
        return self.loc, self.scale_tril.square().sum(-1)

    def entropy(self) -> Tensor:
        return self.log_scale.sum() + len(self.loc) * (HALF_LOG_2PI + 0.5)

    @torch.no_grad()
    def summary(self) -> dict[str, Any]:
        scale = self.moments()[1].sqrt()
        return {"scale": {"median": float(scale.median()), "min": float(scale.min()), "max": float(scale.max())}}
