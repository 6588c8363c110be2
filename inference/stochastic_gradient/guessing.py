"""What a model that has learnt nothing scores."""

from __future__ import annotations

import torch
from torch import Tensor

from ...models import BayesianModel, Categorical, Gaussian
from ...models.likelihoods import IGNORED


def guessing(model: BayesianModel, y: Tensor) -> float | None:
    r"""The log-likelihood of observations under the best output that is the same for every input, in nats.

    .. math:: \max_c \sum_n \ln p(y_n \mid f(x_n) = c)

    That is the entropy of the labels' frequencies, or normal noise around the mean of the observations: of the model's
    own scale where that is fixed, else of the best one. None where the likelihood is another.

    Args:
        model: The model.
        y: The observations ``[N, ...]``.
    """
    likelihood = model._modules["likelihood"]
    if isinstance(likelihood, Categorical):
        seen = y[y != IGNORED]
        shares = seen.bincount().double() / max(len(seen), 1)
        return float(len(seen) * torch.special.entr(shares).sum().neg())
    if isinstance(likelihood, Gaussian):
        residual = y.double() - y.double().mean(0)
        variance = (
            residual.square().mean() if likelihood.noise == "random" else likelihood.log_scale.double().exp() ** 2
        )
        variance = variance.clamp(min=torch.finfo(y.dtype).tiny)
        return float(torch.distributions.Normal(0.0, variance.sqrt()).log_prob(residual).sum())
    return None
