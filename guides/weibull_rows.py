"""Amortised Weibull posterior over attention rows."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from ..priors import MaskedWeibull
from ..priors.rows import masked_log_softmax
from .amortised_rows import AmortisedRows
from .family import Distribution


class WeibullRows(AmortisedRows):
    r"""Weibull entries whose means are softmax attention, normalised to rows.

    .. math:: S_{ij} = \lambda_{ij} \big(-\ln(1 - u_{ij})\big)^{1/k}, \qquad
        \lambda_{ij} = \frac{\mathrm{softmax}(Z_i)_j}{\Gamma(1 + 1/k)}, \qquad A_{ij} = S_{ij} / \textstyle\sum_l S_{il}

    The logarithm of an entry has the standard deviation :math:`1.28 / k`. The prior is one of positive entries:
    `GammaRows` or `LogNormalRows`; the KL to both is known in closed form.

    Args:
        sharpness: :math:`k` at the start, above 0, default 10.
        shared: See `AmortisedRows`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Fan et al., 2020, "Bayesian attention modules", and its code, where k is 10 or 1000.
    """

    space: ClassVar[Literal["simplex", "positive"]] = "positive"

    def __init__(self, *, sharpness: float = 10.0, shared: Literal["global", "layer", "head"] = "head"):
        super().__init__(sharpness=sharpness, shared=shared)

    def around(self, scores: Tensor, mask: Tensor | None, sharpness: Tensor) -> Distribution:
        return MaskedWeibull(masked_log_softmax(scores, mask), sharpness, mask, validate_args=False)
