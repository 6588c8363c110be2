"""What correlated priors have in common: the correlations between the rows and between the columns of a weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .base import ScaledPrior, Site
from .settings import SettingError, check, check_option, choice_name

Structure = Literal["identity", "exchangeable", "autoregressive"]


def correlation_tril(structure: Structure, correlation: float, like: Tensor, size: int) -> Tensor | None:
    """The Cholesky factor ``[size, size]`` of a correlation matrix; None for the identity."""
    if structure == "identity" or correlation == 0 or size == 1:
        return None
    matrix = torch.full((size, size), correlation, dtype=torch.float64)
    if structure == "autoregressive":
        steps = torch.arange(size)
        matrix = matrix ** (steps - steps.unsqueeze(-1)).abs()
    matrix.fill_diagonal_(1)
    return torch.linalg.cholesky(matrix).to(like)


@dataclass(frozen=True, kw_only=True)
class CorrelatedPrior(ScaledPrior):
    r"""A prior under which the rows of a weight are correlated, and the columns.

    .. math:: \mathrm{corr}(W_{ij}, W_{kl}) = U_{ik} V_{jl}

    with :math:`U` and :math:`V` one of the identity, the exchangeable and the autoregressive matrix of correlation
    :math:`\rho`,

    .. math:: I, \qquad (1 - \rho) I + \rho 1 1^\top, \qquad \rho^{|i - j|}

    The rows of a linear layer are its output units and the columns its inputs. The entries of a vector, such as a bias,
    are rows. A kernel of four axes has the first for its rows and the others, together, for its columns; weights of any
    other shape are refused. The matrices take memory with the square of their size.

    Args:
        rows: :math:`U`: ``exchangeable`` (default), ``autoregressive`` or ``identity``.
        columns: :math:`V`, likewise, default ``exchangeable``.
        row_correlation: :math:`\rho` of the rows, default 0.5 (ours): between -1 and 1 for ``autoregressive``, from 0
            to below 1 for ``exchangeable``.
        column_correlation: That of the columns, likewise.

    Raises:
        SettingError: A setting is out of range.
    """

    independent: ClassVar[bool] = False

    rows: Structure = "exchangeable"
    columns: Structure = "exchangeable"
    row_correlation: float = 0.5
    column_correlation: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for side, key in (("rows", "row_correlation"), ("columns", "column_correlation")):
            check_option(self, side, Structure)
            low = "from 0 to" if getattr(self, side) == "exchangeable" else "above -1 and"
            inside = -1 < getattr(self, key) < 1 and (low != "from 0 to" or getattr(self, key) >= 0)
            check(self, key, inside, f"a number {low} below 1")

    def check_site(self, site: Site) -> None:
        if site.value.dim() not in (0, 1, 2, 4):
            accepted = f"a weight with 1, 2 or 4 axes for {choice_name(type(self))}, not {site.value.dim()}"
            raise SettingError("", site.name, accepted)

    def parts_of(self, site: Site) -> dict[str, Any]:
        """Location, scale and factors of the correlations, as `Kronecker` takes them."""
        self.check_site(site)
        value = site.value
        count = value.shape[0] if value.dim() else 1
        others = value.numel() // max(count, 1)
        return {
            "loc": site.loc,
            "scale": self.scale_of(site),
            "row_tril": correlation_tril(self.rows, self.row_correlation, value, count),
            "column_tril": correlation_tril(self.columns, self.column_correlation, value, others),
            "event_dim": value.dim(),
        }
