"""Masses of the parameters, from the variances that chains have shown."""

from __future__ import annotations

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
        Welford, 1962; the pull towards a small variance: that of Stan, which adds 5 vectors of variance 0.001.
    """

    PULL, SMALL = 5.0, 1e-3

    def __init__(self, size: int):
        self.count = 0
        self.mean = torch.zeros(size, dtype=torch.float64)
        self.squares = torch.zeros(size, dtype=torch.float64)

    def add(self, z: Tensor) -> None:
        """Take vectors ``[K, D]`` into account."""
        for row in z.detach().double().cpu():
            self.count += 1
            step = row - self.mean
            self.mean = self.mean + step / self.count
            self.squares = self.squares + step * (row - self.mean)

    def variance(self) -> Tensor:
        """The variance of each entry, pulled towards 0.001 as long as there are few vectors; at least 2 of them."""
        share = self.count / (self.count + self.PULL)
        return share * self.squares / (self.count - 1) + (1 - share) * self.SMALL

    def state(self) -> dict[str, Tensor]:
        """Everything that changes."""
        return {"count": torch.tensor(self.count), "mean": self.mean, "squares": self.squares}

    @classmethod
    def restored(cls, state: dict[str, Tensor]) -> Moments:
        """What `state` was taken of."""
        moments = cls(len(state["mean"]))
        moments.count, moments.mean, moments.squares = int(state["count"]), state["mean"], state["squares"]
        return moments
