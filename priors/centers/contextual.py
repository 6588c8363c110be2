"""Weights from the keys alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..rows import masked_log_softmax
from ..settings import check_count
from .base import RowCenter, RowCenterModule


@dataclass(frozen=True, kw_only=True)
class ContextualCenter(RowCenter):
    r"""Weights from the keys alone, by a small learned network.

    .. math:: m_i = \mathrm{softmax}_j\big(w_2^\top \mathrm{relu}(W_1 k_j)\big)

    over valid keys. Its weights are shared by the heads of a layer; they are hyperparameters: they are trained with the
    guide and carry no prior.

    Args:
        hidden: Width of the network, default 10.

    Raises:
        SettingError: ``hidden`` is out of range.

    Reference:
        Fan et al., 2020, "Bayesian attention modules", Sec. 3.3 (hidden width 10).
    """

    hidden: int = 10

    def __post_init__(self) -> None:
        check_count(self, "hidden")

    def build(self, head_dim: int, heads: int) -> RowCenterModule:
        return _Contextual(head_dim, self.hidden)


class _Contextual(RowCenterModule):
    def __init__(self, head_dim: int, hidden: int):
        super().__init__()
        self.first = nn.Parameter(torch.empty(hidden, head_dim))
        self.second = nn.Parameter(torch.empty(1, hidden))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for weight in (self.first, self.second):
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)

    def forward(self, scores: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        logits = ((keys @ self.first.mT).relu() @ self.second.mT).mT
        return masked_log_softmax(logits, mask)
