"""Ranks in the place of values, so that statistics of chains need no moments."""

from __future__ import annotations

import torch
from torch import Tensor


def split_chains(values: Tensor) -> Tensor:
    """Each chain ``[K, S, M]`` as two, its first and its last half ``[2K, S // 2, M]``; a draw between is left out."""
    half = values.shape[1] // 2
    return torch.cat([values[:, :half], values[:, values.shape[1] - half :]])


def folded(values: Tensor) -> Tensor:
    """The distances ``[K, S, M]`` of draws from the median of all chains."""
    ordered = values.flatten(0, 1).sort(0).values
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return (values - median).abs()


def average_ranks(flat: Tensor) -> Tensor:
    """The ranks 1 to N of numbers ``[N, M]`` in their columns; equal numbers share the mean of theirs."""
    ordered, order = flat.sort(0)
    place = torch.arange(len(flat), dtype=torch.int64).unsqueeze(1).expand_as(order)
    new = torch.ones_like(order, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    last = new.roll(-1, 0)  # the first one is always new, and so is what stands before it
    begins = torch.where(new, place, 0).cummax(0).values
    ends = torch.where(last, place, len(flat) - 1).flip(0).cummin(0).values.flip(0)
    ranks = (begins + ends).double() / 2 + 1
    return torch.empty_like(ranks).scatter_(0, order, ranks)


def normal_scores(values: Tensor) -> Tensor:
    r"""Normal quantiles of the ranks of draws ``[K, S, M]`` among all of their quantity.

    .. math:: z = \Phi^{-1}\Big(\frac{r - 3/8}{N + 1/4}\Big)

    Reference:
        Vehtari, Gelman, Simpson, Carpenter and Bürkner, 2021, "Rank-normalization, folding, and localization", Eq. 14.
    """
    flat = values.flatten(0, 1)
    return torch.special.ndtri((average_ranks(flat) - 0.375) / (len(flat) + 0.25)).reshape(values.shape)
