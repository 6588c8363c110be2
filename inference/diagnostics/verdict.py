"""What is to be thought of chains, from all that is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .drift import drift
from .exactness import exactness
from .finding import LEVELS, Finding, Verdict
from .learning import learning
from .mixing import mixing
from .moves import moves
from .table import Line


def verdict(
    lines: Sequence[Line],
    statistics: Mapping[str, Tensor],
    *,
    target_accept: float | None = None,
    max_tree_depth: int | None = None,
    energy_variance: float | None = None,
    guess: float | None = None,
    num_data: int = 1,
    flat: Mapping[str, Tensor] | None = None,
    info: Mapping[str, Any] | None = None,
) -> Verdict:
    """Tell in plain words what speaks for and against chains, with what to try next.

    Looked at are: whether anything was learnt, gradients that are no numbers, divergences, chains that stand still,
    acceptance, step sizes, tree depth, energies (E-BFMI), drift along flat directions, R-hat and effective sample sizes
    of functions, and whether the sampler is exact.

    Args:
        lines: The table of quantities; see `table`.
        statistics: What happened to the chains, ``[K, S]`` each: ``log_density``, ``log_likelihood``, ``energy``,
            ``acceptance``, ``divergent``, ``steps``, ``depth``, ``step_size``, as far as there are any.
        target_accept: The acceptance that steps were adapted to, default unknown.
        max_tree_depth: The most doublings of a trajectory, default unknown.
        energy_variance: Of unadjusted MCLMC, what steps were adapted to, default unknown.
        guess: The log-likelihood of guessing, default unknown.
        num_data: How many observations that is of, default 1.
        flat: The draws ``[K, S, ...]`` of sites whose prior is improper, by name, default none.
        info: What the posterior says of how it was found, default nothing: ``exact``, ``thinning``, ``transitions``,
            ``divergences_by_chain``, ``e_bfmi``, ``energy_variance``, ``temperature``, ``configurational_temperature``,
            as far as there is any.

    Returns:
        The findings, the worst first.

    Reference:
        Thresholds of R-hat and of effective sizes: Vehtari et al., 2021; of E-BFMI: Betancourt, 2017, "A conceptual
        introduction to Hamiltonian Monte Carlo". Those of drift, learning, steps and bias are ours.
    """
    found: list[Finding] = []
    chains = len(next(iter(statistics.values())))
    if "log_likelihood" in statistics:
        found += learning(statistics["log_likelihood"], guess, num_data)
    found += moves(
        statistics,
        target_accept=target_accept,
        max_tree_depth=max_tree_depth,
        energy_variance=energy_variance,
        info=info or {},
    )
    found += drift(flat or {}, statistics)
    found += mixing(lines, chains)
    found += exactness(info or {})
    return Verdict(tuple(sorted(found, key=lambda finding: -LEVELS.index(finding.level))))
