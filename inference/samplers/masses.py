"""Masses of the parameters, from the variances that chains have shown."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def windows(steps: int) -> tuple[int, tuple[int, ...]]:
    """When variances are taken during warm-up: where the first window begins, and where each ends.

    Windows double their length; before and after them the step size alone is adapted. Warm-ups that are too short for
    the usual 75 + 25 + 50 steps give 15 % to the beginning and 10 % to the end; below 20 steps there is no window.

    Args:
        steps: Those of warm-up.

    Reference:
        Stan Development Team, "Stan reference manual", HMC algorithm parameters, automatic parameter tuning.
    """
    if steps < 20:
        return steps, ()
    before, length, after = (75, 25, 50) if steps >= 150 else (int(0.15 * steps), steps, int(0.1 * steps))
    last, begin, ends = steps - after, before, []
    while begin < last:
        end = begin + length
        if end + 2 * length > last:  # the next one would not fit
            end = last
        ends.append(end)
        begin, length = end, 2 * length
    return before, tuple(ends)


class Moments:
    """Running mean and variance of vectors ``[D]``, over time and over chains, in float64.

    Args:
        size: ``D``.

    Reference:
        Chan, Golub and LeVeque, 1983 (sums of several at once); the pull towards a small variance: that of Stan, which
        adds 5 vectors of variance 0.001.
    """

    PULL, SMALL = 5.0, 1e-3

    def __init__(self, size: int):
        self.count = 0
        self.mean = torch.zeros(size, dtype=torch.float64)
        self.squares = torch.zeros(size, dtype=torch.float64)

    def add(self, z: Tensor) -> None:
        """Take vectors ``[K, D]`` into account."""
        rows = z.detach().double().cpu()
        center = rows.mean(0)
        step, share = center - self.mean, len(rows) / (self.count + len(rows))
        self.squares = self.squares + (rows - center).square().sum(0) + self.count * share * step.square()
        self.mean = self.mean + share * step
        self.count += len(rows)

    def variance(self) -> Tensor:
        """The variance of each entry, pulled towards 0.001 as long as there are few vectors; at least 2 of them."""
        share = self.count / (self.count + self.PULL)
        return share * self.squares / (self.count - 1) + (1 - share) * self.SMALL

    def state(self) -> dict[str, Tensor]:
        """Everything that changes."""
        return {"count": torch.tensor(self.count), "mean": self.mean, "squares": self.squares}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where `state` was taken."""
        self.count, self.mean, self.squares = int(state["count"]), state["mean"].clone(), state["squares"].clone()


class Masses:
    """Variances of all chains in windows that double their length.

    Args:
        steps: Those of warm-up.
        size: ``D``.

    Attributes:
        count: Steps so far.
        begin: The first step, from 0, whose draws count.
        last: The number of steps after which the masses stay as they are, 0 without windows.
    """

    def __init__(self, steps: int, size: int):
        self.begin, self.ends = windows(steps)
        self.last = self.ends[-1] if self.ends else 0
        self.count, self.size = 0, size
        self.moments = Moments(size)

    def update(self, z: Tensor) -> bool:
        """Take positions ``[K, D]`` into account; whether they are in a window."""
        self.count += 1
        inside = self.begin < self.count <= self.last
        if inside:
            self.moments.add(z)
        return inside

    def found(self) -> Tensor | None:
        """The variances ``[D]`` where a window has just ended, else None."""
        if self.count not in self.ends or self.moments.count < 2:
            return None
        variance = self.moments.variance()
        self.moments = Moments(self.size)
        return variance

    def state(self) -> dict[str, Tensor]:
        """Everything that changes."""
        return {"steps": torch.tensor(self.count), **self.moments.state()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where `state` was taken."""
        self.count = int(state["steps"])
        self.moments.restore(state)
