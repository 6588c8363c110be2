"""What the docstring of a class says, by section, with descriptions of settings looked up where they stand."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

from ..choices import KINDS
from .latex import prose, shown

SECTIONS = ("Args", "Attributes", "Raises", "Returns", "Reference", "Note", "Example")

_HEADING = re.compile(rf"^({'|'.join(SECTIONS)}):$", re.M)
_ENTRY = re.compile(r"^ {4}(\w[\w, ]*): ?(.*)$")
_ELSEWHERE = re.compile(r"(?:See|As for) `(\w+)`[.;,]?\s*(.*)", re.S)


@dataclass(frozen=True)
class Equation:
    """A displayed formula, as LaTeX."""

    latex: str

    @property
    def text(self) -> str:
        """As one line of text; the source where that cannot be had."""
        return shown(self.latex)


@dataclass(frozen=True)
class Docstring:
    """The docstring of one class, without marks.

    Args:
        summary: Its first paragraph.
        body: The paragraphs and the equations after that, in order.
        settings: What it says of each argument, as it is written.
        raises: When which error is raised.
        reference: The literature.
        example: YAML of its own, where an example cannot be made from the defaults.
    """

    summary: str = ""
    body: tuple[str | Equation, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)
    raises: dict[str, str] = field(default_factory=dict)
    reference: str = ""
    example: str = ""


@cache
def read(cls: type) -> Docstring:
    """The docstring that a class has of its own; an empty one where it has none."""
    own = vars(cls).get("__doc__") or ""
    if own.startswith(f"{cls.__name__}("):  # what `dataclass` writes
        own = ""
    start, *rest = _HEADING.split(inspect.cleandoc(own))
    sections = dict(zip(rest[::2], rest[1::2], strict=True))
    paragraphs = [_paragraph(text) for text in re.split(r"\n\s*\n", start) if text.strip()]
    summary = paragraphs.pop(0) if paragraphs and isinstance(paragraphs[0], str) else ""
    return Docstring(
        str(summary),
        tuple(paragraphs),
        _entries(sections.get("Args", "")),
        {name: prose(text) for name, text in _entries(sections.get("Raises", "")).items()},
        prose(sections.get("Reference", "")),
        inspect.cleandoc(sections.get("Example", "")),
    )


def equations(body: Iterable[str | Equation]) -> tuple[Equation, ...]:
    """The displayed formulas among paragraphs."""
    return tuple(part for part in body if isinstance(part, Equation))


def description(cls: type, setting: str) -> str:
    """What is said of a setting, in the class itself, in a base class, or in the class that these refer to.

    ``epochs: See `Optimizing`.`` stands for what `Optimizing` says of its own ``epochs``. Values are named as in YAML.
    Empty where nothing is said.
    """
    words = {"None": "null", "True": "true", "False": "false"}
    return re.sub(r"\b(None|True|False)\b", lambda found: words[found[0]], prose(_described(cls, setting, set())))


def _described(cls: type, setting: str, seen: set[type]) -> str:
    seen.add(cls)
    for base in cls.__mro__:
        said = read(base).settings.get(setting)
        if said is None:
            continue
        there = _ELSEWHERE.fullmatch(said)
        owner = _find(there[1], cls) if there else None
        if there is None or owner is None or owner in seen:
            return said
        found = _described(owner, setting, seen)
        return f"{found} Here: {there[2]}" if there[2] else found
    return ""


def _find(name: str, cls: type) -> type | None:
    """A class by its name: one of the bases, of the modules they are from, or of the choices."""
    known = {found.__name__: found for kind in KINDS.values() for found in kind.classes().values()}
    for base in reversed(cls.__mro__):
        known |= {n: v for n, v in vars(inspect.getmodule(base) or type(None)).items() if isinstance(v, type)}
    known |= {base.__name__: base for base in cls.__mro__}
    return known.get(name)


def _paragraph(text: str) -> str | Equation:
    mark = ".. math::"
    return Equation(" ".join(text.strip()[len(mark) :].split())) if text.strip().startswith(mark) else prose(text)


def _entries(section: str) -> dict[str, str]:
    """The entries ``name: text`` of a section; ``one, other: text`` is an entry for each."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if entry := _ENTRY.match(line):
            names = [name.strip() for name in entry[1].split(",")]
            found |= dict.fromkeys(names, entry[2].strip())
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found
