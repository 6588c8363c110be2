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

    def state(self) -> Tensor:
        """Where all streams are: bytes ``[K + 1, ...]``."""
        return torch.stack([generator.get_state() for generator in (*self.own, self.shared)])

    def restore(self, state: Tensor) -> None:
        """Go on from where `state` was taken."""
        for generator, row in zip((*self.own, self.shared), state, strict=True):
            generator.set_state(row.clone())
