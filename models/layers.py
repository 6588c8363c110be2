"""Affine maps whose weights may carry sample dimensions.

A weight is ``[*W]`` as in torch, or ``[S, 1, *W]`` with leading sample dimensions, where the 1 stands for the data
plate. Activations keep a token axis: ``[B, T, D]`` or ``[S, B, T, D]``.
"""

from __future__ import annotations

import torch
from pyro.poutine.runtime import effectful
from torch import Tensor, nn
from torch.nn import functional as F


def per_token(vector: Tensor) -> Tensor:
    """A bias or gain ``[D]`` or ``[S, 1, D]``, with an axis for the tokens: ``[D]`` or ``[S, 1, 1, D]``."""
    return vector if vector.dim() == 1 else vector.unsqueeze(-2)


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What `linear` computes, without the effect."""
    if weight.dim() == 2:
        if bias is None or bias.dim() == 1:
            return F.linear(x, weight, bias)
        y = x @ weight.mT
    elif weight.shape[-3] == 1:
        # One matrix product per sample; broadcasting over the data plate would copy the weight for every example.
        y = (x.flatten(-3, -2) @ weight.squeeze(-3).mT).unflatten(-2, x.shape[-3:-1])
    else:
        y = x @ weight.mT
    return y if bias is None else y + per_token(bias)


@effectful(type="linear")
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""Affine map of every token, as an effect: a Pyro messenger with a ``_pyro_linear`` method may replace it.

    .. math:: y = x W^\top + b

    Args:
        x: ``[B, T, D]`` or ``[S, B, T, D]``.
        weight: ``[E, D]`` or ``[S, 1, E, D]``.
        bias: ``[E]`` or ``[S, 1, E]``, or None.

    Returns:
        ``[B, T, E]`` or ``[S, B, T, E]``.
    """
    return affine(x, weight, bias)


class Linear(nn.Module):
    """Affine map of every token, through the effectful `linear`.

    Args:
        inputs: Width of a token.
        outputs: Width of the result.

    Weights and biases start as those of `torch.nn.Linear` do: uniform within ``inputs ** -0.5`` of 0.
    """

    writes_residual = False
    """Whether the result is added to the residual stream; a block says so of its layers, for priors that scale."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = self.inputs**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.inputs}, {self.outputs}"


class LayerNorm(nn.Module):
    r"""Layer normalisation over the width (Ba et al., 2016), with gain and bias that may carry sample dimensions.

    .. math:: y = g \odot (x - \bar x) / \sqrt{\mathrm{var}(x) + \epsilon} + b

    Args:
        width: Width of a token.
        eps: :math:`\epsilon`, default 1e-5.
    """

    def __init__(self, width: int, eps: float = 1e-5):
        super().__init__()
        self.width, self.eps = width, eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 1 and self.bias.dim() == 1:
            return F.layer_norm(x, (self.width,), self.weight, self.bias, self.eps)
        return F.layer_norm(x, (self.width,), eps=self.eps) * per_token(self.weight) + per_token(self.bias)

    def extra_repr(self) -> str:
        return str(self.width)


def embed(tokens: Tensor, table: Tensor) -> Tensor:
    """Rows of a table: tokens ``[B, T]`` and ``[V, D]`` or ``[S, 1, V, D]`` give ``[B, T, D]`` or ``[S, B, T, D]``."""
    if table.dim() == 2:
        return F.embedding(tokens, table)
    if table.shape[:-2].numel() == 1:
        rows = F.embedding(tokens, table.reshape(table.shape[-2:]))
        return rows.expand(table.shape[:-3] + rows.shape)
    one_hot = F.one_hot(tokens, table.shape[-2]).to(table.dtype)  # indexing a batched table has no batching rule
    return (one_hot.flatten(-3, -2) @ table.squeeze(-3)).unflatten(-2, tokens.shape)
