"""Softmax over the valid entries of a row."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the valid entries of the last axis; 0 in the others, and in rows without valid entries."""
    if mask is None:
        return scores.softmax(-1)
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1) * mask


def masked_log_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """The logarithm of `masked_softmax` in the valid entries of the last axis; 0 in the others."""
    if mask is None:
        return scores.log_softmax(-1)
    logs = torch.where(mask, scores, torch.finfo(scores.dtype).min).log_softmax(-1)
    return torch.where(mask, logs, 0.0)
