"""What a net that writes is given at every step: the end of a text, or a source and what was written for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from ..models import BayesianModel, Categorical, Pair
from ..priors import SettingError, choice_name
from .data import DataError, Inputs


class Context(ABC):
    """The inputs of a net, made of a prompt and of the tokens that were written so far."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """How many tokens the net is given at most."""

    @abstractmethod
    def inputs(self, prompt: Tensor, written: Tensor) -> Inputs:
        """A batch of one, whose last output predicts the next token, for a prompt ``[P]`` and tokens ``[G]``."""

    @abstractmethod
    def check(self, prompt: Tensor, num_tokens: int, size: int) -> None:
        """Raise an error unless so many of ``size`` tokens can be written for this prompt.

        Raises:
            DataError: The prompt holds what is no token, or is too long.
            SettingError: ``num_tokens`` is out of range.
        """


class Window(Context):
    """The last tokens of a text, from the first position on: of the prompt and of what goes on from it.

    Raises:
        SettingError: The net does not say how many tokens it takes.
    """

    def __init__(self, net: nn.Module):
        context: Any = getattr(net, "context", None)
        if not isinstance(context, int) or context < 1:
            raise SettingError("", choice_name(type(net)), "a net whose context says how many tokens it takes at most")
        self.size = context
        self.padding = getattr(getattr(net, "inputs", None), "padding", None)

    @property
    def tokens(self) -> int:
        return self.size

    def inputs(self, prompt: Tensor, written: Tensor) -> Inputs:
        return torch.cat([prompt, written])[-self.size :].unsqueeze(0)

    def check(self, prompt: Tensor, num_tokens: int, size: int) -> None:
        _check_tokens(prompt, size, self.padding)


class SourceAndTarget(Context):
    """A source, which is the prompt, and what was written for it, behind the token that marks the start.

    Raises:
        SettingError: It is not told which token that is.
    """

    def __init__(self, pair: Pair):
        if pair.start is None:
            raise SettingError("", "a net of two sequences", "inputs that tell the token that targets start with")
        self.pair, self.start = pair, pair.start

    @property
    def tokens(self) -> int:
        return self.pair.tokens

    def inputs(self, prompt: Tensor, written: Tensor) -> Inputs:
        target = torch.cat([written.new_full((1,), self.start), written])
        return prompt.unsqueeze(0), target.unsqueeze(0)

    def check(self, prompt: Tensor, num_tokens: int, size: int) -> None:
        source, most = self.pair.source, self.pair.target.length
        _check_tokens(prompt, source.vocabulary, source.padding)
        if len(prompt) > source.length:
            raise DataError(f"prompt holds {len(prompt)} tokens: expected at most {source.length}, the longest source")
        if num_tokens > most:
            raise SettingError("num_tokens", num_tokens, f"at most {most}, the longest target")


def context_of(model: BayesianModel) -> Context:
    """How the net of a model is given what it goes on from.

    Raises:
        SettingError: It is none that predicts the next token, or does not tell what it takes.
    """
    net, likelihood = model._modules["net"], model._modules["likelihood"]
    assert net is not None
    if not isinstance(likelihood, Categorical) or not likelihood.per_token:
        raise SettingError("", choice_name(type(likelihood)), "a model of classes per token")
    if getattr(net, "looks_ahead", True):
        expected = "a causal net, whose outputs predict the tokens that follow: a transformer with causal: true"
        raise SettingError("", choice_name(type(net)), expected)
    inputs = getattr(net, "inputs", None)
    return SourceAndTarget(inputs) if isinstance(inputs, Pair) else Window(net)


def _check_tokens(prompt: Tensor, size: int, padding: int | None) -> None:
    for token in prompt.tolist():
        if not 0 <= token < size or token == padding:
            but = "" if padding is None or padding >= size else f" but the padding {padding}"
            raise DataError(f"prompt holds {token}: expected whole numbers from 0 to {size - 1}{but}")
