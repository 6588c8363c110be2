"""A word, to be written backwards."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_lowercase

import torch
from torch import Tensor

from ..models import Categorical, Output, Pair, Tokens
from ..models.likelihoods import IGNORED
from ..priors.settings import check, check_count
from .base import Split, Task, TaskData
from .vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class Reversal(Task):
    r"""Words of random letters, each to be written backwards: a task for an encoder and a decoder.

    .. math:: p(y \mid u) = \prod_{t=1}^{T} p(y_t \mid u, y_{<t}), \qquad y_t = u_{T+1-t}

    An example is one word and N the number of words. While it learns, and where it is measured, the decoder is given
    the right letters before the one that it predicts, and the word's length. Shorter words are padded. Shifted set
    ``longest``: words of the greatest length alone, of which there are few to train on. Letters are written ``a``,
    ``b``, ``c`` and so on, and where there are more than 26, as numbers with spaces between them.

    Args:
        train: Training examples, default 2000.
        test: Test examples, default 300, and as many in the shifted set; validation examples are half as many.
        letters: Different letters, at least 2, default 8.
        length: Letters of a word at most, at least 2, default 8; every length from 1 on is equally frequent.
        split: Seed of the words, default 0.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        After Graves, Wayne and Danihelka, 2014, "Neural Turing machines", Sec. 4.1, where sequences are copied.

    Example:
        task: {reversal: {letters: 8, length: 8}}
        model: encoder_decoder
    """

    train: int = 2000
    test: int = 300
    letters: int = 8
    length: int = 8
    split: int = 0

    def __post_init__(self) -> None:
        check_count(self, "train", "test", "letters", "length")
        check(self, "letters", self.letters >= 2, "a whole number of at least 2")
        check(self, "length", self.length >= 2, "a whole number of at least 2")
        check(self, "split", 0 <= self.split < 2**32, "a whole number from 0 to 4294967295")

    def load(self) -> TaskData:
        generator = torch.Generator().manual_seed(self.split)

        def words(count: int, shortest: int = 1) -> Split:
            sizes = torch.randint(shortest, self.length + 1, (count,), generator=generator)
            letters = torch.randint(self.letters, (count, self.length), generator=generator)
            return reversed_words(letters, sizes, self.letters)

        alphabet = alphabet_of(self.letters)
        return TaskData(
            inputs=Pair(
                Tokens(self.letters + 1, self.length, padding=self.letters),
                Tokens(self.letters + 2, self.length, padding=self.letters, causal=True),
                start=self.letters + 1,
            ),
            outputs=Output(self.letters, per_token=True),
            likelihood=Categorical(per_token=True),
            train=words(self.train),
            validation=words(max(self.test // 2, 1)),
            test=words(self.test),
            shifted={"longest": words(self.test, self.length)},
            source={
                "origin": "made from its seed",
                "files": {},
                "split": self.split,
                "unit": alphabet.unit,
                "classes": list(alphabet.tokens),
            },
        )


def alphabet_of(count: int) -> Vocabulary:
    """How so many letters are written; none is unknown."""
    if count <= len(ascii_lowercase):
        return Vocabulary("character", tuple(ascii_lowercase[:count]))
    return Vocabulary("word", tuple(map(str, range(count))))


def reversed_words(letters: Tensor, sizes: Tensor, count: int) -> Split:
    """Words, the target one place late, and the target.

    Args:
        letters: ``[N, T]``, of which each word has the first few.
        sizes: How many, ``[N]``.
        count: How many letters there are: the number of the padding; the next one marks the start of a target.

    Returns:
        ``x`` is the source ``[N, T]`` and what the decoder reads ``[N, T]``; ``y`` the words backwards ``[N, T]``.
    """
    place = torch.arange(letters.shape[1])
    inside = place < sizes.unsqueeze(1)
    backwards = letters.gather(1, (sizes.unsqueeze(1) - 1 - place).clamp(min=0))
    before = torch.cat([torch.full_like(letters[:, :1], count + 1), backwards[:, :-1]], 1)
    source, before = torch.where(inside, letters, count), torch.where(inside, before, count)
    return Split((source, before), torch.where(inside, backwards, IGNORED))
