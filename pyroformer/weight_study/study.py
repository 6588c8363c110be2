"""What trained weights are like: moments, families, and correlations, group by group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..priors import describe
from .correlation import PERMUTATIONS, Correlation, heads_as_rows, row_correlation
from .groups import Group, groups_of, shown
from .held_out import FamilyFit, compared
from .moments import kurtosis_over_seeds
from .nets import Nets

FEWEST = 8
"""Weights of a group, over all nets, from which families are fitted."""


@dataclass(frozen=True, eq=False)
class GroupStudy:
    r"""The weights of one group, as deviations from the centre of their priors (1 for the gains of LayerNorms, else 0).

    Args:
        group: Its name, globs and parameters.
        n: Weights in one net.
        seeds: Nets.
        mean, sd: Of the deviations of all nets; the standard deviation is around the centre.
        relative_sd: The root mean square of the deviations over :math:`(2 / \text{fan-in})^{1/2}`: the scale of a
            normal prior with ``scaling: fan_in``.
        kurtosis, kurtosis_error: Mean over nets of the excess kurtosis, and its standard error.
        fits: The families, from the best to the worst; empty where weights have no spread or are too few.
        winner: The family of fewest numbers within two standard errors of the best; empty without fits.
        rows, columns: Of matrices, how correlated the rows are (units of the output) and the columns.
        heads: How correlated the parts of a projection are that belong to different heads.
        deviations: ``[n]`` of each net, for plots.
    """

    group: Group
    n: int
    seeds: int
    mean: float
    sd: float
    relative_sd: float
    kurtosis: float
    kurtosis_error: float
    fits: tuple[FamilyFit, ...]
    winner: str
    rows: Correlation | None
    columns: Correlation | None
    heads: Correlation | None
    deviations: tuple[Tensor, ...]

    @property
    def best(self) -> FamilyFit | None:
        """The winner's fit."""
        return next((fit for fit in self.fits if fit.family == self.winner), None)

    def over_normal(self) -> tuple[float, float]:
        """By how many nats a weight the winner is better than the normal family, and the larger of the two errors."""
        normal, best = next(fit for fit in self.fits if fit.family == "normal"), self.best
        assert best is not None
        return normal.behind - best.behind, max(normal.error, best.error)

    def to_dict(self) -> dict[str, Any]:
        """All numbers as plain data."""
        correlations = {"rows": self.rows, "columns": self.columns, "heads": self.heads}
        return {
            "group": self.group.name,
            "parameters": list(self.group.parameters),
            "n": self.n,
            "seeds": self.seeds,
            "mean": self.mean,
            "sd": self.sd,
            "relative_sd": self.relative_sd,
            "kurtosis": self.kurtosis,
            "kurtosis_error": self.kurtosis_error,
            "winner": self.winner,
            "fits": [
                {
                    "family": fit.family,
                    "prior": describe(fit.prior),
                    "held_out": fit.held_out,
                    "behind": fit.behind,
                    "error": fit.error,
                }
                for fit in self.fits
            ],
            "correlations": {name: vars(found) if found else None for name, found in correlations.items()},
        }


@dataclass(frozen=True, eq=False)
class WeightStudy:
    """What trained weights are like; it prints as text.

    Args:
        title: What was trained.
        change: Whether the weights less their start were looked at; else the weights themselves.
        groups: In the order in which a token meets them.
        fixed: Parameters that were not trained, and not looked at.
        spec: Of the nets, as plain data, without the seed.
    """

    title: str
    change: bool
    groups: tuple[GroupStudy, ...]
    fixed: tuple[str, ...]
    spec: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """All numbers as plain data."""
        return {
            "title": self.title,
            "change": self.change,
            "groups": [found.to_dict() for found in self.groups],
            "fixed": list(self.fixed),
            "spec": dict(self.spec),
        }

    def __rich__(self) -> Any:
        from .view import StudyView

        return StudyView(self)

    def __str__(self) -> str:
        from ..help.terminal import as_text

        return as_text(self)


def study_of(
    nets: Nets,
    *,
    change: bool = False,
    title: str = "",
    spec: Mapping[str, Any] | None = None,
    permutations: int = PERMUTATIONS,
) -> WeightStudy:
    """What the weights of nets are like.

    Args:
        nets: At least two nets of one structure.
        change: Look at the weights less their start, default False.
        title, spec: Kept as given.
        permutations: Of each matrix, for the null of correlations, default 99.
    """
    values = [{n: v.detach().double() for n, v in net.items() if n not in nets.fixed} for net in nets.weights]
    if change:
        pairs = zip(values, nets.starts, strict=True)
        values = [{n: v - start[n].double() for n, v in net.items()} for net, start in pairs]
    else:
        values = [{n: v - nets.sites[n].center for n, v in net.items()} for net in values]
    groups = shown(groups_of(values[0]))
    found = tuple(_group(group, values, nets, permutations) for group in groups)
    return WeightStudy(title, change, found, nets.fixed, spec or {})


def _group(group: Group, values: list[dict[str, Tensor]], nets: Nets, permutations: int) -> GroupStudy:
    seeds = [torch.cat([net[name].flatten() for name in group.parameters]) for net in values]
    pooled = torch.cat(seeds)
    relative = [net[n].flatten() * (nets.sites[n].fan_in / 2) ** 0.5 for net in values for n in group.parameters]
    spread = bool((pooled - pooled[0]).any())
    fits, winner = compared(seeds) if spread and len(pooled) >= FEWEST else ([], "")
    kurtosis, error = kurtosis_over_seeds(seeds)
    matrices = [(name, net[name]) for net in values for name in group.parameters if net[name].dim() == 2]
    heads = [
        heads_as_rows(matrix, nets.heads[name], inputs=name.endswith("output.weight"))
        for name, matrix in matrices
        if nets.heads.get(name, 1) > 1
    ]
    return GroupStudy(
        group=group,
        n=len(seeds[0]),
        seeds=len(seeds),
        mean=float(pooled.mean()),
        sd=float(pooled.square().mean().sqrt()),
        relative_sd=float(torch.cat(relative).square().mean().sqrt()),
        kurtosis=kurtosis,
        kurtosis_error=error,
        fits=tuple(fits),
        winner=winner,
        rows=row_correlation([matrix for _, matrix in matrices], permutations=permutations),
        columns=row_correlation([matrix.mT for _, matrix in matrices], permutations=permutations, seed=1),
        heads=row_correlation(heads, permutations=permutations, seed=2),
        deviations=tuple(seeds),
    )
