"""Amortised logistic-normal posterior over attention rows."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ..priors import MaskedLogisticNormal
from ..priors.rows import masked_log_softmax
from .amortised_rows import AmortisedRows
from .family import Distribution


class LogisticNormalRows(AmortisedRows):
    r"""Softmax attention with normal noise on the scores.

    .. math:: A_i = \mathrm{softmax}(Z_i + s_q\, \varepsilon_i), \qquad \varepsilon_i \sim \mathcal N(0, I)

    The prior is one of rows: to `LogisticNormalRows` the KL is known in closed form, to others it is estimated by the
    draw.

    Args:
        sharpness: :math:`1 / s_q` at the start, above 0, default 10.
        shared: See `AmortisedRows`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Aitchison and Shen, 1980, "Logistic-normal distributions: some properties and uses"; as attention it is ours.
    """

    def __init__(self, *, sharpness: float = 10.0, shared: Literal["global", "layer", "head"] = "head"):
        super().__init__(sharpness=sharpness, shared=shared)

    def around(self, scores: Tensor, mask: Tensor | None, sharpness: Tensor) -> Distribution:
        return MaskedLogisticNormal(masked_log_softmax(scores, mask), 1 / sharpness, mask, validate_args=False)
