"""A transformer that reads one sequence and writes another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..priors import SettingError
from ..priors.settings import check, check_count, check_positive
from .attention import Attention
from .embeddings import Input, Pair
from .layers import LayerNorm, Linear
from .transformer import Backbone, Block, Output, positions, visible


class DecoderBlock(Block):
    r"""One pre-norm block that also looks at a memory :math:`m`.

    .. math:: x \leftarrow x + \mathrm{Attn}(\mathrm{LN}(x)), \qquad x \leftarrow x + \mathrm{Attn}(\mathrm{LN}(x), m),
              \qquad x \leftarrow x + \mathrm{MLP}(\mathrm{LN}(x))
    """

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__(width, heads, hidden)
        self.norm_cross = LayerNorm(width)
        self.cross = Attention(width, heads, across=True)
        self.cross.output.writes_residual = True

    def forward(  # type: ignore[override]
        self, x: Tensor, mask: Tensor | None, memory: Tensor, memory_mask: Tensor | None
    ) -> Tensor:
        x = x + self.attention(self.norm1(x), mask)
        x = x + self.cross(self.norm_cross(x), memory_mask, memory)
        return x + self.mlp(self.norm2(x))


class EncoderDecoder(Backbone):
    r"""A pre-norm transformer that encodes a source and decodes a target, which looks at it by cross attention.

    .. math:: m = \mathrm{LN}(\mathrm{Enc}(\mathrm{embed}(u) + p)), \qquad
              f(u, x)_t = W\,\mathrm{LN}(\mathrm{Dec}(\mathrm{embed}(x_{\le t}) + p', m))_t + b

    Its attention rows are ``encoder.0.attention.rows``, ``decoder.0.attention.rows`` (causal) and
    ``decoder.0.cross.rows``. Every weight may carry leading sample dimensions ``[S, 1, ...]``; then so does the output.

    Args:
        inputs: A `Pair`.
        outputs: An `Output` per token of the target.
        width: Width ``D`` of a token, default 64.
        heads: Heads ``H`` a layer, a divisor of the width, default 4.
        depth: Number of blocks of the encoder, and of the decoder, default 2.
        mlp_ratio: Hidden width of a block's MLP in units of the width, default 2.

    Raises:
        SettingError: A setting is out of range, or the task has no source and target.

    Reference:
        Vaswani et al., 2017, Sec. 3.1 and 3.2.3; pre-norm: Xiong et al., 2020.

    Example:
        task: reversal
        model: {encoder_decoder: {width: 64, heads: 4, depth: 2}}
    """

    residual_streams = ("encoder", "decoder")
    """The parts that each have a residual stream of their own, for priors that scale by the depth of a stream."""
    looks_ahead = False
    """Whether the output at a target's token depends on those that follow it."""

    def __init__(
        self,
        inputs: Input,
        outputs: Output,
        *,
        width: int = 64,
        heads: int = 4,
        depth: int = 2,
        mlp_ratio: float = 2.0,
    ):
        super().__init__(inputs, outputs)
        self.width, self.heads, self.depth, self.mlp_ratio = width, heads, depth, mlp_ratio
        check_count(self, "width", "heads", "depth")
        check_positive(self, "mlp_ratio")
        check(self, "heads", width % heads == 0, f"a divisor of the width {width}")
        if not isinstance(inputs, Pair) or not outputs.per_token:
            raise SettingError(
                "", "a net of two sequences", "a net of one input, such as transformer, for a task without a target"
            )
        hidden = round(mlp_ratio * width)
        self.source_embedding = inputs.source.embedding(width)
        self.source_position = nn.Parameter(torch.empty(inputs.source.tokens, width))
        self.encoder = nn.ModuleList(Block(width, heads, hidden) for _ in range(depth))
        self.source_norm = LayerNorm(width)
        self.embedding = inputs.target.embedding(width)
        self.position = nn.Parameter(torch.empty(inputs.target.tokens, width))
        self.decoder = nn.ModuleList(DecoderBlock(width, heads, hidden) for _ in range(depth))
        self.norm = LayerNorm(width)
        self.head = Linear(width, outputs.size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start the position embeddings at standard normal entries; the rest belongs to modules of its own."""
        nn.init.normal_(self.source_position)
        nn.init.normal_(self.position)

    def forward(
        self, source: Tensor, target: Tensor, source_mask: Tensor | None = None, target_mask: Tensor | None = None
    ) -> Tensor:
        """Predict every token of a target from the source and from the target's tokens before it.

        Args:
            source: ``[B, M]``.
            target: ``[B, T]``, one place late: position ``t`` holds the token before the one that is predicted there.
            source_mask, target_mask: Valid tokens, boolean; None when all are, or when the input marks its padding.

        Returns:
            ``[B, T, C]``; with sample dimensions ``[S, B, T, C]``.
        """
        memory, source_mask = self.encoded(source, source_mask)
        tokens, target_mask = self.embedding(target, target_mask)
        tokens = tokens + positions(self.position, tokens, "the target")
        length = tokens.shape[-2]
        earlier = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
        valid = visible(target_mask, target_mask)
        mask = earlier if valid is None else valid & earlier
        across = visible(target_mask, source_mask)
        for block in self.decoder:
            tokens = block(tokens, mask, memory, across)
        return self.head(self.norm(tokens))

    def encoded(self, source: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The memory ``[..., B, M, D]`` of a source, and the mask ``[B, M]`` of its valid tokens or None."""
        tokens, mask = self.source_embedding(source, mask)
        tokens = tokens + positions(self.source_position, tokens, "the source")
        valid = visible(mask, mask)
        for block in self.encoder:
            tokens = block(tokens, valid)
        return self.source_norm(tokens), mask
