"""Multi-head attention whose rows are computed, or drawn at a sample site."""

from __future__ import annotations

from contextlib import nullcontext

import pyro
from pyro import poutine
from torch import Tensor, nn

from ..priors import RowPrior, RowPriorModule
from ..priors.rows import masked_softmax
from .layers import Linear


class Attention(nn.Module):
    r"""Multi-head attention with separate query, key, value and output projections.

    .. math:: O_h = A_h V_h, \qquad A_h = \mathrm{softmax}(Q_h K_h^\top / \sqrt{d})

    or, with a row prior, :math:`A_h` is drawn at a sample site, to which the layer offers its activations
    (``infer=dict(scores=..., mask=..., keys=..., law=...)``). It builds no posterior: that is a guide's work.

    Head ``h`` owns the output units ``h*d`` to ``(h+1)*d`` of query, key and value, and the same input units of output.

    Args:
        width: Width of a token, divisible by ``heads``.
        heads: Number of heads ``H``; each has width ``d = width / heads``.
        across: Whether it is for cross attention, whose keys are of another sequence; default False. Priors of rows
            may be refused there.

    Attributes:
        row_prior: A `RowPriorModule`, or None (default) for softmax attention.
        row_law: The `RowPrior` that it is a module of, or None.
        row_site: The name of the sample site.

    Reference:
        Vaswani et al., 2017, Eq. 1, and Sec. 3.2.3 for cross attention; rows as random variables: Cinquin et al., 2021
        (arXiv 2110.04020).
    """

    def __init__(self, width: int, heads: int, *, across: bool = False):
        super().__init__()
        if width % heads:
            raise ValueError(f"heads = {heads}: expected a divisor of the width {width}")
        self.heads, self.across = heads, across
        self.query = Linear(width, width)
        self.key = Linear(width, width)
        self.value = Linear(width, width)
        self.output = Linear(width, width)
        self.row_site = "rows"
        self.row_prior: RowPriorModule | None = None
        self.row_law: RowPrior | None = None
        self.row_layers = 1

    def set_row_prior(self, prior: RowPrior | None, site: str = "rows", layers: int = 1) -> None:
        """Draw the rows at the sample site ``site`` with this prior, or compute them again when it is None.

        Args:
            prior: The prior.
            site: The name of the sample site.
            layers: How many layers of the net have this prior, which its KL may be normalised by.
        """
        self.row_prior = None if prior is None else prior.build(self.query.outputs // self.heads, self.heads)
        self.row_law, self.row_site, self.row_layers = prior, site, layers

    def split(self, x: Tensor) -> Tensor:
        """``[..., T, D]`` as heads ``[..., H, T, d]``."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)

    def forward(self, x: Tensor, mask: Tensor | None = None, memory: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x: ``[..., B, T, D]``, what the queries are made of.
            mask: Which keys a query may see, broadcastable to ``[..., B, H, T, M]``, or None for all.
            memory: ``[..., B, M, D]``, what keys and values are made of (cross attention); None (default) for ``x``.

        Returns:
            ``[..., B, T, D]``; queries that may see no key get the output projection's bias.
        """
        memory = x if memory is None else memory
        query, key, value = self.split(self.query(x)), self.split(self.key(memory)), self.split(self.value(memory))
        scores = query @ (key * key.shape[-1] ** -0.5).mT
        attended = self.rows(scores, key, mask) @ value
        return self.output(attended.transpose(-2, -3).flatten(-2))

    def rows(self, scores: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        """The attention rows ``[..., B, H, T, M]`` for these scores."""
        if self.row_prior is None or self.row_law is None:
            return masked_softmax(scores, mask)
        prior = self.row_prior(scores, keys, mask).to_event(2)
        weight = self.row_law.weight(scores, mask, self.row_layers)
        # poutine.scale refuses 0; a masked site has the same density
        weighing = poutine.scale(scale=weight) if self.row_law.kl_weight else poutine.mask(mask=False)
        with nullcontext() if not isinstance(weight, Tensor) and weight == 1 else weighing:
            infer = {"scores": scores, "mask": mask, "keys": keys, "law": self.row_law}
            value = pyro.sample(self.row_site, prior, infer=infer)
        return self.row_prior.rows(value, mask)
