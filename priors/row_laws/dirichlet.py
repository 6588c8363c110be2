"""Dirichlet rows around a center."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..base import Distribution
from ..dirichlet import MaskedDirichlet
from ..settings import check_positive
from .base import RowLaw, check_floor


@dataclass(frozen=True, kw_only=True)
class DirichletRows(RowLaw):
    r"""Dirichlet rows around a center.

    .. math:: A_i \sim \mathrm{Dir}(a_0 m_i + \epsilon)

    Args:
        concentration: :math:`a_0 > 0`, default 10: the sharpness at which the guide's Dirichlet rows start.
        floor: :math:`\epsilon \ge 0`, default 0.01; above 0 unless the center is ``flat``, ``matched_uniform`` or
            ``learned``, whose weights cannot vanish.
        center: See `RowLaw`.
        kl_weight, kl_normalization: See `RowPrior`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        A reconstruction of Cinquin et al., 2021 (arXiv 2110.04020). The defaults are ours, chosen on validation digits;
        at weight 1 the KL to a prior that is not centred on softmax attention overwhelms the likelihood.
    """

    concentration: float = 10.0
    floor: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "concentration")
        check_floor(self)

    def around(self, log_weights: Tensor, shape: torch.Size, mask: Tensor | None) -> Distribution:
        concentration = (self.concentration * log_weights.exp() + self.floor).expand(shape)
        return MaskedDirichlet(concentration, mask, validate_args=False)
