"""Text as whole numbers: characters or words, and the table of those that are known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

Unit = Literal["character", "word"]
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
"""What stands for every token that is not in a vocabulary; it is token 0 of each that does not hold all."""
_WORD = re.compile(r"\n|\w+(?:['’-]\w+)*|[^\w\s]")
_CLOSING = set(".,;:!?)]}%'’")


def pieces(text: str, unit: Unit) -> list[str]:
    """The tokens of a text: its characters; or its words, punctuation marks and ends of lines.

    Args:
        text: Any text.
        unit: ``character`` or ``word``. Apostrophes and hyphens between letters belong to a word; spaces are dropped.
    """
    return list(text) if unit == "character" else _WORD.findall(text)


def joined(tokens: Iterable[str], unit: Unit) -> str:
    """The text of tokens; between words stands a space, but not before a closing mark or around an end of line."""
    if unit == "character":
        return "".join(tokens)
    text = ""
    for token in tokens:
        apart = text and not text.endswith("\n") and token != "\n" and token not in _CLOSING
        text += f" {token}" if apart else token
    return text


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that are known, each by its place.

    Args:
        unit: ``character`` or ``word``.
        tokens: All of them; the first is `UNKNOWN`, unless none can be unknown.
    """

    unit: Unit
    tokens: tuple[str, ...]

    @classmethod
    def of(cls, tokens: Sequence[str], unit: Unit, most: int | None = None) -> Vocabulary:
        """The most frequent tokens of a text, in alphabetical order behind the unknown one.

        Args:
            tokens: Of the training text.
            unit: What they are.
            most: How many there are at most, the unknown one included; None (default) for all.
        """
        count = Counter(tokens)
        count.pop(UNKNOWN, None)
        ranked = sorted(count, key=lambda token: (-count[token], token))
        return cls(unit, (UNKNOWN, *sorted(ranked[: None if most is None else most - 1])))

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def places(self) -> dict[str, int]:
        """The number of every token."""
        return {token: place for place, token in enumerate(self.tokens)}

    def encode(self, tokens: Iterable[str]) -> Tensor:
        """The numbers of tokens ``[T]``, 0 for those that are not known."""
        return torch.tensor([self.places.get(token, 0) for token in tokens], dtype=torch.long)

    def decode(self, numbers: Tensor) -> str:
        """The text of numbers ``[T]``."""
        return joined((self.tokens[number] for number in numbers.tolist()), self.unit)
