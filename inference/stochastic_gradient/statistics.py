"""What is known of every draw: its densities on all data."""

from __future__ import annotations

import pyro
import torch
from torch import Tensor

from ...models.calling import eval_mode
from ..data import Data
from ..draws_posterior import DrawsPosterior
from ..importance import log_joint


def densities(
    posterior: DrawsPosterior, volume: Tensor, data: Data, *, temperature: float, batch_size: int
) -> tuple[Tensor, Tensor]:
    """The log-likelihood of all data, and the tempered log-density in unconstrained numbers, of every draw.

    Args:
        posterior: The draws, ``S`` of them.
        volume: By how much the map from unconstrained numbers stretches there, ``ln |det t'(z)|``, ``[S]``.
        data: All data.
        temperature: Of the density.
        batch_size: Examples at once.

    Returns:
        Both ``[S]``, float64, on the CPU.
    """
    total, most = posterior.num_samples, posterior.most_draws(data.x, batch_size)
    assert total is not None
    likelihoods, priors = [], []
    with torch.no_grad(), pyro.validation_enabled(False), eval_mode(posterior.model):
        for _, draws in posterior.chunks(total, most):
            likelihood, prior = log_joint(posterior.model, draws, data.x, data.y, batch_size)
            likelihoods.append(likelihood)
            priors.append(prior)
    log_likelihood, log_prior = torch.cat(likelihoods).cpu(), torch.cat(priors).cpu()
    return log_likelihood, (log_likelihood + log_prior) / temperature + volume
