"""Leave-one-out predictions, from draws of the posterior of all data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...priors import SettingError
from ..pareto import fewest_samples, smoothed


@dataclass(frozen=True, eq=False)
class LeaveOneOut:
    """What predictions of each example from all the others are worth.

    Args:
        pointwise: The log predictive density of each example without it, ``[N]``, float64.
        p_loo: By how much the log-likelihood of all data exceeds it: the effective number of parameters.
        k_hat: The shape of the tail of each example's weights, ``[N]``; those above 0.7 are not to be relied upon.
    """

    pointwise: Tensor
    p_loo: float
    k_hat: Tensor

    @property
    def elpd(self) -> float:
        """The expected log pointwise predictive density, in nats, summed over examples."""
        return float(self.pointwise.sum())

    @property
    def standard_error(self) -> float:
        """Of `elpd`, over examples."""
        return float(len(self.pointwise) ** 0.5 * self.pointwise.std(correction=0))


def loo(log_likelihood: Tensor) -> LeaveOneOut:
    r"""Leave-one-out cross-validation by Pareto-smoothed importance sampling.

    .. math:: \ln p(y_n \mid y_{-n}) \approx \ln \sum_s \tilde w_{s, n}\, p(y_n \mid w_s), \qquad
        w_{s, n} \propto 1 / p(y_n \mid w_s)

    Draws count as independent for the length of the smoothed tail.

    Args:
        log_likelihood: Of every example under every draw, ``[K, S, N]``; see `pointwise_log_likelihood`.

    Raises:
        SettingError: There are fewer than 21 draws, or numbers that are not finite.

    Reference:
        Vehtari, Gelman and Gabry, 2017, "Practical Bayesian model evaluation using leave-one-out cross-validation and
        WAIC", Eq. 10; Vehtari et al., 2024, "Pareto smoothed importance sampling".
    """
    values = log_likelihood.detach().cpu().double().flatten(0, -2)
    if len(values) < fewest_samples() or not values.isfinite().all():
        expected = f"finite numbers [K, S, N] of at least {fewest_samples()} draws"
        raise SettingError("log_likelihood", tuple(log_likelihood.shape), expected)
    found = [smoothed(-column) for column in values.unbind(1)]
    weights = torch.stack([each.log_weights for each in found], 1)
    pointwise = (weights + values).logsumexp(0)
    full = values.logsumexp(0) - torch.tensor(float(len(values))).log()
    return LeaveOneOut(pointwise, float((full - pointwise).sum()), torch.tensor([each.k_hat for each in found]))
