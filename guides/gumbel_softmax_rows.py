"""Amortised Gumbel-softmax posterior over attention rows."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ..priors import MaskedGumbelSoftmax
from ..priors.rows import masked_log_softmax
from .amortised_rows import AmortisedRows
from .family import Distribution


class GumbelSoftmaxRows(AmortisedRows):
    r"""Softmax attention with Gumbel noise on the scores: Concrete rows.

    .. math:: A_i = \mathrm{softmax}(Z_i + G_i / \lambda), \qquad G_{ij} \sim \mathrm{Gumbel}(0, 1)

    which is the Concrete distribution of temperature :math:`\lambda` with the logits :math:`\lambda Z_i`. The prior is
    one of rows; the KL is estimated by the draw.

    Args:
        sharpness: :math:`\lambda` at the start, above 0, default 1: the noise has the standard deviation 1.28.
        shared: See `AmortisedRows`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Maddison et al., 2017, "The Concrete distribution"; as attention it is ours.
    """

    def __init__(self, *, sharpness: float = 1.0, shared: Literal["global", "layer", "head"] = "head"):
        super().__init__(sharpness=sharpness, shared=shared)

    def around(self, scores: Tensor, mask: Tensor | None, sharpness: Tensor) -> Distribution:
        return MaskedGumbelSoftmax(masked_log_softmax(scores, mask), sharpness, mask, validate_args=False)
