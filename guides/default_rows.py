"""The family of rows that a spec means where it names none."""

from __future__ import annotations

from collections.abc import Mapping

from ..priors import RowPrior, choice_name
from .amortised_rows import AmortisedRows, families
from .dirichlet_rows import DirichletRows
from .weibull_rows import WeibullRows


def default_rows(priors: Mapping[str, RowPrior]) -> dict[str, AmortisedRows]:
    """Families for the attention rows of a model: each of the name of its prior, where there is one.

    Args:
        priors: The priors of rows, by site.

    Returns:
        ``{"*.rows": family}`` where one serves all, else families by site.
    """
    chosen = {name: _family_for(prior) for name, prior in priors.items()}
    made = {cls: cls() for cls in dict.fromkeys(chosen.values())}  # type: ignore[call-arg]
    return {"*.rows": next(iter(made.values()))} if len(made) == 1 else {name: made[c] for name, c in chosen.items()}


def _family_for(prior: RowPrior) -> type[AmortisedRows]:
    named = {choice_name(cls): cls for cls in families() if cls.space == prior.space}
    other = DirichletRows if prior.space == "simplex" else WeibullRows
    return named.get(choice_name(type(prior)), other)
