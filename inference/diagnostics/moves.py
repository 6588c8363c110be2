"""Findings about how chains moved: divergences, steps, acceptance, energies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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

Statistics = Mapping[str, Tensor]
"""What happened to chains, ``[K, S]`` each: see `DrawsPosterior`."""


def moves(
    statistics: Statistics, *, target_accept: float | None = None, max_tree_depth: int | None = None
) -> Iterator[Finding]:
    """What is to be said of the transitions of chains.

    Args:
        statistics: ``divergent``, ``log_density``, ``acceptance``, ``step_size``, ``depth``, ``energy`` (a Hamiltonian
            of successive transitions), as far as there are any.
        target_accept: The acceptance that the step size was adapted to, or None.
        max_tree_depth: Doublings of a trajectory at most, or None.
    """
    stuck = stuck_chains(statistics)
    yield from _stuck(statistics, stuck)
    smaller = "a smaller step size" if target_accept is None else "a higher target_accept (0.9 or 0.95)"
    yield from _divergences(statistics, stuck, smaller)
    yield from _standing(statistics, stuck, smaller)
    yield from _acceptance(statistics, target_accept)
    yield from _steps(statistics)
    yield from _depth(statistics, max_tree_depth)
    yield from _energies(statistics)


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
            "root or logarithm of 0), then another start or a smaller step size",
        )
    else:
        yield Finding(
            "bad",
            "standing still",
            f"{never}: no proposal was accepted",
            "a smaller step size, or a longer warm-up to find one",
        )


def _divergences(statistics: Statistics, stuck: list[int], smaller: str) -> Iterator[Finding]:
    divergent = statistics.get("divergent")
    if divergent is None:
        return
    # a chain that did nothing else has a cause of its own
    others = [chain for chain in range(len(divergent)) if chain not in stuck or not divergent[chain].all()]
    if not others:
        return
    found = divergent[others].double()
    share, count = float(found.mean()), int(found.sum())
    if not count:
        yield Finding("good", "divergences", f"none of {found.numel()} transitions diverged")
        return
    yield Finding(
        "bad" if share >= MANY_DIVERGENCES else "caution",
        "divergences",
        f"{count} of {found.numel()} transitions diverged ({percent(share)}): there are places that the chains cannot "
        "enter, and draws miss them",
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
        yield Finding("bad", "acceptance", text, "a longer warm-up, or a smaller step size")
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


def _energies(statistics: Statistics) -> Iterator[Finding]:
    energy = statistics.get("energy")
    if energy is None or energy.shape[1] < 4:
        return
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
