"""CoNLL-U files: what is a word, and what is said of files that are none."""

import gzip

import pytest

from pyroformer.inference import DataError
from pyroformer.tasks.conllu import Sentence, read_conllu
from pyroformer.tasks.idx import ReadFile


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
