"""Normal means whose posterior, and whose gradient noise, are known: ``y_n = w + noise``, entry by entry."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from pyroformer.inference import Data
from pyroformer.models import BayesianModel, Gaussian
from pyroformer.priors import Normal

N, D = 20, 16


@dataclass(frozen=True)
class Means:
    """``D`` independent means with priors N(0, 1), ``N`` observations of each with noise 1 and sample variance 1."""

    y: Tensor

    @property
    def data(self):
        return Data(torch.ones(N, 1), self.y)

    @property
    def precision(self):
        return N + 1.0

    @property
    def mean(self):
        return self.y.double().sum(0) / self.precision

    @staticmethod
    def gradient_noise(size):
        """The variance of an entry of the gradient from ``size`` different examples."""
        return N**2 / size * (1 - size / N)

    @staticmethod
    def model(net=None):
        torch.manual_seed(0)
        return BayesianModel(net or nn.Linear(1, D, bias=False), Normal(), Gaussian(scale=1.0))

    def draws(self, driver, seed=1, **settings):
        """Deviations of all draws from the posterior mean, ``[K, S, D]``."""
        posterior = driver.run(self.model(), None, self.data, seed, **settings)
        weights = posterior.draws["weight"].squeeze(-1).double()
        return weights.view(driver.chains, -1, D) - self.mean


def off(values, expected):
    """How many standard errors the mean of what each chain gave, ``[K]``, is away; chains are independent."""
    return float((values.mean() - expected).abs() / (values.std() / len(values) ** 0.5))


@pytest.fixture(scope="session")
def means():
    y = torch.randn(N, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = (y - y.mean(0)) / y.std(0) + 0.5 + torch.arange(D) / D
    return Means(y.float())


@pytest.fixture(scope="session")
def errors():
    return off
