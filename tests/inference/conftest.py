"""A regression whose posterior is known: a linear net, normal prior, normal noise."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from pyroformer.inference import Data
from pyroformer.models import BayesianModel, Gaussian, Linear
from pyroformer.priors import Normal

NOISE, PRIOR = 0.5, 1.0


class OneToken(Linear):
    """Our own affine map, of sequences of one token."""

    takes_batched_weights = True

    def forward(self, x):
        return super().forward(x.unsqueeze(-2)).squeeze(-2)


@dataclass(frozen=True)
class LinearGaussian:
    """``y = [x, 1] w + noise``, with the exact posterior of ``w`` (weights, then bias) in float64."""

    x: Tensor
    y: Tensor

    @property
    def data(self):
        return Data(self.x, self.y)

    @property
    def design(self):
        return torch.cat([self.x, torch.ones(len(self.x), 1)], 1).double()

    def model(self, prior=None, scale=NOISE, net=torch.nn.Linear, **likelihood):
        torch.manual_seed(0)
        prior = Normal(scale=PRIOR) if prior is None else prior
        return BayesianModel(net(3, 1), prior, Gaussian(scale=scale, **likelihood))

    def precision(self, noise=NOISE, prior=PRIOR):
        flat = torch.zeros(4, 4).double() if prior is None else torch.eye(4).double() / prior**2
        return self.design.T @ self.design / noise**2 + flat

    def mean(self, noise=NOISE, prior=PRIOR):
        right = self.design.T @ self.y.double() / noise**2
        return torch.linalg.solve(self.precision(noise, prior), right).squeeze(-1)

    def covariance(self, noise=NOISE, prior=PRIOR):
        return self.precision(noise, prior).inverse()

    @staticmethod
    def flat(draws):
        """Draws by site as ``[S, 4]``, in the order of the exact posterior."""
        return torch.cat([draws["weight"].flatten(1), draws["bias"].flatten(1)], 1).double()


@pytest.fixture(scope="session")
def one_token():
    return OneToken


@pytest.fixture(scope="session")
def line():
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(40, 1, generator=generator)
    x = 0.8 * shared + 0.6 * torch.randn(40, 3, generator=generator)  # correlated: marginal sds mislead
    y = x @ torch.tensor([[0.5], [-1.0], [1.5]]) + 0.3 + NOISE * torch.randn(40, 1, generator=generator)
    return LinearGaussian(x, y)
