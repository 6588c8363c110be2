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


@pytest.fixture
def correlated():
    covariance = torch.tensor([[1.0, 0.9, 0.0], [0.9, 2.0, -0.5], [0.0, -0.5, 0.3]], dtype=torch.float64)
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
        return max(errors)

    return measured
