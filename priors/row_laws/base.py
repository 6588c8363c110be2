"""A prior over rows that scatters them by a law around a center."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..base import Distribution, RowPrior, RowPriorModule
from ..carried import logs_of
from ..centers import RowCenter, RowCenterModule, SoftmaxCenter
from ..rows import masked_softmax
from ..settings import SettingError, check, choice_name


@dataclass(frozen=True, kw_only=True)
class RowLaw(RowPrior):
    r"""A prior over rows made of a center, which weighs the entries, and a law, which scatters rows around it.

    .. math:: A_i \sim p(\cdot \mid m_i), \qquad m_i = \text{center}(Z_i, K)

    Args:
        center: Where rows are centred: ``flat``, ``matched_uniform``, ``learned``, ``positional``, ``contextual`` or
            ``softmax`` (default, unless the law says otherwise); see `RowCenter`.
        kl_weight, kl_normalization: See `RowPrior`.

    Raises:
        SettingError: A setting is out of range, or the law does not depend on the center.
    """

    sees_level: ClassVar[bool] = True
    """Whether the law depends on how large weights are, and not on their ratios alone."""

    center: RowCenter = field(default_factory=SoftmaxCenter)

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, "center", isinstance(self.center, RowCenter), "a center of rows, such as SoftmaxCenter()")
        if self.center.level and not self.sees_level:
            accepted = "another center: under this law only the ratios of weights matter, and all would be equal"
            raise SettingError("center", choice_name(type(self.center)), accepted)

    @abstractmethod
    def around(self, log_weights: Tensor, shape: torch.Size, mask: Tensor | None) -> Distribution:
        """The distribution of rows.

        Args:
            log_weights: The logarithms of the center's weights, broadcastable to ``shape``.
            shape: That of the scores, ``[..., B, H, T, S]``.
            mask: Valid entries, broadcastable to ``shape``, or None when all are.

        Returns:
            A distribution with event shape ``[S]``.
        """

    def refusal_across(self) -> str | None:
        center = choice_name(type(self.center))
        return f"another center: {center} is for keys and queries of one sequence" if self.center.within else None

    def build(self, head_dim: int, heads: int) -> RowPriorModule:
        return _Centered(self, self.center.build(head_dim, heads))


class _Centered(RowPriorModule):
    def __init__(self, law: RowLaw, center: RowCenterModule):
        super().__init__()
        self.law, self.center = law, center

    def forward(self, scores: Tensor, keys: Tensor, mask: Tensor | None) -> Distribution:
        return self.law.around(self.center(scores, keys, mask), scores.shape, mask)

    def rows(self, value: Tensor, mask: Tensor | None) -> Tensor:
        # through the logarithms: positive variables may all be too small for their dtype
        return value if self.law.space == "simplex" else masked_softmax(logs_of(value), mask)

    def share(self, first: RowPriorModule) -> None:
        assert isinstance(first, _Centered)
        self.center.share(first.center)


def check_floor(law: RowLaw) -> None:
    """``floor`` is at least 0, and above it where weights of the center may vanish."""
    floor = law.floor  # type: ignore[attr-defined]
    check(law, "floor", 0 <= floor < float("inf"), "a number of at least 0")
    check(law, "floor", floor > 0 or not law.center.vanishing, "a number above 0: weights of this center may vanish")
