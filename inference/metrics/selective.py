"""Answering only where the prediction is sure: risk by coverage."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import classified, real
from .ties import shared_by_ties


def risk_coverage(probabilities: Tensor, labels: Tensor, confidence: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""The error rate among the most confident examples, by how many they are.

    :Args: probabilities ``[N, C]`` and labels ``[N]``, as in :func:`accuracy`; confidence ``[N]``, higher for surer
        predictions, default the probability of the top label.
    :Returns: coverages :math:`k / N`, ``[N]``, and risks :math:`\frac1k \sum_{n \in \text{top } k} 1[\hat y_n \ne
        y_n]`, ``[N]``, as expected over the orders of examples of the same confidence.
    :Raises: ValueError for a wrong type, shape or value, NaN, or no examples.
    :Reference: El-Yaniv and Wiener (2010), On the foundations of noise-free selective classification."""
    p, y = classified(probabilities, labels)
    top, predicted = p.detach().max(-1)
    score = top if confidence is None else real("confidence", confidence, y.shape, infinite=True)
    order = score.argsort(descending=True)
    errors = shared_by_ties(score[order], (predicted != y).double()[order])
    kept = torch.arange(1, len(y) + 1, dtype=torch.float64, device=p.device)
    return kept / len(y), errors.cumsum(0) / kept


def aurc(probabilities: Tensor, labels: Tensor, confidence: Tensor | None = None) -> Tensor:
    r"""Area under the risk-coverage curve: small when errors are few and when they are the unsure ones.

    :Args: probabilities, labels and confidence, as in :func:`risk_coverage`.
    :Returns: :math:`\frac1N \sum_k \mathrm{risk}(k / N)`, ``[]``, in [0, 1]; a confidence that tells nothing of errors
        has the error rate.
    :Raises: ValueError for a wrong type, shape or value, NaN, or no examples.
    :Reference: Geifman, Uziel and El-Yaniv (2019), arXiv:1805.08206."""
    return risk_coverage(probabilities, labels, confidence)[1].mean()
