"""Amortised log-normal posterior over attention rows."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from ..priors import MaskedLogNormal
from ..priors.rows import masked_log_softmax
from .amortised_rows import AmortisedRows
from .family import Distribution


class LogNormalRows(AmortisedRows):
    r"""Log-normal entries whose means are softmax attention, normalised to rows.

    .. math:: \ln S_{ij} = \ln \mathrm{softmax}(Z_i)_j - s_q^2 / 2 + s_q\, \varepsilon_{ij}, \qquad
        A_{ij} = S_{ij} / \textstyle\sum_l S_{il}

    The prior is one of positive entries: `LogNormalRows` or `GammaRows`; the KL to both is known in closed form.

    Args:
        sharpness: :math:`1 / s_q` at the start, above 0, default 10.
        shared: See `AmortisedRows`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Fan et al., 2020, "Bayesian attention modules" (the start is ours: their code has s_q = 1 or 1e-4).
    """

    space: ClassVar[Literal["simplex", "positive"]] = "positive"

    def __init__(self, *, sharpness: float = 10.0, shared: Literal["global", "layer", "head"] = "head"):
        super().__init__(sharpness=sharpness, shared=shared)

    def around(self, scores: Tensor, mask: Tensor | None, sharpness: Tensor) -> Distribution:
        scale = 1 / sharpness
        loc = masked_log_softmax(scores, mask) - scale.square() / 2
        return MaskedLogNormal(loc, scale, mask, validate_args=False)
