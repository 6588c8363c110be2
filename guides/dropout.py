"""What the dropout families share: weights whose inputs are switched off at random."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import register_kl

from ..models.layers import affine
from ..priors import SettingError, choice_name
from .delta import Delta
from .family import Distribution, Family, LatentSite, Message
from .flat import is_real
from .normal_priors import HALF_LOG_2PI, normal_parameters


class Dropped(dist.Delta):
    r"""A weight with masked columns as it was drawn, with what is known of all its draws.

    .. math:: W = M\, \mathrm{diag}(z / (1 - p)), \qquad P(z_j = 0) = p

    Args:
        value: The draw, ``[..., E, D]``.
        matrix: :math:`M = E[W]`, ``[E, D]``.
        rate: :math:`p`, a number.
    """

    def __init__(self, value: Tensor, matrix: Tensor, rate: Tensor):
        self.matrix, self.rate = matrix, rate
        negative = matrix.shape[-1] * (rate * rate.log() + (1 - rate) * (-rate).log1p())
        super().__init__(value, negative.expand(value.shape[:-2]), event_dim=2, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Dropped:
        return Dropped(self.v.expand(torch.Size(batch_shape) + self.event_shape), self.matrix, self.rate)

    @property
    def mean(self) -> Tensor:
        return self.matrix.expand(self.shape())

    @property
    def variance(self) -> Tensor:
        return (self.matrix.square() * self.rate / (1 - self.rate)).expand(self.shape())

    def entropy(self) -> Tensor:
        """That of the mask, :math:`D\\, H(p)`; that of the values given the mask is a constant, left out."""
        return -self.log_density


@register_kl(Dropped, dist.Distribution)
def _kl(q: Dropped, prior: Distribution) -> Tensor:
    """The expected log-density of a normal prior exactly, that of others by the draw."""
    found = normal_parameters(prior)
    if found is None:
        return -q.entropy() - prior.log_prob(q.v)
    loc, inverse = found
    squares = q.matrix.square() / (1 - q.rate) - 2 * loc * q.matrix + loc.square()  # E (w - loc)^2
    logs = torch.where(inverse > 0, torch.where(inverse > 0, inverse, 1.0).log() - HALF_LOG_2PI, 0.0)
    log_prior = (logs - 0.5 * inverse.square() * squares).sum((-2, -1))
    return -q.entropy() - log_prior.expand(q.batch_shape)


class Dropout(Family):
    """Point masses, but for weight matrices, whose columns are dropped: those of the inputs that are switched off.

    A matrix is a site ``[E, D]`` that the model uses as the weight of affine maps and for nothing else, and whose prior
    is on all real numbers. Biases, gains, tables and positions are points.
    """

    own_estimator = "masks"

    def setup(self, sites: dict[str, LatentSite]) -> None:
        self.points = Delta()
        self.points.setup(sites)
        self.inputs = {
            name: site.value.shape[-1]
            for name, site in sites.items()
            if site.matrix and site.value.dim() == 2 and not site.plates and is_real(site.prior.support)
        }
        if not self.inputs:
            expected = "a weight matrix with a prior on all real numbers among its sites, to drop the inputs of"
            some = ", ".join([*list(sites)[:3], "..."] if len(sites) > 3 else sites)
            raise SettingError("", choice_name(type(self)), f"{expected}: none of {some} is one")

    def __getstate__(self) -> dict[str, Any]:
        run = ("_outer", "_masks")  # what the last run left is part of its graph: no copy takes it
        return {name: value for name, value in self.__dict__.items() if name not in run}

    @abstractmethod
    def rate_of(self, name: str) -> Tensor:
        """The rate :math:`p` at which the inputs of a weight are dropped, a number above 0 and below 1."""

    @abstractmethod
    def kept(self, name: str, shape: torch.Size) -> Tensor:
        """Draws of :math:`z`: 1 where an input is kept, 0 where it is dropped."""

    def matrix_of(self, name: str) -> Tensor:
        """The mean :math:`M` of a weight, ``[E, D]``."""
        return self.points.values[self.points.names[name]]

    def draw(self, outer: torch.Size) -> None:
        self._outer = outer
        self._masks: dict[str, Tensor] = {}

    def posterior(self, name: str, prior: Distribution, msg: Message) -> tuple[Distribution | Tensor, Tensor | None]:
        if name not in self.inputs:
            return self.points.posterior(name, prior, msg)
        matrix, rate = self.matrix_of(name), self.rate_of(name)
        mask = self.kept(name, torch.Size((*self._outer, 1, self.inputs[name]))) / (1 - rate)
        value = matrix * mask
        return Dropped(value, matrix, rate), value

    def linear(self, name: str, x: Tensor, drawn: Tensor, estimator: str) -> Tensor | None:
        """See `Family.linear`: a mask of its own for every sequence."""
        if name not in self.inputs:
            return None
        if name not in self._masks:  # kept for the run: all uses of a weight are uses of one weight
            shape = torch.Size((*self._outer[:-1], x.shape[-3], 1, self.inputs[name]))
            self._masks[name] = self.kept(name, shape) / (1 - self.rate_of(name))
        return affine(x * self._masks[name], self.matrix_of(name))

    @property
    def rates(self) -> dict[str, Tensor]:
        """The rates by weight."""
        return {name: self.rate_of(name) for name in self.inputs}
