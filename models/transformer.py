"""A pre-norm transformer: an encoder, or with a causal mask a decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..priors.settings import check, check_count, check_option, check_positive
from .attention import Attention
from .embeddings import Image, Input, Tokens
from .layers import LayerNorm, Linear


@dataclass(frozen=True)
class Output:
    """What a net predicts: ``size`` numbers for every example, or for every token."""

    size: int
    per_token: bool = False


class Backbone(nn.Module):
    """A net that is built for the shapes of a task: ``Net(inputs, outputs, *, settings)``, all kept as attributes.

    It takes batched weights ``[S, 1, ...]`` as they are.

    Args:
        inputs: What it was built for, or None where that does not change what it computes.
        outputs: What it predicts, or None for the same reason.
    """

    takes_batched_weights = True

    def __init__(self, inputs: Input | None = None, outputs: Output | None = None):
        super().__init__()
        self.inputs, self.outputs = inputs, outputs


def visible(queries: Tensor | None, keys: Tensor | None) -> Tensor | None:
    """Which keys a query may see, ``[B, 1, T or 1, M or 1]``; padded queries see none, and so contribute nothing.

    Args:
        queries: Valid queries ``[B, T]``, or None when all are.
        keys: Valid keys ``[B, M]``, or None when all are.
    """
    parts = [] if queries is None else [queries[:, None, :, None]]
    parts += [] if keys is None else [keys[:, None, None, :]]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else parts[0] & parts[1]


def positions(position: Tensor, tokens: Tensor, what: str) -> Tensor:
    """The rows of a table of positions that go with tokens ``[..., T, D]``; an error names what has too many."""
    length, most = tokens.shape[-2], position.shape[-2]
    if length > most:
        raise ValueError(f"{what} has {length} tokens an example: expected at most {most}")
    return position.narrow(-2, 0, length)


class MLP(nn.Module):
    """Two affine maps with a GELU between them."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.up = Linear(width, hidden)
        self.down = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


class Block(nn.Module):
    r"""One pre-norm block.

    .. math:: x \leftarrow x + \mathrm{Attn}(\mathrm{LN}(x)), \qquad x \leftarrow x + \mathrm{MLP}(\mathrm{LN}(x))
    """

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = LayerNorm(width)
        self.mlp = MLP(width, hidden)
        self.attention.output.writes_residual = self.mlp.down.writes_residual = True

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class Transformer(Backbone):
    r"""A pre-norm transformer, an encoder or (causal) a decoder, for images, tokens, sequences or feature vectors.

    .. math:: x_0 = \mathrm{embed}(x) + p, \quad x_l = \mathrm{Block}_l(x_{l-1}), \quad f(x) =
    W\,\mathrm{pool}(\mathrm{LN}(x_L)) + b

    where the last :math:`\mathrm{LN}` may be left out.

    Every weight may carry leading sample dimensions ``[S, 1, ...]``; then so does the output.

    Args:
        inputs: An `Input`: ``Image``, ``Tokens``, ``Series`` or ``Features``.
        outputs: An `Output`.
        width: Width ``D`` of a token, default 64.
        heads: Heads ``H`` a layer, a divisor of the width, default 4.
        depth: Number of blocks, default 2.
        mlp_ratio: Hidden width of a block's MLP in units of the width, default 2.
        pool: How tokens become one vector a sequence: ``mean`` (default, over valid tokens), ``first`` or ``last`` (the
            last valid one). Ignored when the output is per token.
        causal: Whether a token sees only itself and those before it; None (default) leaves it to the task: True where
            outputs predict the tokens that follow (a decoder), else False.
        patch: Side of an image's patches; None (default) leaves the task's.
        final_norm: Whether the last block is followed by a normalisation, default True.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Vaswani et al., 2017; pre-norm: Xiong et al., 2020; patches: Dosovitskiy et al., 2021.
    """

    def __init__(
        self,
        inputs: Input,
        outputs: Output,
        *,
        width: int = 64,
        heads: int = 4,
        depth: int = 2,
        mlp_ratio: float = 2.0,
        pool: Literal["mean", "first", "last"] = "mean",
        causal: bool | None = None,
        patch: int | None = None,
        final_norm: bool = True,
    ):
        super().__init__(inputs, outputs)
        self.width, self.heads, self.depth, self.mlp_ratio = width, heads, depth, mlp_ratio
        self.pool, self.causal, self.patch, self.final_norm = pool, causal, patch, final_norm
        check_count(self, "width", "heads", "depth")
        check_positive(self, "mlp_ratio")
        check(self, "heads", width % heads == 0, f"a divisor of the width {width}")
        check_option(self, "pool", ("mean", "first", "last"))
        ahead = isinstance(inputs, Tokens) and inputs.causal
        expected = "null or true: the outputs predict the tokens that follow, which they must not see"
        check(self, "causal", causal is not False or not ahead, expected)
        self.looks_ahead = not (ahead if causal is None else causal)
        if patch is not None:
            check(self, "patch", isinstance(inputs, Image), "null: only images have patches")
            assert isinstance(inputs, Image)
            fits = patch > 0 and inputs.height % patch == 0 and inputs.width % patch == 0
            check(self, "patch", fits, f"a divisor of the image's height {inputs.height} and width {inputs.width}")
            self.inputs = inputs = Image(inputs.height, inputs.width, inputs.channels, patch)
        self.per_token = outputs.per_token
        self.embedding = inputs.embedding(width)
        self.position = nn.Parameter(torch.empty(inputs.tokens, width))
        self.blocks = nn.ModuleList(Block(width, heads, round(mlp_ratio * width)) for _ in range(depth))
        self.norm = LayerNorm(width) if final_norm else nn.Identity()
        self.head = Linear(width, outputs.size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start the position embedding at standard normal entries; the rest belongs to modules of its own."""
        nn.init.normal_(self.position)

    @property
    def context(self) -> int:
        """How many tokens an example has at most."""
        return self.position.shape[-2]

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Predict.

        Args:
            x: A batch of inputs, ``[B, ...]``.
            mask: Valid tokens ``[B, T]``, boolean; None when all are, or when the input marks its own padding.

        Returns:
            ``[B, C]``, or ``[B, T, C]`` per token; with sample dimensions ``[S, B, ...]``.
        """
        tokens, mask = self.embedding(x, mask)
        tokens = tokens + positions(self.position, tokens, "x")
        seen = self.visible(tokens.shape[-2], mask, tokens.device)
        for block in self.blocks:
            tokens = block(tokens, seen)
        tokens = self.norm(tokens)
        if self.per_token:
            return self.head(tokens)
        return self.head(self.pooled(tokens, mask)).squeeze(-2)

    def visible(self, length: int, mask: Tensor | None, device: torch.device) -> Tensor | None:
        """Which keys a query may see, ``[B, 1, T, T]``; padded queries see none, and so contribute nothing."""
        causal = torch.ones(length, length, dtype=torch.bool, device=device).tril() if not self.looks_ahead else None
        valid = visible(mask, mask)
        return causal if valid is None else valid if causal is None else valid & causal

    def pooled(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """One vector an example, its token axis kept: ``[..., B, 1, D]``."""
        if self.pool == "first":
            return tokens.narrow(-2, 0, 1)
        if mask is None:
            return tokens.mean(-2, keepdim=True) if self.pool == "mean" else tokens.narrow(-2, -1, 1)
        weights = mask.to(tokens.dtype)
        if self.pool == "last":
            last = mask.long().cumsum(-1).argmax(-1)
            # F.one_hot looks at values, which torch.vmap over examples does not allow
            weights = (last.unsqueeze(-1) == torch.arange(mask.shape[-1], device=mask.device)).to(tokens.dtype)
        return (weights / weights.sum(-1, keepdim=True).clamp(min=1)).unsqueeze(-2) @ tokens
