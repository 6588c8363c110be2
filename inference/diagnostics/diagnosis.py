"""A posterior's chains, looked at from all sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...priors.improper import is_flat
from ..data import Inputs
from ..draws_posterior import DrawsPosterior
from ..posterior import Posterior
from .finding import Verdict
from .functions import functions
from .functions import weights as weights_of
from .passes import with_chains
from .quantity import Quantities, Quantity
from .table import Line, table
from .verdict import verdict

OF_ALL_DATA = ("log_density", "log_likelihood")


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What is known of the chains of a posterior.

    Args:
        chains: ``K``.
        draws: ``S`` of each.
        quantities: What was judged, by name.
        lines: Their table.
        statistics: What happened to the chains, ``[K, S]`` each.
        verdict: What is to be thought of them.
    """

    chains: int
    draws: int
    quantities: Quantities
    lines: list[Line]
    statistics: dict[str, Tensor]
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Verdict, table and size as plain data."""
        table = [line.to_dict() for line in self.lines]
        return {"chains": self.chains, "draws": self.draws, "verdict": self.verdict.to_dict(), "table": table}


def diagnose(
    posterior: Posterior,
    x: Inputs,
    y: Tensor,
    *,
    target_accept: float | None = None,
    max_tree_depth: int | None = None,
    energy_variance: float | None = None,
    guess: float | None = None,
    num_data: int = 1,
    weights: bool = False,
    seed: int = 0,
) -> Diagnosis:
    """Judge the chains of a posterior by functions of their draws, and by how they moved.

    Args:
        posterior: Draws of Markov chains.
        x, y: Probe examples ``[N, ...]``, of which the first 10 are looked at: validation or test examples.
        target_accept, max_tree_depth, energy_variance: The sampler's settings, default unknown.
        guess: The log-likelihood of guessing; default what the posterior says of it.
        num_data: How many training observations there are, default 1.
        weights: Whether every site has its lines in the table too, default False. They are not judged: weights have
            symmetries.
        seed: Of attention rows, where these are random given the draws.

    Raises:
        SettingError: The posterior is not one of chains, or these have fewer than 4 draws.
    """
    found = with_chains(posterior)
    statistics = {name: values.detach().cpu() for name, values in found.statistics.items()}
    whole = {name: Quantity(statistics[name]) for name in reversed(OF_ALL_DATA) if name in statistics}
    quantities = {**whole, **functions(found, x, y, seed=seed)}
    lines = table({**(weights_of(found) if weights else {}), **quantities})
    told = guess if guess is not None else found.info.get("guess_log_likelihood")
    said = verdict(
        lines,
        statistics,
        target_accept=target_accept,
        max_tree_depth=max_tree_depth,
        energy_variance=energy_variance,
        guess=None if told is None else float(told),
        num_data=num_data,
        flat=flat_draws(found),
        info=found.info,
    )
    if found.info.get("thinning", 1) > 1:  # how energies change is seen in successive transitions alone
        statistics.pop("energy", None)
    draws = next(iter(statistics.values())).shape[1]
    return Diagnosis(found.chains, draws, quantities, lines, statistics, said)


def flat_draws(posterior: DrawsPosterior) -> dict[str, Tensor]:
    """The draws ``[K, S, ...]`` of the weights whose prior is flat, by name."""
    model = posterior.model
    with torch.no_grad():
        laws = zip(model.sites, model.distributions().values(), strict=True)
        flat = [name for name, law in laws if is_flat(law)]
    held = [name for name in flat if name in posterior.draws]
    return posterior.by_chain(*held) if held else {}
