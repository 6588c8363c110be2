"""The next character or word of a text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..inference import DataError
from ..models import Categorical, Output, Tokens
from ..models.likelihoods import IGNORED
from ..priors.settings import check, check_count, check_option
from .base import Split, Task, TaskData
from .conllu import UD, read_conllu, unpacked
from .idx import ReadFile, read_bytes
from .sources import find
from .text_shifts import KINDS, SEVERITIES, TextShift, TextShiftKind, substituted
from .vocabulary import Unit, Vocabulary, pieces

SONNETS = Path(__file__).with_name("sonnets.txt")
"""Thirty of Shakespeare's sonnets (1609, in the public domain) in modern spelling, 18 kB."""
WORDS = 1000
"""How many words are known where the user does not say."""
SETS = ("train", "validation", "test")
"""The blocks of a text, in their order."""


@dataclass(frozen=True, kw_only=True)
class Text(Task):
    r"""A text, of which every next character or word is predicted from those before it.

    .. math:: p(y \mid x) = \prod_{t=1}^{T} p(y_t \mid x_1, \dots, x_t), \qquad y_t = x_{t+1}

    An example is one sequence of ``length`` tokens, and N the number of sequences: the likelihood of an example is the
    product over its tokens, and the KL of its attention rows the sum over layers, heads and all T queries. The text is
    split into consecutive blocks to train, to validate and to test, so that no sequence of one reaches into another.
    The vocabulary is that of the training block; other tokens are unknown, one token that is predicted like all. The
    last sequence of a block is padded, which is neither seen nor predicted.

    Shifted sets: ``typos``, the test sequences with a share of the tokens that are read replaced by others, and
    ``shuffled``, with the tokens of each in a random order. Out of distribution: ``random``, tokens drawn uniformly,
    and of characters ``other_case``, the test sequences with upper and lower case exchanged, where that changes most of
    their tokens.

    Args:
        source: ``sonnets`` (default): thirty of Shakespeare's, 18 kB, which come with the package, or the file that
            ``path`` names. ``ud``: the sentences of Universal Dependencies English EWT as they were written, in their
            published sets.
        path: A text file in UTF-8, plain or gzip; for ``ud`` the folder with its three files, default null: ``ud`` in
            the folder that the environment variable PYROFORMER_DATA names.
        unit: What a token is: ``character`` (default) or ``word`` (punctuation marks and ends of lines are words).
        length: Tokens of a sequence, the longest context of a prediction, default 64.
        stride: Tokens from the start of a training sequence to that of the next, default null: the length. Where it is
            less, a token counts in several sequences, as if it had been observed several times.
        vocabulary: Tokens that are known at most, the unknown one included, the most frequent ones; default null: all
            characters, 1,000 words.
        train: Training sequences at most, the first ones; default null for all.
        held_out: Sequences of every other set at most, evenly spaced, default 100.
        validation: Share of the text that is for validation, behind the training block, default 0.1; of ``sonnets`` and
            files.
        test: Share of the text that is for testing, at its end, default 0.1; of ``sonnets`` and files.
        noise: Share of the tokens that ``typos`` replaces, default 0.1.
        shifts: Errors to measure, among substitution, erasure (a token becomes unknown); default none. Each makes the
            five sets ``<kind>-1`` to ``<kind>-5``, with 2, 5, 10, 20 and 40 % of the tokens that are read.
        split: Seed of the shifted and random sets, default 0.

    Raises:
        SettingError: A setting is out of range, or there is no such file.
        DataError: The text is not found, no text, or too short to be split.

    Reference:
        Bengio et al., 2003, "A neural probabilistic language model", Eq. 1.
    """

    source: Literal["sonnets", "ud"] = "sonnets"
    path: str | None = None
    unit: Unit = "character"
    length: int = 64
    stride: int | None = None
    vocabulary: int | None = None
    train: int | None = None
    held_out: int = 100
    validation: float = 0.1
    test: float = 0.1
    noise: float = 0.1
    shifts: tuple[TextShiftKind, ...] = ()
    split: int = 0

    def __post_init__(self) -> None:
        check_option(self, "source", ("sonnets", "ud"))
        if self.path is not None and self.source != "ud":
            check(self, "path", Path(self.path).is_file(), "an existing text file")
        check_option(self, "unit", ("character", "word"))
        check_count(self, "length", "held_out")
        if self.stride is not None:
            check_count(self, "stride")
            check(self, "stride", self.stride <= self.length, f"at most the length {self.length}: no token is left out")
        if self.train is not None:
            check_count(self, "train")
        check(self, "vocabulary", self.vocabulary is None or self.vocabulary >= 3, "a whole number of at least 3")
        check(self, "validation", 0 <= self.validation < 1, "a number from 0 to below 1")
        check(self, "test", 0 < self.test < 1 - self.validation, "above 0, and with validation below 1")
        check(self, "noise", 0 <= self.noise <= 1, "a number from 0 to 1")
        known = not isinstance(self.shifts, str) and all(kind in KINDS for kind in self.shifts)
        distinct = known and len(set(self.shifts)) == len(self.shifts)
        check(self, "shifts", distinct, f"a list of some of {', '.join(KINDS)}, each once")
        object.__setattr__(self, "shifts", tuple(self.shifts))
        check(self, "split", 0 <= self.split < 2**32, "a whole number from 0 to 4294967295")

    def load(self) -> TaskData:
        origin, files, blocks = self._blocks()
        for name, block in zip(SETS, blocks, strict=True):
            if len(block) < 2 and (block or name != "validation"):
                raise DataError(f"{files[0].path}: {len(block)} tokens to {name}: expected at least 2; a longer text")
        most = WORDS if self.vocabulary is None and self.unit == "word" else self.vocabulary
        vocabulary = Vocabulary.of(blocks[0], self.unit, most)
        size = len(vocabulary)
        if size < 3:
            raise DataError(f"{files[0].path} has {size - 1} different tokens to train: expected at least 2")
        codes = [vocabulary.encode(block) for block in blocks]
        train = self._sequences(codes[0], size, self.stride or self.length)
        count = len(train.x) if self.train is None else self.train
        test = self._some(self._sequences(codes[2], size))
        shifted, shifts = self._shifted(test, codes[2], size)
        return TaskData(
            inputs=Tokens(size + 1, self.length, padding=size, causal=True),
            outputs=Output(size, per_token=True),
            likelihood=Categorical(per_token=True),
            train=Split(train.x[:count], None if train.y is None else train.y[:count]),
            validation=self._some(self._sequences(codes[1], size)) if len(codes[1]) else None,
            test=test,
            shifted=shifted,
            shifts=shifts,
            ood=self._foreign(blocks[2], vocabulary, len(test.x)),
            source={
                "origin": origin,
                "files": {str(file.path): file.sha256 for file in files},
                "sha256": {name: _hash(block) for name, block in zip(SETS, blocks, strict=True) if block},
                "split": self.split,
                "unit": self.unit,
                "classes": list(vocabulary.tokens),
            },
            unit=self.unit,
        )

    def _blocks(self) -> tuple[str, list[ReadFile], list[list[str]]]:
        """Where the text is from, the files, and the tokens to train, validate and test."""
        if self.source == "ud":
            found = find(UD, self.path, setting="task.text.path")
            files = [found.read(name) for name in UD.files]
            return found.origin, files, [self._of_sentences(file) for file in files]
        file = read_bytes(SONNETS if self.path is None else self.path, "a text file")
        tokens = pieces(unpacked(file, "a text file"), self.unit)
        tested, validated = (round(len(tokens) * share) for share in (self.test, self.validation))
        middle, last = len(tokens) - tested - validated, len(tokens) - tested
        origin = "Shakespeare's sonnets, which come with pyroformer" if self.path is None else "task.text.path"
        return origin, [file], [tokens[:middle], tokens[middle:last], tokens[last:]]

    def _of_sentences(self, file: ReadFile) -> list[str]:
        """The sentences of a file one after the other, each on a line of its own."""
        found: list[str] = []
        for sentence in read_conllu(file):
            found += [*pieces(sentence.text, self.unit), "\n"]
        return found

    def _sequences(self, tokens: Tensor, padding: int, stride: int | None = None) -> Split:
        return sequences(tokens, self.length, self.length if stride is None else stride, padding)

    def _some(self, split: Split) -> Split:
        """At most `held_out` sequences, evenly spaced."""
        assert isinstance(split.x, Tensor) and split.y is not None
        count = len(split.x)
        kept = torch.arange(min(count, self.held_out)) * count // min(count, self.held_out)
        return Split(split.x[kept], split.y[kept])

    def _shifted(self, test: Split, tokens: Tensor, size: int) -> tuple[dict[str, Split], dict[str, TextShift]]:
        assert isinstance(test.x, Tensor)
        generator = torch.Generator().manual_seed(self.split)
        typos = Split(substituted(test.x, self.noise, size, generator), test.y)
        mixed = [part[torch.randperm(len(part), generator=generator)] for part in tokens.split(self.length)]
        shuffled = self._some(self._sequences(torch.cat(mixed), size))
        shifts = {shift.name: shift for shift in (TextShift(k, s) for k in self.shifts for s in SEVERITIES)}
        sets = {name: Split(shift(test.x, size, self.split), test.y) for name, shift in shifts.items()}
        return {"typos": typos, "shuffled": shuffled} | sets, shifts

    def _foreign(self, text: Sequence[str], vocabulary: Vocabulary, count: int) -> dict[str, Split]:
        """Sequences without padding: there are no labels that would say what is not seen."""
        generator = torch.Generator().manual_seed(self.split + 1)
        sets = {"random": Split(torch.randint(1, len(vocabulary), (count, self.length), generator=generator))}
        if self.unit == "character":
            own, other = (vocabulary.encode(tokens) for tokens in (text, [token.swapcase() for token in text]))
            found = self._some(self._sequences(other, len(vocabulary))).x  # those of the test set
            assert isinstance(found, Tensor)
            whole = found[(found < len(vocabulary)).all(1)]
            if len(whole) and float((other != own).double().mean()) > 0.5:
                sets["other_case"] = Split(whole)
        return sets


def sequences(tokens: Tensor, length: int, stride: int, padding: int) -> Split:
    """Consecutive sequences of a block of text, and the token that follows each of their tokens.

    Args:
        tokens: ``[n]``, at least 2.
        length: ``T``.
        stride: From the start of one sequence to that of the next, at most the length.
        padding: What stands in ``x`` behind the end of the block; in ``y`` its label is not observed.

    Returns:
        ``x`` and ``y`` ``[N, T]``; with ``stride = length`` every token but the first is predicted once.
    """
    last = len(tokens) - 1
    count = 1 + max(0, -(-(last - length) // stride))
    index = torch.arange(count).unsqueeze(1) * stride + torch.arange(length)
    inside = index < last
    x = torch.where(inside, tokens[index.clamp(max=last)], padding)
    y = torch.where(inside, tokens[(index + 1).clamp(max=last)], IGNORED)
    return Split(x, y)


def _hash(tokens: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(tokens).encode()).hexdigest()


def vocabulary_of(source: dict[str, Any]) -> Vocabulary | None:
    """The vocabulary that a run's records of its data hold; None where its tokens are not written."""
    if source.get("unit") not in ("character", "word") or not isinstance(source.get("classes"), list):
        return None
    return Vocabulary(source["unit"], tuple(map(str, source["classes"])))
