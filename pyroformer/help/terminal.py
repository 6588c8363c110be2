"""Texts for terminals, for pipes, and for `print`."""

from __future__ import annotations

import io
import re
import sys
import unicodedata
from typing import Any

from rich.console import Console

from .latex import GREEK, SUB, SUPER

WIDEST = 110
"""Columns at most: longer lines are hard to read."""

LETTERS = {sign: name for name, sign in GREEK.items() if not name.startswith("var")}
SIGNS = {"∼": "~", "∝": "prop. to", "≥": ">=", "≤": "<=", "→": "->", "−": "-", "·": "*", "×": "x", "∞": "infinity"}
SIGNS |= {"√": "sqrt", "∑": "sum", "∏": "prod", "…": "...", "∈": "in", "∪": "or", "ø": "oe"}
SIGNS |= {"←": "<-", "∇": "grad "}
SIGNS |= {"⊙": "*", "⊗": "(x)", "‖": "||"}
_SUPER = {raised: chr(letter).replace("⊤", "T") for letter, raised in SUPER.items()}
_SUB = {lowered: chr(letter) for letter, lowered in SUB.items()}


def as_text(renderable: Any, width: int = 100) -> str:
    """What a terminal of this width would show, without colours."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def tell(renderable: Any) -> None:
    """Print to the terminal; plain lines into a pipe, and where signs of formulas cannot be shown."""
    console = Console()
    encoding = sys.stdout.encoding or "utf-8"
    if console.is_terminal and encoding.lower().startswith("utf"):
        console.print(renderable)
    else:
        print(spelled(as_text(renderable, console.width), encoding))


def spelled(text: str, encoding: str) -> str:
    """A text without the signs that an encoding lacks: ``βᵢ²`` is ``beta_i^2`` in ASCII."""

    def fits(sign: str) -> bool:
        try:
            sign.encode(encoding)
        except UnicodeEncodeError:
            return False
        return True

    def script(found: re.Match[str], mark: str, table: dict[int, str]) -> str:
        if fits(found[0]):
            return found[0]
        plain = found[0].translate(table)
        return f"{mark}{plain}" if len(plain) == 1 else f"{mark}({plain})"

    for mark, table in (("^", _SUPER), ("_", _SUB)):
        signs = "".join(map(chr, table))
        text = re.sub(f"[{signs}]+", lambda found, m=mark, t=table: script(found, m, t), text)  # type: ignore[misc]
    foreign = {sign: name for sign, name in LETTERS.items() if not fits(sign)}
    letters = "".join(foreign)
    if letters:  # names of several letters are kept apart from their neighbours
        text = re.sub(rf"(?<=[^\W_])(?=[{letters}])|(?<=[{letters}])(?=[^\W_])", " ", text)
    return "".join(foreign.get(sign) or (sign if fits(sign) else _plain(sign, encoding)) for sign in text)


def _plain(sign: str, encoding: str) -> str:
    """A sign by others that mean it, a letter without its accent, or a question mark."""
    known = SIGNS.get(sign) or unicodedata.normalize("NFKD", sign)
    return known.encode(encoding, "ignore").decode(encoding) or "?"
