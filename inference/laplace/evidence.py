"""The evidence of a Laplace approximation, and the prior precisions that maximise it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from .functions import Weights
from .structure import Curvature, StructuredNormal

LEAST, MOST = 1e-8, 1e8
"""Between these the precisions are looked for: without curvature or without spread the evidence has no maximum."""
TOLERANCE = 1e-8
"""Of the logarithm of a precision."""
MOST_STEPS = 200


def log_evidence(
    log_likelihood: float, normal: StructuredNormal, prior: Mapping[str, Tensor], squares: Mapping[str, Tensor]
) -> float | None:
    r"""The logarithm of the evidence, in nats.

    .. math:: \log p(y \mid \lambda) \approx \log p(y \mid \theta^*) - \tfrac12 \Big( \log |P|
        - \sum_i \log \lambda_i \Big) - \tfrac12 \sum_i \lambda_i (\theta^*_i - c_i)^2

    It is exact for a linear net with normal noise at the maximum a posteriori. Weights that stay at the mode are given.

    Args:
        log_likelihood: :math:`\log p(y \mid \theta^*)`, over all data.
        normal: The approximation, at temperature 1.
        prior: :math:`\lambda` by weight.
        squares: :math:`(\theta^* - c)^2` by weight.

    Returns:
        The evidence; None where a prior is flat, which gives none.

    Reference:
        MacKay, 1992, "A practical Bayesian framework for backpropagation networks", Eq. 3.
    """
    if any(not bool((value > 0).all()) for value in prior.values()):
        return None
    log_prior = sum(float((value.log() - value * squares[name]).sum()) for name, value in prior.items())
    return log_likelihood + 0.5 * (log_prior - float(normal.log_det))


def fitted_precisions(
    curvature: Curvature,
    groups: Mapping[str, list[str]],
    prior: Mapping[str, Tensor],
    squares: Mapping[str, Tensor],
) -> tuple[dict[str, float], Weights]:
    r"""One prior precision for each group of weights, at a maximum of the evidence around the fixed mode.

    .. math:: \lambda_g = \gamma_g \Big/ \sum_{i \in g} (\theta^*_i - c_i)^2, \qquad
        \gamma_g = \sum_{i \in g} \big( 1 - \lambda_g [P^{-1}]_{ii} \big)

    solved by fixed-point steps, each the geometric mean of the old and the new value: undamped they swing where
    the data say little. :math:`\gamma_g` is the number of well-determined weights.

    Args:
        curvature: The curvature of the data.
        groups: The weights of each group, by the group's name.
        prior: Precisions to start from, by weight; 0 starts from 1.
        squares: :math:`(\theta^* - c)^2` by weight.

    Returns:
        The precision of each group, and of every entry by weight.

    Reference:
        MacKay, 1992, Eq. 5; after training: Daxberger et al., 2021, Sec. 2.
    """
    found = {}
    for group, names in groups.items():
        start = float(torch.cat([prior[name].flatten() for name in names]).mean())
        found[group] = min(max(start, LEAST), MOST) if start > 0 else 1.0
    of_group = {name: group for group, names in groups.items() for name in names}
    for _ in range(MOST_STEPS):
        present = {name: torch.full_like(value, found[of_group[name]]) for name, value in prior.items()}
        variances = curvature.normal(present).variances()
        moved = 0.0
        for group, names in groups.items():
            determined = sum(float((1 - present[name] * variances[name]).sum()) for name in names)
            spread = sum(float(squares[name].sum()) for name in names)
            target = max(determined, 0.0) / spread if spread > 0 else math.inf
            new = math.sqrt(found[group] * min(max(target, LEAST), MOST))
            moved = max(moved, abs(math.log(new / found[group])))
            found[group] = new
        if moved < TOLERANCE:
            break
    return found, {name: torch.full_like(value, found[of_group[name]]) for name, value in prior.items()}


def grouped(names: list[str], by: str) -> dict[str, list[str]]:
    """Weights by the ``net``, by the ``layer`` that owns them (the net's own are one), or each ``site`` for itself."""
    groups: dict[str, list[str]] = {}
    for name in names:
        key = {"net": "net", "layer": name.rpartition(".")[0] or "net", "site": name}[by]
        groups.setdefault(key, []).append(name)
    return groups
