"""The map from names to choices: glob patterns, first match wins."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Mapping
from typing import TypeVar

from .settings import SettingError

T = TypeVar("T")


def near_misses(name: str, candidates: Iterable[str], most: int = 3) -> str:
    """``candidates`` that look like ``name``, as the tail of a message; empty when none does."""
    close = difflib.get_close_matches(name, list(candidates), n=most, cutoff=0.5)
    return "; did you mean " + " or ".join(close) + "?" if close else ""


def _branches(names: Iterable[str]) -> list[str]:
    """The globs of whole branches: ``blocks.*``, ``blocks.0.*``, ... for ``blocks.0.norm1.weight``."""
    parts = (name.split(".") for name in names)
    return list(dict.fromkeys(".".join([*path[:depth], "*"]) for path in parts for depth in range(1, len(path))))


def _some(names: Iterable[str], most: int = 6) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def assign(choices: Mapping[str, T], names: Iterable[str], *, kind: str = "site") -> dict[str, T]:
    """Give every name the choice of the first pattern that matches it.

    Args:
        choices: Patterns (``blocks.*.attention.*``) and their choices, in order.
        names: The names to cover.
        kind: What a name is, for messages.

    Returns:
        The choice of each name, in the order of ``names``.

    Raises:
        SettingError: A pattern matches no name, or no pattern covers a name.
    """
    names = list(names)
    for pattern in choices:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            expected = (
                f"a pattern that matches a {kind} among {_some(names)}" if names else f"no pattern: no {kind} here"
            )
            raise SettingError("", pattern, expected + near_misses(pattern, [*_branches(names), *names]))
    found = {}
    for name in names:
        hit = next((pattern for pattern in choices if fnmatch.fnmatchcase(name, pattern)), None)
        if hit is None:
            expected = f"a pattern that covers this {kind}; given are {_some(choices) or 'none'}"
            raise SettingError("", name, expected + near_misses(name, choices))
        found[name] = choices[hit]
    return found
