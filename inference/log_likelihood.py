"""The log-likelihood of all data: at each draw of a posterior, and that of guessing."""

from __future__ import annotations

import math

import pyro
import torch
from pyro import poutine
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor

from ..models.calling import eval_mode
from .data import Data, take
from .posterior import Posterior
from .prediction import slices

BATCH = 256
"""Examples that the net sees at once."""


def log_likelihoods(posterior: Posterior, data: Data) -> Tensor:
    r"""The log-likelihood at every draw that a posterior has, many draws in one run of the net.

    .. math:: \ell_s = \sum_n \ln p(y_n \mid x_n, w_s)

    Args:
        posterior: One with a number of draws, and without random attention rows.
        data: On the device and in the dtype of its model.

    Returns:
        ``[S]`` in float64, on the CPU.
    """
    model, total = posterior.model, posterior.num_samples
    assert total is not None
    found = []
    with torch.no_grad(), eval_mode(model), pyro.validation_enabled(False), torch.random.fork_rng(devices=[]):
        for size, values in posterior.chunks(total, posterior.most_draws(data.x, BATCH)):
            lifted = {name: value.unsqueeze(1) for name, value in values.items()}  # [S, 1, ...]: the data plate
            sums = torch.zeros(size, dtype=torch.float64)
            for where in slices(len(data), BATCH):
                with poutine.block(), poutine.trace() as tracer, pyro.plate("draws", size, dim=-2):
                    poutine.condition(model, data=lifted)(take(data.x, where), data.y[where])
                site = tracer.trace.nodes["obs"]
                sums += site["fn"].log_prob(site["value"]).double().expand(size, -1).sum(-1).cpu()
            found.append(sums)
    return torch.cat(found)


def guess_log_likelihood(y: Tensor) -> float:
    r"""The log-likelihood of the best guess that looks at no input: a posterior near it has learnt nothing.

    .. math:: \sum_c n_c \ln \frac{n_c}N \quad \text{or} \quad
        -\frac N2 \sum_d \big(1 + \ln 2 \pi \hat\sigma_d^2\big)

    with the frequencies of the classes, or the mean and the variance of each output.

    Args:
        y: Labels, of which those below 0 are not observed, or real values ``[N, ...]``.
    """
    if y.is_floating_point():
        variance = y.double().flatten(1).var(0, correction=0)
        return float(-0.5 * len(y) * (1 + (2 * math.pi * variance).log()).sum())
    counts = y[y >= 0].unique(return_counts=True)[1].double()
    return float((counts * (counts / counts.sum()).log()).sum())


def convergence(values: Tensor) -> dict[str, float]:
    """Mean and standard deviation of ``[K, S]``; effective sample size and split R-hat where there are enough draws."""
    found = {"mean": float(values.mean()), "sd": float(values.std()) if values.numel() > 1 else 0.0}
    if values.shape[1] >= 4:
        found["effective_samples"] = float(effective_sample_size(values))
        found["r_hat"] = float(split_gelman_rubin(values))
    return found
