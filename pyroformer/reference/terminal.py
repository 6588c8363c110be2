"""Texts for terminals, for pipes, and for `print`."""

from __future__ import annotations

import io
import sys
from typing import Any

from rich.console import Console


def as_text(renderable: Any, width: int = 100) -> str:
    """What a terminal of this width would show, without colours."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def tell(renderable: Any) -> None:
    """Print to the terminal; into a pipe or a file, plain lines without spaces at their ends."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may have no sign for a letter of a formula
    console = Console()
    if console.is_terminal:
        console.print(renderable)
    else:
        print(as_text(renderable, console.width))
