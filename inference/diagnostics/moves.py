"""Findings about how chains moved: divergences, steps, acceptance, energies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from .energy import e_bfmi
from .finding import Finding, number, percent, which_chains

MANY_DIVERGENCES = 0.02
"""A share of divergent transitions from which draws are not to be relied upon."""
LONG_STAND = 0.2
"""A share of all draws for which a chain may stand still in one go."""
FAR = 0.15
"""From the acceptance that was asked for."""
SMALL_STEP, TINY_STEP = 1e-4, 1e-6
SATURATED = 0.05
LOW_ENERGY = 0.3
TARGETS = (0.9, 0.95, 0.99)
"""Acceptances to ask for where chains diverge."""

Statistics = Mapping[str, Tensor]
"""What happened to chains, ``[K, S]`` each: see `DrawsPosterior`."""
Info = Mapping[str, Any]
NOTHING: Info = MappingProxyType({})


def moves(
    statistics: Statistics,
    *,
    target_accept: float | None = None,
    max_tree_depth: int | None = None,
    energy_variance: float | None = None,
    info: Info = NOTHING,
) -> Iterator[Finding]:
    """What is to be said of the transitions of chains.

    Args:
        statistics: ``divergent``, ``log_density``, ``acceptance``, ``step_size``, ``depth``, ``energy`` (a
            Hamiltonian), as far as there are any.
        target_accept: The acceptance that the step size was adapted to, or None.
        max_tree_depth: Doublings of a trajectory at most, or None.
        energy_variance: That of unadjusted MCLMC, which the step size was adapted to, or None.
        info: ``thinning``, and of all transitions, those between the draws as well, ``transitions``,
            ``divergences_by_chain`` and ``e_bfmi``; as far as there is any.
    """
    stuck = stuck_chains(statistics)
    if energy_variance is None:
        energy_variance = info.get("energy_variance", NOTHING).get("asked")
    smaller = smaller_steps(target_accept, energy_variance)
    yield from _stuck(statistics, stuck)
    yield from _divergences(statistics, stuck, smaller, info)
    yield from _standing(statistics, stuck, smaller)
    yield from _acceptance(statistics, target_accept)
    yield from _steps(statistics)
    yield from _depth(statistics, max_tree_depth)
    yield from _energies(statistics, info)


def smaller_steps(target_accept: float | None, energy_variance: float | None) -> str:
    """What to set for smaller steps than those that a sampler was adapted to."""
    if energy_variance is not None:
        return f"a smaller energy_variance ({number(energy_variance / 10)})"
    if target_accept is None:
        return "a smaller step size"
    higher = [f"{value:g}" for value in TARGETS if value > target_accept][:2]
    return f"a higher target_accept ({' or '.join(higher)})" if higher else "a longer warm-up"


def stuck_chains(statistics: Statistics) -> list[int]:
    """The chains that never moved: their log-density is the same in every draw, or no number."""
    density = statistics.get("log_density")
    if density is None:
        return []
    still = ((density == density[:, :1]) | ~density.isfinite()).all(1)
    return still.nonzero().flatten().tolist()


def _stuck(statistics: Statistics, stuck: list[int]) -> Iterator[Finding]:
    if not stuck:
        return
    chains, divergent = len(statistics["log_density"]), statistics.get("divergent")
    who = which_chains(stuck, chains)
    never = f"{who} never moved"
    if divergent is not None and bool(divergent[stuck].all()):
        yield Finding(
            "bad",
            "gradient",
            f"{never} and every transition diverged: the gradient is probably NaN or infinite near the start",
            "look at the log-density and its gradient where chains start (float64, a masked row without a key, the "
            "root or logarithm of 0), then another start, or a longer warm-up",
        )
    else:
        yield Finding(
            "bad",
            "standing still",
            f"{never}: no proposal was accepted",
            "a longer warm-up, to find smaller steps, or another start",
        )


def _divergences(statistics: Statistics, stuck: list[int], smaller: str, info: Info) -> Iterator[Finding]:
    divergent = statistics.get("divergent")
    if divergent is None:
        return
    # a chain that did nothing else has a cause of its own
    others = [chain for chain in range(len(divergent)) if chain not in stuck or not divergent[chain].all()]
    if not others:
        return
    counts, each, told = divergent.sum(1).tolist(), divergent.shape[1], "transitions diverged"
    if "divergences_by_chain" in info:
        counts, each = info["divergences_by_chain"], info["transitions"] // len(divergent)
    elif info.get("thinning", 1) > 1:  # of several transitions that end in a draw, one divergence was kept
        told = "draws come after a divergent transition"
    count, total = sum(counts[chain] for chain in others), each * len(others)
    if not count:
        yield Finding("good", "divergences", f"none of {total} {told}")
        return
    share = count / total
    yield Finding(
        "bad" if share >= MANY_DIVERGENCES else "caution",
        "divergences",
        f"{count} of {total} {told} ({percent(share)}): there are places that the chains cannot enter, and draws miss "
        "them",
        f"{smaller}, then another form of the prior: non-centred scales, or a prior without a funnel",
    )


def _standing(statistics: Statistics, stuck: list[int], smaller: str) -> Iterator[Finding]:
    density = statistics.get("log_density")
    if density is None:
        return
    stands = {chain: longest_stand(density[chain]) for chain in range(len(density)) if chain not in stuck}
    long = {c: n for c, n in stands.items() if n >= max(10, LONG_STAND * density.shape[1])}
    if long:
        most = "" if len(long) == 1 else "at most "
        yield Finding(
            "caution",
            "standing still",
            f"{which_chains(list(long), len(density))} stood still for {most}{max(long.values())} of "
            f"{density.shape[1]} draws in one go",
            smaller,
        )


def longest_stand(values: Tensor) -> int:
    """The most draws in a row of ``[S]`` that are the same as the one before them."""
    longest = run = 0
    for same in (values[1:] == values[:-1]).tolist():
        run = run + 1 if same else 0
        longest = max(longest, run)
    return longest


def _acceptance(statistics: Statistics, target: float | None) -> Iterator[Finding]:
    acceptance = statistics.get("acceptance")
    if acceptance is None or target is None:
        return
    mean = float(acceptance.double().nan_to_num(0.0).mean())
    text = f"the mean acceptance is {mean:.2f}, where {target:.2f} was asked for"
    if mean < 0.1:
        yield Finding("bad", "acceptance", text, "a longer warm-up, to find smaller steps, or another start")
    elif mean < target - FAR:
        yield Finding("caution", "acceptance", text, "a longer warm-up: the step size is not adapted yet")
    elif mean > max(target + FAR, (1 + target) / 2 + 0.05):
        advice = "a longer warm-up, or a lower target_accept: larger steps would do, and cost less"
        yield Finding("caution", "acceptance", text, advice)
    else:
        yield Finding("good", "acceptance", text)


def _steps(statistics: Statistics) -> Iterator[Finding]:
    size = statistics.get("step_size")
    if size is None or "acceptance" not in statistics:  # a learning rate is small, and falls, as it is told to
        return
    least = float(size.double()[:, -1].min())
    if least < SMALL_STEP:
        yield Finding(
            "bad" if least < TINY_STEP else "caution",
            "step size",
            f"the step size shrank to {least:.1e}: the chains hardly move",
            "a longer warm-up and another start; where it shrinks again, the density has an edge, a spike, or a "
            "gradient that is no number",
        )


def _depth(statistics: Statistics, most: int | None) -> Iterator[Finding]:
    depth = statistics.get("depth")
    if depth is None or most is None:
        return
    share = float((depth >= most).double().mean())
    if share > SATURATED:
        yield Finding(
            "caution",
            "tree depth",
            f"{percent(share)} of the trajectories were cut off at the largest tree depth, {most}",
            f"max_tree_depth {most + 2}, which costs time; a tighter prior, or a longer warm-up for better masses",
        )


def _energies(statistics: Statistics, info: Info) -> Iterator[Finding]:
    energy, thinning = statistics.get("energy"), info.get("thinning", 1)
    if "e_bfmi" in info:
        found = torch.tensor([torch.nan if value is None else value for value in info["e_bfmi"]], dtype=torch.float64)
    elif energy is None or energy.shape[1] < 4:
        return
    elif thinning > 1:
        text = f"the E-BFMI is not known: of every {thinning} transitions the energy of one alone was kept"
        yield Finding("note", "energy", text)
        return
    else:
        found = e_bfmi(energy)
    low = (found < LOW_ENERGY).nonzero().flatten().tolist()
    if low:
        yield Finding(
            "caution",
            "energy",
            f"the E-BFMI of {which_chains(low, len(found))} is low (least {float(found[low].min()):.2f}, below "
            f"{LOW_ENERGY:g}): chains walk slowly through their energies and may not reach the tails",
            "a longer warm-up, lighter tails of the prior, or another form of its scales",
        )
    elif bool(torch.isfinite(found).any()):
        yield Finding("good", "energy", f"the E-BFMI is at least {number(float(found[found.isfinite()].min()))}")
