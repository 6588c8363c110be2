"""Amortised Dirichlet posterior over attention rows."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ..priors import MaskedDirichlet
from ..priors.settings import check_positive
from .amortised_rows import AmortisedRows
from .family import Distribution


class DirichletRows(AmortisedRows):
    r"""Dirichlet rows around softmax attention.

    .. math:: q(A_i \mid x) = \mathrm{Dir}\big(\alpha\, \mathrm{softmax}(Z_i) + \epsilon\big), \qquad Z = QK^\top /
    \sqrt{d}

    At :math:`\epsilon = 0` the mean is softmax attention and the variance :math:`P(1-P)/(\alpha+1)`, so
    :math:`\alpha \to \infty` recovers it. Nothing is learned for a single example: only :math:`\alpha` is the guide's.

    Args:
        sharpness: :math:`\alpha` at the start, above 0, default 10.
        floor: :math:`\epsilon > 0`, default 0.01.
        shared: See `AmortisedRows`.
        compiled: Compile the draws, their gradients and the KL, where a compiler is found, default False. The first
            steps wait for it, half a minute or more; longer runs are faster. Rounding differs, so that after many steps
            the draws do too, of the same law.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        A reconstruction of Cinquin et al., 2021 (arXiv 2110.04020).
    """

    def __init__(
        self,
        *,
        sharpness: float = 10.0,
        floor: float = 0.01,
        shared: Literal["global", "layer", "head"] = "head",
        compiled: bool = False,
    ):
        super().__init__(sharpness=sharpness, shared=shared)
        self.floor, self.compiled = floor, compiled
        check_positive(self, "floor")

    def around(self, scores: Tensor, mask: Tensor | None, sharpness: Tensor) -> Distribution:
        floor, compile = self.floor, self.compiled
        return MaskedDirichlet.around_softmax(scores, mask, sharpness=sharpness, floor=floor, compile=compile)
