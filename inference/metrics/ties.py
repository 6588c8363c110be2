"""Equal scores: their order means nothing."""

from __future__ import annotations

import torch
from torch import Tensor


def shared_by_ties(scores: Tensor, values: Tensor) -> Tensor:
    """Values ``[N]`` of sorted scores ``[N]``, each replaced by the mean over the examples with the same score.

    It is the expectation over all orders of tied examples.
    """
    _, group, sizes = torch.unique_consecutive(scores, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(sizes), dtype=values.dtype, device=values.device).index_add_(0, group, values)
    return (sums / sizes)[group]
