"""Normal posterior with a covariance of diagonal and low rank."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..priors.settings import SettingError, check_count, check_positive
from .family import LatentSite
from .joint import JointFamily
from .normal_priors import HALF_LOG_2PI


class LowRank(JointFamily):
    r"""One normal distribution over all sites, with a covariance of diagonal and low rank.

    .. math:: q(w) = \mathcal N(w \mid m, \Sigma), \qquad \Sigma = S^2 + F F^\top

    with a diagonal :math:`S`. The entropy costs no more than the capacitance matrix :math:`C`, of the size of the rank:

    .. math:: H = \sum_i \ln s_i + \tfrac12 \ln |C| + \tfrac D2 \ln 2\pi e, \qquad C = I + F^\top S^{-2} F

    and the KL to normal and flat priors is a closed form too.

    Args:
        rank: The columns of :math:`F`, a whole number of at least 1, default 10.
        init_scale: Every :math:`s_i` at the start, above 0, default 1e-2; :math:`m` starts at the model's own values
            and :math:`F` at random ones, a tenth of the scales.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Ong, Nott and Smith, 2018, "Gaussian variational approximation with a factor covariance structure";
        Tomczak et al., 2020, "Efficient low rank Gaussian variational inference for neural networks".
    """

    def __init__(self, *, rank: int = 10, init_scale: float = 1e-2):
        super().__init__()
        self.rank, self.init_scale = rank, init_scale
        check_count(self, "rank")
        check_positive(self, "init_scale")

    def setup(self, sites: dict[str, LatentSite]) -> None:
        super().setup(sites)
        self.log_scale = nn.Parameter(torch.full_like(self.loc, math.log(self.init_scale)))
        # in units of the first scale: steps of Adam, which are as long for every number, would otherwise spread all
        # weights at once along a few directions before the means have learned anything
        start = self.loc.new_empty(len(self.loc), self.rank).normal_()
        self.standard_factor = nn.Parameter(0.1 / math.sqrt(self.rank) * start)

    @property
    def scale(self) -> Tensor:
        """The roots of the diagonal part, ``[D]`` in the order of the sites."""
        return self.log_scale.exp()

    @property
    def factor(self) -> Tensor:
        """:math:`F`, ``[D, rank]``."""
        return self.init_scale * self.standard_factor

    @torch.no_grad()
    def set_parameters(self, loc: Tensor, scale: Tensor, factor: Tensor) -> None:
        r"""Make this the posterior :math:`\mathcal N(m, \mathrm{diag}(s^2) + F F^\top)`.

        Args:
            loc: :math:`m`, ``[D]`` in the order of the sites, as `flatten` gives it.
            scale: :math:`s > 0`, ``[D]``.
            factor: :math:`F`, ``[D, rank]``.

        Raises:
            SettingError: A shape is another, or a scale is not above 0.
        """
        given = {"loc": (loc, self.loc), "scale": (scale, self.loc), "factor": (factor, self.factor)}
        for key, (value, own) in given.items():
            if value.shape != own.shape:
                raise SettingError(key, tuple(value.shape), f"a tensor of shape {tuple(own.shape)}")
            if not bool(value.isfinite().all()):
                raise SettingError(key, value, "finite numbers")
        if not bool((scale > 0).all()):
            raise SettingError("scale", float(scale.min()), "numbers above 0")
        self.loc.copy_(loc)
        self.log_scale.copy_(scale.log())
        self.standard_factor.copy_(factor / self.init_scale)

    def sample(self, num_samples: int) -> Tensor:
        noise = self.loc.new_empty(num_samples, len(self.loc)).normal_()
        common = self.loc.new_empty(num_samples, self.rank).normal_()
        return self.loc + self.scale * noise + common @ self.factor.mT

    def _whitened(self) -> tuple[Tensor, Tensor]:
        """:math:`S^{-1} F`, ``[D, rank]``, and the Cholesky factor of :math:`C`, ``[rank, rank]``."""
        loading = self.factor / self.scale.unsqueeze(-1)
        gram = loading.mT @ loading
        return loading, torch.linalg.cholesky(gram + torch.eye(self.rank, dtype=gram.dtype, device=gram.device))

    def log_density(self, flat: Tensor) -> Tensor:
        units = (flat - self.loc) / self.scale
        loading, root = self._whitened()
        # u^T (I + G G^T)^-1 u is the least of |u - G z|^2 + |z|^2, which keeps its digits where a scale is tiny
        common = torch.cholesky_solve((units @ loading).unsqueeze(-1), root).squeeze(-1)
        squares = (units - common @ loading.mT).square().sum(-1) + common.square().sum(-1)
        return -0.5 * squares - self.log_scale.sum() - root.diagonal().log().sum() - len(self.loc) * HALF_LOG_2PI

    def moments(self) -> tuple[Tensor, Tensor]:
        return self.loc, (2 * self.log_scale).exp() + self.factor.square().sum(-1)

    def entropy(self) -> Tensor:
        logs = self.log_scale.sum() + self._whitened()[1].diagonal().log().sum()
        return logs + len(self.loc) * (HALF_LOG_2PI + 0.5)

    @torch.no_grad()
    def summary(self) -> dict[str, Any]:
        variance = self.moments()[1]
        scale, common = variance.sqrt(), 1 - self.scale.square().sum() / variance.sum()
        return {
            "scale": {"median": float(scale.median()), "min": float(scale.min()), "max": float(scale.max())},
            "common_variance": float(common),
        }
