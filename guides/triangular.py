"""Lower triangles with ones on the diagonal, stored without what is known of them."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=64)
def _below(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    rows, columns = torch.tril_indices(size, size, -1, device=device)
    return rows, columns


def count_below(size: int) -> int:
    """How many numbers are below the diagonal."""
    return size * (size - 1) // 2


def unit_lower(below: Tensor, size: int) -> Tensor:
    """The matrix ``[size, size]`` with ones on the diagonal and the given numbers below, row by row."""
    matrix = torch.eye(size, dtype=below.dtype, device=below.device)
    return matrix.index_put(_below(size, below.device), below)


def solve_unit_lower(matrix: Tensor, right: Tensor) -> Tensor:
    """:math:`L^{-1} r` for vectors ``[..., size]``."""
    return torch.linalg.solve_triangular(matrix, right.unsqueeze(-1), upper=False, unitriangular=True).squeeze(-1)
