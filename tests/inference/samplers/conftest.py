"""Densities whose moments are known, and how far draws are from them."""

import math

import pytest
import torch
from pyro.ops.stats import effective_sample_size

from pyroformer.inference.samplers import Streams

STEPS_OF_KS = 2.7
"""Kolmogorov's statistic, times the root of the number of draws, is above this once in a million: 2 exp(-2 x^2)."""


class Gaussian:
    """A normal density with mean ``[D]`` and covariance ``[D, D]``, for vectors ``[D]`` or ``[K, D]``."""

    def __init__(self, mean, covariance):
        self.mean, self.covariance = mean, covariance
        self.precision = covariance.inverse()
        self.root = torch.linalg.cholesky(covariance)

    def __call__(self, z):
        gradient = -(z - self.mean) @ self.precision
        return 0.5 * ((z - self.mean) * gradient).sum(-1), gradient

    def draws(self, count):
        """Independent draws ``[count, D]``."""
        generator = torch.Generator().manual_seed(3)
        noise = torch.randn(count, len(self.mean), generator=generator, dtype=torch.float64)
        return self.mean + noise @ self.root.T

    def radius(self, z):
        """Squared distance from the mean in units of the covariance ``[...]``, whose mean is ``D``."""
        return ((z - self.mean) @ self.precision * (z - self.mean)).sum(-1)

    def distance(self, z):
        """Largest distance of means and second moments of independent draws ``[K, D]``, in standard errors."""
        i, j = torch.triu_indices(len(self.mean), len(self.mean))
        centred = z - self.mean
        found = torch.cat([centred, centred[:, i] * centred[:, j]], 1)
        expected = torch.cat([torch.zeros_like(self.mean), self.covariance[i, j]])
        errors = (found.mean(0) - expected).abs() / found.std(0) * len(z) ** 0.5
        return float(errors.nan_to_num(torch.inf).max())  # chains may have run away

    def kolmogorov(self, z):
        """Whether the law of independent draws ``[K, D]`` is this one: of every entry, and of the radius."""
        spread = self.covariance.diag().sqrt()
        shares = [torch.special.ndtr((z - self.mean) / spread)]
        half = torch.tensor(len(self.mean) / 2, dtype=torch.float64)
        shares.append(torch.special.gammainc(half, self.radius(z) / 2).unsqueeze(-1))
        shares = torch.cat(shares, -1).nan_to_num(0.0).sort(0).values
        steps = torch.arange(len(z) + 1, dtype=torch.float64).unsqueeze(-1) / len(z)
        most = torch.maximum((shares - steps[:-1]).abs(), (shares - steps[1:]).abs()).max()
        return float(most) * len(z) ** 0.5 < STEPS_OF_KS


@pytest.fixture(scope="session")
def left_over():
    r"""What dual averaging of 50 steps leaves between the mean acceptance and its target, by its own arithmetic.

    :math:`\frac{\gamma}{\sqrt t} (1 + \frac{t_0}t) |\mu - \ln \epsilon|`; see
    `test_chains.test_the_mean_acceptance_is_known_from_the_step`.
    """

    def found(averaging):
        share = averaging.shrinkage / 50**0.5 * (1 + averaging.DELAY / 50)
        return share * abs(averaging.center - math.log(averaging.average))

    return found


@pytest.fixture(scope="session")
def correlated():
    covariance = torch.tensor([[1.0, 0.6, 0.0], [0.6, 1.5, -0.4], [0.0, -0.4, 0.8]], dtype=torch.float64)
    return Gaussian(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), covariance)


@pytest.fixture(scope="session")
def stretched():
    """A density over 40 numbers whose standard deviations go from 0.3 to 3."""
    spread = torch.logspace(-0.5, 0.5, 40, dtype=torch.float64)
    return Gaussian(torch.zeros(40).double(), spread.square().diag())


class Together(Streams):
    """All chains draw from one stream: for thousands of them."""

    def normal(self, like):
        return torch.randn(like.shape, generator=self.shared, dtype=like.dtype)

    def uniform(self):
        return torch.rand(len(self.own), generator=self.shared, dtype=torch.float64)


@pytest.fixture
def together():
    return Together


@pytest.fixture
def distance():
    """Largest distance of means and second moments of draws ``[K, S, D]``, in Monte Carlo standard errors."""

    def measured(draws, mean, covariance):
        found = []
        centred = draws.double() - mean
        size = centred.shape[-1]
        for i in range(size):
            found.append((centred[..., i], 0.0))
            found += [(centred[..., i] * centred[..., j], float(covariance[i, j])) for j in range(i, size)]
        errors = []
        for values, expected in found:
            spread = values.std() / effective_sample_size(values).clamp(min=1.0).sqrt()
            errors.append(float((values.mean() - expected).abs() / spread))
        return max(error if error == error else float("inf") for error in errors)

    return measured
