"""Names that differ in a number, such as those of a net's blocks, as one glob."""

from __future__ import annotations

import fnmatch
from collections.abc import Hashable, Iterable, Mapping


def grouped(entries: Mapping[str, Hashable], among: Iterable[str]) -> dict[str, list[str]]:
    """Groups of names whose entries are equal, by a glob that matches them and no other name.

    Args:
        entries: What there is to say of each name; names that differ in it stay apart.
        among: Every name that a user's glob could match.

    Returns:
        The names of each group, by a glob that a map from globs would understand, in the order of the first names.
    """
    alike: dict[tuple[str, Hashable], list[str]] = {}
    for name, entry in entries.items():
        alike.setdefault((_numberless(name), entry), []).append(name)
    candidates = set(among)
    globs: dict[str, list[str]] = {}
    for (pattern, _), names in alike.items():
        tried = [pattern, _with_digits(names)] if len(names) > 1 else []
        fits = (glob for glob in tried if glob and set(fnmatch.filter(candidates, glob)) == set(names))
        glob = next(fits, None)
        globs |= {name: [name] for name in names} if glob is None else {glob: names}
    return globs


def _numberless(name: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def _with_digits(names: list[str]) -> str | None:
    """``blocks.[02].norm`` for names that differ in one digit, else None."""
    columns = [sorted(set(column)) for column in zip(*(name.split(".") for name in names), strict=True)]
    several = [column for column in columns if len(column) > 1]
    if len(several) != 1 or any(len(part) > 1 for part in several[0]):
        return None
    return ".".join(column[0] if len(column) == 1 else f"[{''.join(column)}]" for column in columns)
