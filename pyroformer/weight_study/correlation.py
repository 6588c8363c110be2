"""Are the rows of a weight matrix correlated? Against the same entries in random places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PERMUTATIONS = 99


@dataclass(frozen=True)
class Correlation:
    r"""How much rows of matrices are correlated, against permuted matrices.

    Args:
        statistic: Mean over matrices of the mean absolute correlation of two different rows.
        null_mean, null_sd: Its mean and standard deviation when the entries of each matrix are permuted.
        z: How many such standard deviations it is above that mean.
        p: The share of permutations, and of the matrices as they are, with at least this statistic.
    """

    statistic: float
    null_mean: float
    null_sd: float
    z: float
    p: float


def mean_absolute_correlation(matrices: Tensor) -> Tensor:
    r"""The mean absolute correlation of two different rows, over their columns.

    .. math:: \frac{1}{R (R - 1)} \sum_{i \ne j} |r_{ij}|

    Args:
        matrices: ``[..., R, C]`` with at least two rows and three columns.

    Returns:
        ``[...]``; rows without spread count as uncorrelated.
    """
    centered = matrices - matrices.mean(-1, keepdim=True)
    norms = centered.norm(dim=-1, keepdim=True)
    unit = torch.where(norms > 1e-12, centered / norms.clamp(min=1e-12), 0.0)
    gram = (unit @ unit.mT).abs()
    rows = matrices.shape[-2]
    return (gram.sum((-1, -2)) - gram.diagonal(dim1=-2, dim2=-1).sum(-1)) / (rows * (rows - 1))


def permuted(matrix: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Copies of a matrix with all of its entries in random places, ``[count, R, C]``."""
    order = torch.rand(count, matrix.numel(), generator=generator).argsort(-1)
    return matrix.flatten()[order].view(count, *matrix.shape)


def row_correlation(
    matrices: Sequence[Tensor], *, permutations: int = PERMUTATIONS, seed: int = 0
) -> Correlation | None:
    """Whether rows are more correlated than if the entries stood in random places.

    Args:
        matrices: ``[R, C]`` each; those with fewer than two rows or three columns are left out.
        permutations: Default 99.
        seed: Of the permutations.

    Returns:
        The statistic and its null; None without matrices, or where permutations change nothing.

    Reference:
        Good, 2005, "Permutation, parametric and bootstrap tests of hypotheses", for the test.
    """
    kept = [matrix.double() for matrix in matrices if matrix.shape[0] > 1 and matrix.shape[1] > 2]
    if not kept:
        return None
    generator = torch.Generator().manual_seed(seed)
    statistic = float(torch.stack([mean_absolute_correlation(matrix) for matrix in kept]).mean())
    null = torch.stack([mean_absolute_correlation(permuted(m, permutations, generator)) for m in kept]).mean(0)
    spread = float(null.std())
    if not spread > 0:
        return None
    p = (1 + int((null >= statistic).sum())) / (1 + permutations)
    return Correlation(statistic, float(null.mean()), spread, (statistic - float(null.mean())) / spread, p)


def heads_as_rows(matrix: Tensor, heads: int, *, inputs: bool = False) -> Tensor:
    """A projection's matrix with one row a head: of the output units that it owns, or of the input units.

    Args:
        matrix: ``[E, D]``.
        heads: ``H``, a divisor of the axis that heads share.
        inputs: Whether heads own input units, as in the output projection; default False.
    """
    return (matrix.mT if inputs else matrix).reshape(heads, -1)
