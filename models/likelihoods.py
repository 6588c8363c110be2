"""Likelihoods: from a net's output to the distribution of what is observed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from ..priors.settings import check_option, check_positive

IGNORED = -100
"""The label of a token that is not observed (torch's ``ignore_index``)."""

OBSERVATION = {"is_observation": True}
"""Marks the site of the data, so that guides leave it alone when it is predicted."""


def observe(distribution: Distribution, y: Tensor | None) -> None:
    """Sample or observe ``y`` at the site ``obs``.

    Raises:
        ValueError: The shape of ``y`` is not that of a batch; Pyro would broadcast ``[B]`` against ``[B, 1]``.
    """
    shape = distribution.batch_shape[-1:] + distribution.event_shape
    if y is not None and y.shape != shape:
        raise ValueError(f"y has shape {tuple(y.shape)}: expected {tuple(shape)}")
    pyro.sample("obs", distribution, obs=y, infer=dict(OBSERVATION))


class Undrawn(Messenger):
    """Leaves the observations of a model undrawn where only the net's output is wanted."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["infer"].get("is_observation") and not msg["is_observed"]:
            msg["value"], msg["done"] = torch.zeros(()), True


class Likelihood(nn.Module, ABC):
    """The distribution of an observation given the net's output."""

    def sites(self) -> dict[str, Tensor]:
        """Draw the likelihood's own latent sites, outside the data plate; most have none."""
        return {}

    def initial_values(self) -> dict[str, Tensor]:
        """Where the likelihood's own latent sites start."""
        return {}

    @abstractmethod
    def distribution(self, outputs: Tensor, drawn: dict[str, Tensor], y: Tensor | None = None) -> Distribution:
        """The distribution of an observation, with batch shape ``[..., B]``.

        Args:
            outputs: What the net returns for a batch.
            drawn: The values of `sites`.
            y: What is observed, if anything: some of it may be marked as missing.
        """

    @abstractmethod
    def check(self, outputs: Tensor, y: Tensor) -> None:
        """Raise a ValueError about observations that do not fit the outputs of a batch."""

    def forward(self, outputs: Tensor, y: Tensor | None, drawn: dict[str, Tensor]) -> None:
        """Sample or observe ``y`` at the site ``obs``."""
        observe(self.distribution(outputs, drawn, y), y)


class Categorical(Likelihood):
    r"""Classes by softmax.

    .. math:: p(y = c \mid x) = \mathrm{softmax}(f(x))_c

    Args:
        per_token: False (default): logits ``[..., B, C]`` and labels ``[B]``. True: logits ``[..., B, T, C]`` and
            labels ``[B, T]``, of which those equal to -100 are not observed.
    """

    def __init__(self, *, per_token: bool = False):
        super().__init__()
        self.per_token = per_token

    def distribution(self, outputs: Tensor, drawn: dict[str, Tensor], y: Tensor | None = None) -> Distribution:
        classes = dist.Categorical(logits=outputs, validate_args=False)
        if not self.per_token:
            return classes
        return (classes if y is None else classes.mask(y != IGNORED)).to_event(1)

    def check(self, outputs: Tensor, y: Tensor) -> None:
        shape, classes = tuple(outputs.shape[:-1]), outputs.shape[-1]
        if tuple(y.shape) != shape or y.is_floating_point():
            raise ValueError(f"y is {y.dtype} of shape {tuple(y.shape)}: expected whole numbers of shape {shape}")
        wrong = (y < 0) | (y >= classes)
        if self.per_token:
            wrong &= y != IGNORED
        if wrong.any():
            raise ValueError(f"y holds the label {int(y[wrong][0])}: expected 0 to {classes - 1}")

    def forward(self, outputs: Tensor, y: Tensor | None, drawn: dict[str, Tensor]) -> None:
        labels = y.clamp(min=0) if self.per_token and y is not None else y
        observe(self.distribution(outputs, drawn, y), labels)


class Gaussian(Likelihood):
    r"""Real values with independent normal noise.

    .. math:: y \sim \mathcal N(f(x), \sigma^2)

    Outputs and observations are ``[..., B, D]``.

    Args:
        noise: ``fixed`` (default): :math:`\sigma` is ``scale``; ``learned``: a point estimate that starts there;
            ``random``: the sample site ``noise_scale``, with :math:`\sigma \sim \mathrm{LogNormal}(\ln \text{scale},
            1)`.
        scale: Above 0, in the units of ``y``, default 0.1.

    Raises:
        SettingError: ``scale`` is not above 0, or ``noise`` is unknown.
    """

    def __init__(self, *, noise: Literal["fixed", "learned", "random"] = "fixed", scale: float = 0.1):
        super().__init__()
        self.noise, self.scale = noise, scale
        check_option(self, "noise", ("fixed", "learned", "random"))
        check_positive(self, "scale")
        start = torch.tensor(math.log(scale))
        self.log_scale = nn.Parameter(start, requires_grad=noise == "learned")

    def sites(self) -> dict[str, Tensor]:
        if self.noise != "random":
            return {}
        center = self.log_scale.new_full((), math.log(self.scale))
        return {"noise_scale": pyro.sample("noise_scale", dist.LogNormal(center, torch.ones_like(center)))}

    def initial_values(self) -> dict[str, Tensor]:
        return {"noise_scale": self.log_scale.detach().exp()} if self.noise == "random" else {}

    def distribution(self, outputs: Tensor, drawn: dict[str, Tensor], y: Tensor | None = None) -> Distribution:
        scale = drawn["noise_scale"].unsqueeze(-1) if drawn else self.log_scale.exp()
        return dist.Normal(outputs, scale, validate_args=False).to_event(1)

    def check(self, outputs: Tensor, y: Tensor) -> None:
        if y.shape != outputs.shape or not y.is_floating_point():
            raise ValueError(
                f"y is {y.dtype} of shape {tuple(y.shape)}: expected real numbers of shape {tuple(outputs.shape)}"
            )
