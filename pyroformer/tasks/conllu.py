"""CoNLL-U: sentences with their words, forms and lemmas, as Universal Dependencies publishes them."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass

from ..inference import DataError
from .idx import ReadFile
from .sources import Publication

COLUMNS = 10
UD = Publication(
    name="ud",
    files={f"en_ewt-ud-{part}.conllu.gz": None for part in ("train", "dev", "test")},
    advice="download UD English EWT from universaldependencies.org (CC BY-SA 4.0)",
)
"""Universal Dependencies, English Web Treebank; the published files may lie there unpacked."""


@dataclass(frozen=True)
class Sentence:
    """One sentence.

    Args:
        text: As it was written.
        forms: Its words, as they stand there.
        lemmas: Their dictionary forms.
    """

    text: str
    forms: tuple[str, ...]
    lemmas: tuple[str, ...]


def unpacked(file: ReadFile, what: str) -> str:
    """The text of a UTF-8 file, plain or gzip.

    Raises:
        DataError: It is damaged, or no text.
    """
    try:
        content = gzip.decompress(file.content) if file.content[:2] == b"\x1f\x8b" else file.content
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{file.path} is no UTF-8 text (byte {error.start}): expected {what}") from None
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{file.path} is damaged gzip data ({error}): expected {what}") from None


def read_conllu(file: ReadFile) -> list[Sentence]:
    """The sentences of a CoNLL-U file, plain or gzip.

    Words are the syntactic ones: of ``don't`` the lines ``do`` and ``n't`` count, and neither the line of the whole
    (``3-4``) nor empty nodes (``8.1``). Without a line ``# text =`` the text is the words with spaces between them.

    Raises:
        DataError: The file is damaged, or holds something else or nothing.

    Reference:
        Nivre et al., 2020, "Universal Dependencies v2", and universaldependencies.org/format.html.
    """
    what = f"a CoNLL-U file: lines of {COLUMNS} columns with tabs between them"
    found: list[Sentence] = []
    written, forms, lemmas = "", [], []  # type: str, list[str], list[str]
    for number, line in enumerate([*unpacked(file, what).split("\n"), ""], 1):
        if line.startswith("# text = "):
            written = line.removeprefix("# text = ").strip()
        elif not line.strip():
            if forms:
                found.append(Sentence(written or " ".join(forms), tuple(forms), tuple(lemmas)))
            written, forms, lemmas = "", [], []
        elif not line.startswith("#"):
            columns = line.split("\t")
            if len(columns) != COLUMNS:
                raise DataError(f"{file.path}, line {number} has {len(columns)} columns: expected {what}")
            if columns[0].isdigit():
                forms.append(columns[1])
                lemmas.append(columns[2])
            elif not columns[0].replace("-", ".").replace(".", "", 1).isdigit():
                raise DataError(f"{file.path}, line {number} starts with {columns[0]!r}: expected {what}")
    if not found:
        raise DataError(f"{file.path} holds no sentence: expected {what}")
    return found
