"""Moments of the iterates of an optimisation, taken as they come."""

from __future__ import annotations

import torch
from torch import Tensor


class Iterates:
    r"""The mean and the variance of vectors so far, and the deviations of the last few.

    .. math:: \bar\theta_n = \bar\theta_{n-1} + \tfrac1n (\theta_n - \bar\theta_{n-1}), \qquad
              q_n = q_{n-1} + (\theta_n - \bar\theta_{n-1}) \odot (\theta_n - \bar\theta_n), \qquad
              d_n = \theta_n - \bar\theta_n

    so that :math:`q_n / n` is the second moment less the square of the mean, without the cancellation between the two.

    Args:
        like: A vector ``[P]`` of the kind that will come.
        rank: How many deviations are kept.

    Reference:
        Welford, 1962, "Note on a method for calculating corrected sums of squares and products".
    """

    def __init__(self, like: Tensor, rank: int):
        self.rank, self.count = rank, 0
        self.mean, self.squares = torch.zeros_like(like), torch.zeros_like(like)
        self.deviations = like.new_zeros(0, len(like))

    def with_next(self, value: Tensor) -> Iterates:
        """These iterates and one more."""
        found = Iterates(self.mean, self.rank)
        found.count = self.count + 1
        found.mean = self.mean + (value - self.mean) / found.count
        found.squares = self.squares + (value - self.mean) * (value - found.mean)
        found.deviations = torch.cat([self.deviations, (value - found.mean).unsqueeze(0)])[-self.rank :]
        return found

    @property
    def finite(self) -> bool:
        """Whether every number is."""
        return all(bool(torch.isfinite(part).all()) for part in self.tensors().values())

    @property
    def variance(self) -> Tensor:
        """``[P]``, over the number of iterates."""
        return self.squares.clamp(min=0) / self.count

    @property
    def factor(self) -> Tensor:
        r""":math:`D^\top / \sqrt{K - 1}`, ``[K, P]``, with ``K`` the number of deviations that there are."""
        return self.deviations / (len(self.deviations) - 1) ** 0.5

    def tensors(self) -> dict[str, Tensor]:
        """All of it but the count."""
        return {"mean": self.mean, "squares": self.squares, "deviations": self.deviations}

    def put(self, tensors: dict[str, Tensor], count: int) -> None:
        """Take up what `tensors` gave."""
        self.count = count
        for name, own in self.tensors().items():
            setattr(self, name, tensors[name].to(own))
