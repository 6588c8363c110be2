"""Normalizing-flow posterior of affine coupling layers."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import transforms
from pyro.nn import DenseNN
from torch import Tensor, nn

from ..priors import SettingError
from ..priors.settings import check_count, check_positive
from .family import LatentSite
from .joint import JointFamily


class Flow(JointFamily):
    r"""A normalizing flow over all sites: coupling layers bend a normal distribution, and its density stays exact.

    .. math:: w = m + s \odot f_K(\cdots f_1(z)), \qquad z \sim \mathcal N(0, I)

    Each layer leaves half of the vector as it is and shifts and scales the other half by what a small net makes of the
    first:

    .. math:: y_1 = x_1, \qquad y_2 = e^{a(x_1)} \odot x_2 + b(x_1)

    The halves are those of fixed random orders, and every second layer has those of the layer before it exchanged. The
    flow starts as the independent normal :math:`\mathcal N(m, s^2)`. Entropy and KL are estimated by draws. Its nets
    grow with the number of entries, so it is for parts of a net:
    give it some sites by globs and the rest to ``mean_field``.

    Args:
        layers: :math:`K`, a whole number of at least 1, default 4.
        hidden: The width of the nets, which have one hidden layer, a whole number of at least 1, default 32.
        init_scale: Every :math:`s_i` at the start, above 0, default 1e-2; :math:`m` starts at the model's own values.
        max_size: The most numbers that are accepted, a whole number of at least 1, default 2000.

    Raises:
        SettingError: A setting is out of range, or the sites have more than ``max_size`` numbers together, or only one.

    Reference:
        Dinh, Sohl-Dickstein and Bengio, 2017, "Density estimation using Real NVP"; as a posterior: Rezende and
        Mohamed, 2015, "Variational inference with normalizing flows". Numbers of layers and units are our own.
    """

    def __init__(self, *, layers: int = 4, hidden: int = 32, init_scale: float = 1e-2, max_size: int = 2000):
        super().__init__()
        self.layers, self.hidden, self.init_scale, self.max_size = layers, hidden, init_scale, max_size
        check_count(self, "layers", "hidden", "max_size")
        check_positive(self, "init_scale")

    def setup(self, sites: dict[str, LatentSite]) -> None:
        self.check_size(sites, self.max_size)
        super().setup(sites)
        size = len(self.loc)
        if size < 2:
            raise SettingError("", ", ".join(sites), "at least two numbers for a flow: one has no other to depend on")
        self.kept = size // 2
        self.log_scale = nn.Parameter(torch.full_like(self.loc, math.log(self.init_scale)))
        nets = [DenseNN(self.kept, [self.hidden], [size - self.kept] * 2, nn.Tanh()) for _ in range(self.layers)]
        for net in nets:
            nn.init.zeros_(net.layers[-1].weight)
            nn.init.zeros_(net.layers[-1].bias)
        self.nets = nn.ModuleList(nets).to(self.loc)
        self.register_buffer("orders", _orders(size, self.layers).to(self.loc.device), persistent=False)

    def distribution(self) -> dist.TransformedDistribution:
        """The vector's distribution, ``[D]`` as one event."""
        steps: list[Any] = []
        orders: Any = self.orders
        for order, net in zip(orders, self.nets, strict=False):
            # layers are made anew for every run: they keep what they last saw, which belongs to the run's graph
            steps += [transforms.Permute(order), transforms.AffineCoupling(self.kept, net)]
        steps.append(transforms.Permute(orders[-1]))
        steps.append(transforms.AffineTransform(self.loc, self.log_scale.exp(), event_dim=1, cache_size=1))
        base = dist.Normal(torch.zeros_like(self.loc), 1.0, validate_args=False).to_event(1)
        return dist.TransformedDistribution(base, steps, validate_args=False)

    def sample(self, num_samples: int) -> Tensor:
        return self.distribution().rsample((num_samples,))

    def log_density(self, flat: Tensor) -> Tensor:
        return self.distribution().log_prob(flat)


def _orders(size: int, layers: int) -> Tensor:
    """How the entries are put in order before each layer, given the order before it, and the way back at the end.

    Returns:
        ``[layers + 1, size]``, the same whenever it is called.
    """
    generator = torch.Generator().manual_seed(0)
    wanted: list[Tensor] = []
    for layer in range(layers):
        wanted.append(wanted[-1].flip(0) if layer % 2 else torch.randperm(size, generator=generator))
    now, steps = torch.arange(size), []
    for order in (*wanted, torch.arange(size)):
        steps.append(now.argsort()[order])
        now = order
    return torch.stack(steps)
