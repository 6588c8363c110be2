"""Inputs: what a task feeds a net, and the layer that turns it into tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..priors import SettingError
from .layers import Linear, embed


class Embedding(nn.Module):
    """Turns an input into tokens ``[B, T, D]`` and, when some are padding, the mask ``[B, T]`` of valid ones."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        raise NotImplementedError


@dataclass(frozen=True)
class Input(ABC):
    """The shape of an input; each kind knows the number of its tokens and its embedding."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """How many tokens an example has at most."""

    @abstractmethod
    def embedding(self, width: int) -> Embedding:
        """A fresh embedding into tokens of the given width."""


@dataclass(frozen=True)
class Image(Input):
    """An image ``[B, height, width]`` or ``[B, channels, height, width]``, cut into square patches.

    Args:
        height, width: In pixels.
        channels: Default 1.
        patch: Side of a patch in pixels, default 2; it divides height and width.

    Raises:
        ValueError: The patch does not divide the image.
    """

    height: int
    width: int
    channels: int = 1
    patch: int = 2

    def __post_init__(self) -> None:
        if self.patch < 1 or self.height % self.patch or self.width % self.patch:
            raise ValueError(
                f"patch = {self.patch}: expected a divisor of the image's height {self.height} and width {self.width}"
            )

    @property
    def tokens(self) -> int:
        return (self.height // self.patch) * (self.width // self.patch)

    def embedding(self, width: int) -> Embedding:
        return PatchEmbedding(self, width)


class PatchEmbedding(Embedding):
    """Patches of an image, each by one affine map (Dosovitskiy et al., 2021, Eq. 1)."""

    def __init__(self, image: Image, width: int):
        super().__init__()
        self.image = image
        self.project = Linear(image.channels * image.patch**2, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        image, patch = self.image, self.image.patch
        size = (image.channels, image.height, image.width)
        if x.shape[1:] != size and (image.channels > 1 or x.shape[1:] != size[1:]):
            expected = f"[B, {', '.join(map(str, size if image.channels > 1 else size[1:]))}]"
            raise ValueError(f"x has shape {tuple(x.shape)}: expected {expected}")
        x = x.reshape(-1, image.channels, image.height // patch, patch, image.width // patch, patch)
        return self.project(x.permute(0, 2, 4, 1, 3, 5).flatten(1, 2).flatten(2)), mask


@dataclass(frozen=True)
class Tokens(Input):
    """Whole numbers ``[B, T]`` from a vocabulary.

    Args:
        vocabulary: How many different tokens there are.
        length: The longest sequence.
        padding: The token that marks padding, or None when there is none.
        causal: Whether the output at a token is about those that follow, so that a net must not let it look ahead;
            default False.
    """

    vocabulary: int
    length: int
    padding: int | None = None
    causal: bool = False

    @property
    def tokens(self) -> int:
        return self.length

    def embedding(self, width: int) -> Embedding:
        return TokenEmbedding(self, width)


class TokenEmbedding(Embedding):
    """A table with one row per token of the vocabulary, which starts at standard normal entries."""

    def __init__(self, inputs: Tokens, width: int):
        super().__init__()
        self.padding = inputs.padding
        self.weight = nn.Parameter(torch.empty(inputs.vocabulary, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        if mask is None and self.padding is not None:
            mask = x != self.padding
        return embed(x, self.weight), mask


@dataclass(frozen=True)
class Series(Input):
    """Real vectors in a sequence ``[B, T, features]``; padding is told by the net's ``mask``."""

    length: int
    features: int = 1

    @property
    def tokens(self) -> int:
        return self.length

    def embedding(self, width: int) -> Embedding:
        return SeriesEmbedding(self, width)


class SeriesEmbedding(Embedding):
    """Each step of a sequence by one affine map."""

    def __init__(self, inputs: Series, width: int):
        super().__init__()
        self.project = Linear(inputs.features, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        if mask is not None:
            x = torch.where(mask.unsqueeze(-1), x, 0.0)  # whatever stands in the padding, NaN included
        return self.project(x), mask


@dataclass(frozen=True)
class Features(Input):
    """A vector of real features ``[B, features]``, each of which becomes several tokens.

    Args:
        features: How many.
        copies: Tokens per feature, each with an embedding of its own, default 4: with one token there would be nothing
            to attend to.
    """

    features: int
    copies: int = 4

    @property
    def tokens(self) -> int:
        return self.features * self.copies

    def embedding(self, width: int) -> Embedding:
        return FeatureEmbedding(self, width)


class FeatureEmbedding(Embedding):
    """Feature :math:`x_j` becomes the tokens :math:`x_j w_{jk}` (after Gorishniy et al., 2021, Sec. 3.3).

    Their bias is the net's position embedding.
    """

    def __init__(self, inputs: Features, width: int):
        super().__init__()
        self.copies = inputs.copies
        self.weight = nn.Parameter(torch.empty(inputs.tokens, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return x.repeat_interleave(self.copies, -1).unsqueeze(-1) * self.weight, mask


@dataclass(frozen=True)
class Pair(Input):
    """Two sequences of tokens ``([B, M], [B, T])``: a source, and those of a target before the predicted ones.

    Args:
        source: What is read.
        target: What is written, one place late: it starts with a token that marks the start.
        start: That token, which a net that writes begins with; None (default) where it is not told.

    Raises:
        ValueError: ``start`` is no token of the target.
    """

    source: Tokens
    target: Tokens
    start: int | None = None

    def __post_init__(self) -> None:
        if self.start is not None and not 0 <= self.start < self.target.vocabulary:
            raise ValueError(f"start = {self.start}: expected a token of the target, 0 to {self.target.vocabulary - 1}")

    @property
    def tokens(self) -> int:
        return self.source.tokens + self.target.tokens

    def embedding(self, width: int) -> Embedding:
        raise SettingError(
            "", "a net of one sequence", "a net of a source and a target sequence, such as encoder_decoder"
        )
