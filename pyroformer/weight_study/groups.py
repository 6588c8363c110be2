"""The groups of parameters that a weight study looks at, and the globs that name them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

RULES = (
    ("LayerNorm weight", "*norm*.weight"),
    ("LayerNorm bias", "*norm*.bias"),
    ("biases", "*.bias"),
    ("positions", "*position*"),
    ("query", "*.query.weight"),
    ("key", "*.key.weight"),
    ("value", "*.value.weight"),
    ("output", "*.output.weight"),
    ("MLP in", "*.mlp.up.weight"),
    ("MLP out", "*.mlp.down.weight"),
    ("head", "head.weight"),
    ("embedding", "embedding.*"),
)
"""Names of groups and their globs; the first that matches a parameter has it."""

ORDER = (
    "embedding",
    "positions",
    "query",
    "key",
    "value",
    "output",
    "MLP in",
    "MLP out",
    "head",
    "LayerNorm weight",
    "LayerNorm bias",
    "biases",
)
"""In what order groups are shown: as a token meets them, and what is no matrix last."""


@dataclass(frozen=True)
class Group:
    """Parameters that play one part in a net.

    Args:
        name: What they are called.
        globs: Patterns that match these parameters and, behind those of the groups before it, no others.
        parameters: Their names.
    """

    name: str
    globs: tuple[str, ...]
    parameters: tuple[str, ...]


def groups_of(names: Iterable[str]) -> list[Group]:
    """The groups of a net's parameters, in the order in which their globs must stand in a map.

    What no rule knows, in nets of other libraries, is grouped by name without the numbers of layers.

    Args:
        names: The parameters' names.
    """
    names = list(names)
    found: dict[str, list[str]] = {name: [] for name, _ in RULES}
    for name in names:
        rule = next((group for group, glob in RULES if fnmatchcase(name, glob)), re.sub(r"(?<=\.)\d+(?=\.)", "*", name))
        found.setdefault(rule, []).append(name)
    known = dict(RULES)
    return [
        Group(group, (known[group],) if group in known else tuple(members), tuple(members))
        for group, members in found.items()
        if members
    ]


def shown(groups: Iterable[Group]) -> list[Group]:
    """Groups in the order in which they are shown."""
    place = {name: index for index, name in enumerate(ORDER)}
    return sorted(groups, key=lambda group: place.get(group.name, len(place)))
