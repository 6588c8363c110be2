"""Random numbers for chains: a stream for each of them, and one that they share."""

from __future__ import annotations

import torch
from torch import Tensor


class Streams:
    """Generators of ``K`` chains; what one chain gets depends on the seed and on its own number alone.

    Args:
        seed: Any whole number.
        chains: ``K``.
    """

    def __init__(self, seed: int, chains: int):
        self.own = [torch.Generator().manual_seed(seed * 1_000_003 + chain) for chain in range(chains)]
        self.shared = torch.Generator().manual_seed(seed * 1_000_003 + 1_000_002)
        self.fractions = 0

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers in the shape of ``[K, D]``, each row from the chain's own stream."""
        rows = [torch.randn(like.shape[1:], generator=own, dtype=like.dtype) for own in self.own]
        return torch.stack(rows).to(like.device)

    def uniform(self) -> Tensor:
        """A number in [0, 1) for each chain, from its own stream, ``[K]`` in float64."""
        return torch.stack([torch.rand((), generator=own, dtype=torch.float64) for own in self.own])

    def shared_uniform(self) -> float:
        """One number in [0, 1), for all chains."""
        return float(torch.rand((), generator=self.shared, dtype=torch.float64))

    def halton(self) -> float:
        r"""The next of 1/2, 1/4, 3/4, 1/8, 5/8, ...: numbers that fill (0, 1) more evenly than random ones.

        Reference:
            Halton, 1960, in base 2 (the sequence of van der Corput).
        """
        self.fractions += 1
        number, rest, place = 0.0, self.fractions, 0.5
        while rest:
            number, rest, place = number + place * (rest % 2), rest // 2, place / 2
        return number

    def state(self) -> Tensor:
        """Where all streams are: bytes ``[K + 2, ...]``, of which the last row counts the numbers of `halton`."""
        rows = [generator.get_state() for generator in (*self.own, self.shared)]
        counted = torch.zeros_like(rows[0])
        counted[:8] = torch.tensor([self.fractions]).view(torch.uint8)
        return torch.stack([*rows, counted])

    def restore(self, state: Tensor) -> None:
        """Go on from where `state` was taken."""
        *rows, counted = state
        for generator, row in zip((*self.own, self.shared), rows, strict=True):
            generator.set_state(row.clone())
        self.fractions = int(counted[:8].clone().view(torch.int64))
