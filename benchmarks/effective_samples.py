"""The effective sample size that samplers are compared by, and the functions that it is that of."""

from __future__ import annotations

import torch
from torch import Tensor

from pyroformer.inference.density import FlatDensity
from pyroformer.models import BayesianModel
from pyroformer.models.calling import call


def functions(model: BayesianModel, density: FlatDensity, z: Tensor, *sets: tuple[Tensor, Tensor]) -> Tensor:
    """The log-likelihood of the first set, and the log-probability of each observation of the second.

    Args:
        model: The model.
        density: Its density.
        z: ``[K, S, D]``.
        sets: Inputs and labels of each.

    Returns:
        ``[K, S, 1 + M]`` in float64.
    """
    rows = []
    for part in z.flatten(0, 1).split(100):
        weights = {name: value.unsqueeze(1) for name, value in density.unflatten(part).items()}
        found = []
        for x, y in sets:
            with torch.no_grad():
                logits = call(model.net, weights, (x,)).double().log_softmax(-1)
            found.append(logits.gather(-1, y.expand(len(part), -1).unsqueeze(-1)).squeeze(-1))
        rows.append(torch.cat([found[0].sum(-1, keepdim=True), found[1]], -1))
    return torch.cat(rows).unflatten(0, z.shape[:2])


def average_ranks(values: Tensor) -> Tensor:
    """Ranks from 1 among all values, equal ones at the mean of theirs."""
    _, where, counts = values.flatten().unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() - 1) / 2)[where].view_as(values)


def bulk_ess(values: Tensor) -> float:
    r"""The effective size of rank-normalised draws ``[K, S]`` in split chains.

    .. math:: \mathrm{ESS} = \frac{KS}{\hat\tau}, \qquad \hat\tau = -1 + 2 \sum_t \hat P_t

    with Geyer's initial monotone sequence of sums of pairs of autocorrelations.

    Reference:
        Vehtari et al., 2021, "Rank-normalization, folding, and localization: an improved R-hat", Eq. 10-14.
    """
    half = values.shape[1] // 2
    halves = torch.cat([values[:, :half], values[:, values.shape[1] - half :]])
    scores = torch.special.ndtri((average_ranks(halves) - 0.375) / (halves.numel() + 0.25))
    chains, draws = scores.shape
    if draws < 4 or not bool(scores.var() > 0):
        return float("nan")
    centred = scores - scores.mean(1, keepdim=True)
    spectrum = torch.fft.rfft(centred, n=2 * draws)
    covariance = torch.fft.irfft(spectrum.abs().square(), n=2 * draws)[:, :draws] / draws
    within = float(covariance[:, 0].mean()) * draws / (draws - 1)
    total = within * (draws - 1) / draws + (float(scores.mean(1).var()) if chains > 1 else 0.0)
    correlation = 1 - (within - covariance.mean(0) * draws / (draws - 1)) / total
    pairs = correlation[: draws // 2 * 2].view(-1, 2).sum(1)
    negative = (pairs < 0).nonzero()
    pairs = pairs[: int(negative[0])] if len(negative) else pairs
    tau = max(2 * float(pairs.cummin(0).values.sum()) - 1, 1 / torch.tensor(chains * draws).log10().item())
    return chains * draws / tau
