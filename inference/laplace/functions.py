"""A net as a function of some of its weights, and the derivatives of its outputs with respect to them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call, vjp
from torch.nn.functional import pad

from ...models import BayesianModel
from ...models.calling import known_to_vmap
from ..data import Inputs

Weights = dict[str, Tensor]
MOST_NUMBERS = 2**24
"""About how many numbers the derivatives of one chunk of examples may hold."""


class Functions:
    r"""A net around the present values of some of its weights; the others stay where they are.

    .. math:: J(x) = \partial f(x; \theta) / \partial \theta \,\big|_{\theta^*}

    Args:
        model: The model, in evaluation mode when it is used. Its net holds :math:`\theta^*`.
        names: The weights.

    Attributes:
        mode: The values :math:`\theta^*` by name.
    """

    def __init__(self, model: BayesianModel, names: list[str]):
        self.model, self.net = model, model._modules["net"]
        assert self.net is not None
        parameters = dict(self.net.named_parameters())
        self.mode: Weights = {name: parameters[name].detach().clone() for name in names}

    def of(self, names: list[str]) -> Functions:
        """The net as a function of fewer weights."""
        return Functions(self.model, names)

    @property
    def size(self) -> int:
        """How many numbers the weights hold."""
        return sum(value.numel() for value in self.mode.values())

    def __call__(self, weights: Weights, x: Inputs) -> Tensor:
        """The net's outputs ``[B, ...]`` with these weights."""
        assert self.net is not None
        return functional_call(self.net, weights, x if isinstance(x, tuple) else (x,))

    def forward(self, deviations: Weights, x: Inputs) -> Tensor:
        r"""The linearised functions :math:`f(x; \theta^*) + J(x)\,\delta_s` for deviations ``[S, ...]``.

        The product is the derivative of :math:`u \mapsto J^\top u`, which is linear: reverse derivatives alone are as
        quick as forward ones here, more operations have them, and torch takes seconds to make the first forward one.

        Returns:
            ``[S, B, ...]``.
        """
        with known_to_vmap():
            outputs, pull = vjp(lambda weights: self(weights, x), self.mode)[:2]
            push = vjp(lambda cotangents: pull(cotangents)[0], torch.zeros_like(outputs))[1]
            return outputs + torch.vmap(lambda direction: push(direction)[0])(deviations)

    def backward(self, x: Inputs, cotangents: Tensor) -> Weights:
        """The products of cotangents with the Jacobian of each example.

        Args:
            x: Inputs ``[B, ...]``.
            cotangents: ``[K, B, ...]``, of the shape of the outputs.

        Returns:
            ``[B, K, *W]`` by weight.
        """

        def one(parts: tuple[Tensor, ...], own: Tensor) -> Weights:
            lone = tuple(part.unsqueeze(0) for part in parts)
            pull = vjp(lambda weights: self(weights, lone).squeeze(0), self.mode)[1]
            return torch.vmap(pull)(own)[0]

        with known_to_vmap():
            return torch.vmap(one, in_dims=(0, 1))(x if isinstance(x, tuple) else (x,), cotangents)

    def most(self, columns: int) -> int:
        """How many examples to differentiate at once, with so many cotangents each."""
        return max(1, MOST_NUMBERS // max(1, columns * self.size))


def identity_cotangents(outputs: Tensor, count: int) -> Tensor:
    """Cotangents that give the rows of the Jacobian for the last numbers of each example's outputs.

    Args:
        outputs: ``[B, ...]``, of ``O`` numbers an example.
        count: ``K``, of how many; ``O`` for all.

    Returns:
        ``[K, B, ...]``.
    """
    eye = torch.eye(count, dtype=outputs.dtype, device=outputs.device)
    eye = pad(eye, (outputs[0].numel() - count, 0))
    return eye.view(count, 1, *outputs.shape[1:]).expand(count, *outputs.shape)
