"""Priors over attention rows.

Every one is a Dirichlet whose concentrations come from the layer's own activations; they differ in what they look at.
With all but `SoftmaxRows` the joint density does not contain the query weights, which then act only through the guide.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .base import Distribution, RowPrior, RowPriorModule
from .dirichlet import MaskedDirichlet
from .settings import check_count, check_positive


class _Concentrations(RowPriorModule):
    """Calls ``concentrations(scores, keys, mask)``, whose result broadcasts to the scores."""

    def __init__(self, concentrations: object):
        super().__init__()
        self.concentrations = concentrations

    def forward(self, scores: Tensor, keys: Tensor, mask: Tensor | None) -> Distribution:
        concentration = self.concentrations(scores, keys, mask)  # type: ignore[operator]
        return MaskedDirichlet(concentration.expand(scores.shape), mask, validate_args=False)


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the valid entries of the last axis; 0 in the others, and in rows without valid entries."""
    if mask is None:
        return scores.softmax(-1)
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1) * mask


@dataclass(frozen=True, kw_only=True)
class FlatRows(RowPrior):
    r"""The same concentration for every valid entry.

    .. math:: A_i \sim \mathrm{Dir}(a_0, \dots, a_0)

    Args:
        concentration: :math:`a_0 > 0`, default 1 (uniform on the simplex).
        kl_weight: See `RowPrior`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        A reconstruction of Cinquin et al., 2021 (arXiv 2110.04020); at weight 1 this prior overwhelms the likelihood.
    """

    concentration: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "concentration")

    def build(self, head_dim: int) -> RowPriorModule:
        return _Concentrations(self._concentrations)

    def _concentrations(self, scores: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        return scores.new_full((1,), self.concentration)


@dataclass(frozen=True, kw_only=True)
class MatchedUniformRows(RowPrior):
    r"""Uniform on average, with the same total concentration whatever the number of valid keys.

    .. math:: A_i \sim \mathrm{Dir}(a_0 / n_i, \dots, a_0 / n_i), \qquad n_i = \text{valid keys of query } i

    Args:
        concentration: The total :math:`a_0 > 0`, default 30: that at which `DirichletRows` starts.
        kl_weight: See `RowPrior`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        A reconstruction; see Cinquin et al., 2021 (arXiv 2110.04020).
    """

    concentration: float = 30.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "concentration")

    def build(self, head_dim: int) -> RowPriorModule:
        return _Concentrations(self._concentrations)

    def _concentrations(self, scores: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return scores.new_full((1,), self.concentration / scores.shape[-1])
        valid = mask.expand(scores.shape).sum(-1, keepdim=True)
        return self.concentration / valid.clamp(min=1).to(scores.dtype)


class _KeyConcentrations(RowPriorModule):
    """``concentration * softmax_j(w2^T relu(W1 k_j)) + floor``, with weights shared by the heads of a layer."""

    def __init__(self, head_dim: int, hidden: int, concentration: float, floor: float):
        super().__init__()
        self.concentration, self.floor = concentration, floor
        self.first = nn.Parameter(torch.empty(hidden, head_dim))
        self.second = nn.Parameter(torch.empty(1, hidden))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for weight in (self.first, self.second):
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)

    def forward(self, scores: Tensor, keys: Tensor, mask: Tensor | None) -> Distribution:
        logits = ((keys @ self.first.mT).relu() @ self.second.mT).mT
        concentration = self.concentration * masked_softmax(logits.expand(scores.shape), mask) + self.floor
        return MaskedDirichlet(concentration, mask, validate_args=False)


@dataclass(frozen=True, kw_only=True)
class ContextualRows(RowPrior):
    r"""Concentrations from the keys alone, by a small learned network.

    .. math:: A_i \sim \mathrm{Dir}\big(a_0\,\mathrm{softmax}_j(w_2^\top \mathrm{relu}(W_1 k_j)) + \epsilon\big)

    Its weights are hyperparameters: they are trained with the guide and carry no prior.

    Args:
        concentration: The total :math:`a_0 > 0`, default 30.
        hidden: Width of the network, default 10.
        floor: :math:`\epsilon > 0`, default 0.01.
        kl_weight: See `RowPrior`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Fan et al., 2020, "Bayesian attention modules", Sec. 3.3 (hidden width 10; the total and the floor are ours).
    """

    concentration: float = 30.0
    hidden: int = 10
    floor: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "concentration", "floor")
        check_count(self, "hidden")

    def build(self, head_dim: int) -> RowPriorModule:
        return _KeyConcentrations(head_dim, self.hidden, self.concentration, self.floor)


@dataclass(frozen=True, kw_only=True)
class SoftmaxRows(RowPrior):
    r"""Rows scattered around softmax attention: the only one of these priors that can generate rows for a new input.

    .. math:: A_i \sim \mathrm{Dir}\big(a_0\,\mathrm{softmax}(Z_i) + \epsilon\big), \qquad Z = QK^\top/\sqrt{d}

    Args:
        concentration: The total :math:`a_0 > 0`, default 30.
        floor: :math:`\epsilon > 0`, default 0.01.
        kl_weight: See `RowPrior`.

    Raises:
        SettingError: A setting is out of range.
    """

    concentration: float = 30.0
    floor: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "concentration", "floor")

    def build(self, head_dim: int) -> RowPriorModule:
        return _Concentrations(self._concentrations)

    def _concentrations(self, scores: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        return self.concentration * masked_softmax(scores, mask) + self.floor
