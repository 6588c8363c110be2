"""One learned weight for every entry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..settings import check_option, check_positive
from .base import RowCenter, RowCenterModule


@dataclass(frozen=True, kw_only=True)
class LearnedCenter(RowCenter):
    r"""The same learned weight for every valid entry.

    .. math:: m_{ij} = e^{\theta_{l,h}}

    :math:`\theta` is a hyperparameter: it is trained with the guide and carries no prior.

    Args:
        start: :math:`e^\theta > 0` at the start, default 0.1.
        shared: What shares one :math:`\theta`: ``head`` (default: each head of each layer has its own), ``layer`` or
            ``global`` (all layers with this prior).

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Fan et al., 2020, "Bayesian attention modules" (the start is ours).
    """

    start: float = 0.1
    shared: Literal["global", "layer", "head"] = "head"

    level = True
    vanishing = False

    def __post_init__(self) -> None:
        check_positive(self, "start")
        check_option(self, "shared", ("global", "layer", "head"))

    def build(self, head_dim: int, heads: int) -> RowCenterModule:
        return _Learned(self.start, heads if self.shared == "head" else 1, self.shared == "global")


class _Learned(RowCenterModule):
    def __init__(self, start: float, heads: int, over_layers: bool):
        super().__init__()
        self.start, self.over_layers = math.log(start), over_layers
        self.log_weight = nn.Parameter(torch.empty(heads, 1, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.log_weight, self.start)

    def forward(self, scores: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        return self.log_weight

    def share(self, first: RowCenterModule) -> None:
        if self.over_layers:
            assert isinstance(first, _Learned)
            self.log_weight = first.log_weight
