"""The functions that samplers are compared by."""

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
