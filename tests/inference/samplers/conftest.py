"""Densities whose moments are known, and how far draws are from them."""

import pytest
import torch
from pyro.ops.stats import effective_sample_size


class Gaussian:
    """A normal density with mean ``[D]`` and covariance ``[D, D]``, for vectors ``[D]`` or ``[K, D]``."""

    def __init__(self, mean, covariance):
        self.mean, self.covariance = mean, covariance
        self.precision = covariance.inverse()

    def __call__(self, z):
        gradient = -(z - self.mean) @ self.precision
        return 0.5 * ((z - self.mean) * gradient).sum(-1), gradient

    def draws(self, count):
        """Independent draws ``[count, D]``."""
        generator = torch.Generator().manual_seed(3)
        noise = torch.randn(count, len(self.mean), generator=generator, dtype=torch.float64)
        return self.mean + noise @ torch.linalg.cholesky(self.covariance).T

    def distance(self, z):
        """Largest distance of means and second moments of independent draws ``[K, D]``, in standard errors."""
        i, j = torch.triu_indices(len(self.mean), len(self.mean))
        centred = z - self.mean
        found = torch.cat([centred, centred[:, i] * centred[:, j]], 1)
        expected = torch.cat([torch.zeros_like(self.mean), self.covariance[i, j]])
        errors = (found.mean(0) - expected).abs() / found.std(0) * len(z) ** 0.5
        return float(errors.nan_to_num(torch.inf).max())  # chains may have run away


@pytest.fixture
def correlated():
    covariance = torch.tensor([[1.0, 0.6, 0.0], [0.6, 1.5, -0.4], [0.0, -0.4, 0.8]], dtype=torch.float64)
    return Gaussian(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), covariance)


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
