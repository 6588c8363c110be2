"""Notebooks from their texts: each `NN_name.py` of this folder, in percent format, as an `.ipynb` without outputs."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import jupytext
import nbformat

FOLDER = Path(__file__).resolve().parent
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def texts(folder: Path = FOLDER) -> list[Path]:
    """The texts of the notebooks, in their order."""
    return sorted(folder.glob("[0-9][0-9]_*.py"))


def generated(text: str) -> str:
    """The notebook of a text, as the content of its file: the same text gives the same bytes on every machine.

    A cell is named after what it says, so that a new cell leaves the names of the others as they are.
    """
    notebook = jupytext.reads(text, "py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        content = f"{cell.cell_type} {cell.source}"
        cell.id = hashlib.sha256(f"{seen[content]} {content}".encode()).hexdigest()[:8]
        cell.metadata = nbformat.from_dict({})
        seen[content] += 1
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


if __name__ == "__main__":
    for path in texts():
        content = generated(path.read_text(encoding="utf-8"))
        path.with_suffix(".ipynb").write_text(content, encoding="utf-8", newline="\n")
        print(path.with_suffix(".ipynb").name)
