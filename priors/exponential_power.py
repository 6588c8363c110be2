"""The exponential power distribution, also called generalised normal."""

from __future__ import annotations

import math

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all


class ExponentialPower(TorchDistribution):
    r"""The exponential power distribution: normal at power 2, Laplace at 1, uniform as the power grows.

    .. math:: p(x) = \frac{\beta}{2 s\,\Gamma(1/\beta)} \exp\!\left(-\left|\frac{x - \mu}{s}\right|^\beta\right)

    A draw is :math:`\mu \pm s\, G^{1/\beta}` with :math:`G \sim \mathrm{Gamma}(1/\beta, 1)` and a fair sign; it is
    reparameterised.

    Args:
        loc: :math:`\mu`, any shape.
        scale: :math:`s > 0`, broadcastable.
        power: :math:`\beta > 0`, broadcastable.

    Reference:
        Box and Tiao, 1973, "Bayesian inference in statistical analysis", Chapter 3; Nadarajah, 2005, "A generalized
        normal distribution".
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive, "power": constraints.positive}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, power: Tensor | float, validate_args: bool | None = None):
        self.loc, self.scale, self.power = broadcast_all(loc, scale, power)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> ExponentialPower:
        loc, scale, power = (part.expand(batch_shape) for part in (self.loc, self.scale, self.power))
        return type(self)(loc, scale, power, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.scale.square() * (torch.lgamma(3 / self.power) - torch.lgamma(1 / self.power)).exp()

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        size = torch._standard_gamma((1 / self.power).expand(shape)) ** (1 / self.power)
        sign = torch.randint(2, shape, device=size.device) * 2 - 1
        return self.loc + self.scale * sign * size

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        distance = ((value - self.loc) / self.scale).abs()
        away = distance > 0  # at the peak, which is sharp for powers of at most 1, the gradient is taken as 0
        raised = torch.where(away, torch.where(away, distance, 1.0) ** self.power, 0.0)
        return self.power.log() - math.log(2) - self.scale.log() - torch.lgamma(1 / self.power) - raised
