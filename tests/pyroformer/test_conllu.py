"""CoNLL-U files: what is a word, what is said of others, and real ones where PYROFORMER_DATA names a folder."""

import gzip
import os
from pathlib import Path

import pytest

from pyroformer.inference import DataError
from pyroformer.tasks import Text
from pyroformer.tasks.conllu import UD, Sentence, read_conllu
from pyroformer.tasks.idx import ReadFile
from pyroformer.tasks.sources import find
from pyroformer.tasks.text import vocabulary_of
from pyroformer.tasks.vocabulary import UNKNOWN, joined, pieces

DATA = os.environ.get("PYROFORMER_DATA")
real = pytest.mark.skipif(not (DATA and Path(DATA, "ud").is_dir()), reason="PYROFORMER_DATA names no real files")


def line(number, form, lemma):
    return "\t".join([number, form, lemma, *"_" * 7])


TEXT = "\n".join(
    [
        "# newdoc id = a",
        "# text = I don't, really.",
        line("1", "I", "I"),
        line("2-3", "don't", "_"),
        line("2", "do", "do"),
        line("3", "n't", "not"),
        line("3.1", "go", "go"),
        line("4", ",", ","),
        line("5", "really", "really"),
        line("6", ".", "."),
        "",
        line("1", "Cats", "cat"),
        line("2", "ran", "run"),
        "",
    ]
)


@pytest.mark.parametrize("pack", [lambda content: content, gzip.compress])
def test_words_lemmas_and_text(tmp_path, pack):
    found = read_conllu(ReadFile(tmp_path / "a.conllu", pack(TEXT.encode())))
    assert found == [
        Sentence("I don't, really.", ("I", "do", "n't", ",", "really", "."), ("I", "do", "not", ",", "really", ".")),
        Sentence("Cats ran", ("Cats", "ran"), ("cat", "run")),
    ]


def test_lines_of_windows_and_a_missing_last_line(tmp_path):
    content = TEXT.replace("\n", "\r\n").rstrip("\r\n").encode()
    assert len(read_conllu(ReadFile(tmp_path / "a", content))) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no sentence"),
        (b"# text = nothing\n\n", "holds no sentence"),
        (b"<html>404</html>", "line 1 has 1 columns"),
        (TEXT.replace("2\tran", "x\tran").encode(), "line 13 starts with 'x'"),
        (b"\xff\xfe\x00", r"is no UTF-8 text \(byte 0\)"),
        (gzip.compress(TEXT.encode())[:-9], "is damaged gzip data"),
    ],
)
def test_what_is_no_such_file(tmp_path, content, said):
    with pytest.raises(DataError, match=f"{said}.*: expected a CoNLL-U file"):
        read_conllu(ReadFile(tmp_path / "a.conllu", content))


@pytest.fixture(scope="module")
def treebank():
    """The real sentences, by file."""
    found = find(UD, download=False)
    return {name: read_conllu(found.read(name)) for name in UD.files}


@real
def test_the_real_treebank_has_its_published_sizes(treebank):
    assert [len(sentences) for sentences in treebank.values()] == [12544, 2001, 2077]
    words = [sum(len(sentence.forms) for sentence in sentences) for sentences in treebank.values()]
    assert words == [204577, 25147, 25094]
    for sentences in treebank.values():
        assert all(len(s.forms) == len(s.lemmas) and all(s.forms) and s.text for s in sentences)
        assert all("\n" not in s.text and s.text == s.text.strip() for s in sentences)


@real
def test_real_words_are_written_and_read_as_the_same_words(treebank):
    for sentences in treebank.values():
        for sentence in sentences:
            words = pieces(sentence.text, "word")
            assert words and pieces(joined(words, "word"), "word") == words


@real
@pytest.mark.parametrize("unit", ["character", "word"])
def test_the_task_reads_the_real_treebank(treebank, unit):
    data = Text(source="ud", unit=unit, length=32, held_out=20).load()
    vocabulary = vocabulary_of(data.source)
    train, _, test = ([[*pieces(s.text, unit), "\n"] for s in sentences] for sentences in treebank.values())
    tokens = sum(map(len, train))
    assert data.source["sizes"]["train"] == -(-(tokens - 1) // 32) and data.source["sizes"]["test"] == 20
    assert data.source["origin"] == "PYROFORMER_DATA" and len(data.source["files"]) == 3
    first = [token if token in vocabulary.places else UNKNOWN for sentence in test[:20] for token in sentence][:33]
    assert vocabulary.decode(data.test.x[0]) == joined(first[:32], unit)
    assert data.test.y[0].tolist() == vocabulary.encode(first[1:]).tolist()
    known = sum(token in vocabulary.places for sentence in train for token in sentence) / tokens
    assert known == 1 if unit == "character" else 0.7 < known < 0.9 and len(vocabulary) == 1000
