"""Characters and words as numbers, and back."""

import pytest
import torch

from pyroformer.tasks.vocabulary import UNKNOWN, Vocabulary, joined, pieces


def test_characters():
    assert pieces("Ab\nc", "character") == ["A", "b", "\n", "c"]
    assert joined(["A", "b", "\n"], "character") == "Ab\n"


def test_words_marks_and_ends_of_lines():
    text = "Thou art, mak'st me self-made!\n\nO no: 'tis."
    found = pieces(text, "word")
    assert found == [
        *("Thou", "art", ",", "mak'st", "me", "self-made", "!", "\n", "\n"),
        *("O", "no", ":", "'", "tis", "."),
    ]
    assert joined(found, "word") == "Thou art, mak'st me self-made!\n\nO no:' tis."
    assert pieces(joined(found, "word"), "word") == found  # what is written is read as the same words


def test_the_most_frequent_tokens_are_known_and_ties_go_by_the_alphabet():
    tokens = [*"cccbbaad", UNKNOWN]
    whole, three = Vocabulary.of(tokens, "character"), Vocabulary.of(tokens, "character", 3)
    assert whole.tokens == (UNKNOWN, "a", "b", "c", "d")
    assert three.tokens == (UNKNOWN, "a", "c")
    assert three.encode("cabx").tolist() == [2, 1, 0, 0]
    assert three.decode(torch.tensor([2, 1, 0])) == f"ca{UNKNOWN}"


@pytest.mark.parametrize("unit", ["character", "word"])
def test_what_is_known_comes_back(unit):
    text = "one two, one!\ntwo"
    vocabulary = Vocabulary.of(pieces(text, unit), unit)
    assert vocabulary.decode(vocabulary.encode(pieces(text, unit))) == text
    assert len(vocabulary) == len(set(pieces(text, unit))) + 1
