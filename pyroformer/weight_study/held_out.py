"""Which family fits the weights of a net that was not fitted to: cross-validation over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..inference.metrics import mean_and_standard_error
from ..priors import Prior
from .families import FAMILIES, log_likelihood

NEAR = 2.0
"""Standard errors within which a family of fewer numbers is preferred to the best."""


@dataclass(frozen=True, eq=False)
class FamilyFit:
    r"""One family, fitted to the weights of a group.

    Args:
        family: Its name.
        prior: Fitted to the weights of all seeds.
        held_out: Mean over seeds of the log-density of the weights of a seed under the fit to those of the others, in
            nats a weight.
        behind: By how much that is less than the best family's: mean over seeds of the difference.
        error: The standard error of that mean; the fits share data, so it is a rough one.
    """

    family: str
    prior: Prior
    held_out: float
    behind: float
    error: float


def held_out(seeds: Sequence[Tensor]) -> dict[str, list[float]]:
    r"""By family, the log-likelihood of each seed's weights under a fit to those of the others, in nats a weight.

    .. math:: \ell_k = \frac1n \sum_i \log p\bigl(w_{ki} - c \mid \hat\theta(w_{-k})\bigr)

    Args:
        seeds: Deviations from the centre, ``[n]`` each; at least two seeds.
    """
    found: dict[str, list[float]] = {family: [] for family in FAMILIES}
    for left_out, weights in enumerate(seeds):
        others = torch.cat([other for index, other in enumerate(seeds) if index != left_out])
        for family, (fit, _) in FAMILIES.items():
            found[family].append(log_likelihood(fit(others), weights))
    return found


def compared(seeds: Sequence[Tensor]) -> tuple[list[FamilyFit], str]:
    """All families from the best to the worst, and the winner.

    The winner is the family of fewest numbers among those that are less than two standard errors behind the best; of
    several, the best.

    Args:
        seeds: Deviations from the centre, ``[n]`` each; at least two seeds.

    Reference:
        Breiman et al., 1984, "Classification and regression trees", Sec. 3.4.3, for a simpler model within standard
        errors of the best; two of them are ours.
    """
    scores = held_out(seeds)
    means = {family: sum(values) / len(values) for family, values in scores.items()}
    best = max(means, key=lambda family: means[family])
    pooled = torch.cat(list(seeds))
    fits = []
    for family in sorted(means, key=lambda name: -means[name]):
        gaps = [there - here for there, here in zip(scores[best], scores[family], strict=True)]
        behind, error = (float(value) for value in mean_and_standard_error(gaps))
        fits.append(FamilyFit(family, FAMILIES[family][0](pooled), means[family], behind, error))
    near = [fit for fit in fits if fit.family == best or fit.behind < NEAR * fit.error]
    fewest = min(FAMILIES[fit.family][1] for fit in near)
    return fits, next(fit.family for fit in near if FAMILIES[fit.family][1] == fewest)
