"""A prior from trained weights: the map of globs that a weight study leads to."""

from __future__ import annotations

from typing import Any

from .. import yamlfile
from ..priors import describe
from .groups import groups_of
from .study import WeightStudy

DIGITS = 4
"""Significant digits of fitted numbers in the file."""


def prior_map(found: WeightStudy) -> dict[str, Any]:
    """The winning family of every group with its fitted settings, by the globs of the group, as plain data.

    The families are centred where priors are: gains of LayerNorms at 1, all else at 0. Parameters that were not trained
    are ``fixed``; a group whose weights have no spread, or are too few to fit, is ``learned``.

    Raises:
        ValueError: The study is of changes, which no prior of weights describes.
    """
    if found.change:
        raise ValueError("the study is of changes of weights: expected one of weights")
    priors: dict[str, Any] = {name: "fixed" for name in found.fixed}
    by_name = {group.group.name: group for group in found.groups}
    # first match wins: in the order of the rules, not in that of the table
    for group in groups_of(name for one in found.groups for name in one.group.parameters):
        best = by_name[group.name].best
        choice = "learned" if best is None else rounded(describe(best.prior))
        priors |= dict.fromkeys(group.globs, choice)
    return priors


def rounded(content: Any) -> Any:
    """Plain data with numbers of four digits, and without settings that say nothing."""
    if isinstance(content, dict):
        return {key: rounded(value) for key, value in content.items() if (key, value) != ("scaling", "absolute")}
    if isinstance(content, list):
        return [rounded(value) for value in content]
    return float(f"{content:.{DIGITS}g}") if isinstance(content, float) else content


def prior_yaml(found: WeightStudy) -> str:
    """The map as the text of a YAML file."""
    head = "# Fitted to trained weights; families were chosen on nets of seeds left out.\n"
    return head + yamlfile.dump(prior_map(found))
