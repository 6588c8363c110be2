"""How a prior attends: the entropy of attention rows by layer and head, and the size of tokens by block."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

UNIFORM, ONE_HOT = 0.99, 0.1
"""A row is uniform above, and one-hot below, this share of the largest entropy that it could have."""


@dataclass(frozen=True)
class Rows:
    """The rows of one attention layer, over draws, inputs and queries that may see at least two keys, where finite.

    Args:
        name: The layer's, as that of its row site.
        entropy: Mean entropy by head, in nats.
        relative: By head, the mean of the entropy over the largest that a row could have, ``log T`` for ``T`` keys.
        uniform: By head, the share of rows above 0.99 of the largest entropy.
        one_hot: By head, the share of rows below 0.1 of it.
        most: The mean of the largest entropy, ``log T`` where every query sees all ``T`` tokens.
    """

    name: str
    entropy: tuple[float, ...]
    relative: tuple[float, ...]
    uniform: tuple[float, ...]
    one_hot: tuple[float, ...]
    most: float


class RowEntropies:
    r"""Adds up entropies of rows as a net runs, by layer and head.

    .. math:: H(a) = -\sum_j a_j \log a_j, \qquad 0 \le H(a) \le \log T
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def __call__(self, name: str, rows: Tensor, mask: Tensor | None) -> None:
        """Add rows ``[..., B, H, T, T]``; what they sum to is kept as ``[6, H]``."""
        rows = rows.detach().double()
        keys = rows.new_full(rows.shape, 1.0) if mask is None else mask.expand(rows.shape).double()
        most = keys.sum(-1).log()  # [..., B, H, T]
        whole = rows.isfinite().all(-1)  # not where scores overflow
        seen = (most > 0) & whole  # a query of one key has no choice
        entropy = torch.special.entr(rows.where(whole.unsqueeze(-1), 0.0)).sum(-1)
        share = torch.where(seen, entropy / most.where(seen, 1.0), 0.0)
        parts = (entropy * seen, share, (share > UNIFORM) & seen, (share < ONE_HOT) & seen, most * seen, seen)
        over = [d for d in range(entropy.dim()) if d != entropy.dim() - 2]
        sums = torch.stack([part.double().sum(over) for part in parts]).cpu()
        self.sums[name] = self.sums[name] + sums if name in self.sums else sums

    def result(self) -> tuple[Rows, ...]:
        """The layers, in the order in which they ran; those in which no query sees two keys are left out."""
        found = []
        for name, sums in self.sums.items():
            if not (sums[-1] > 0).all():
                continue
            entropy, relative, uniform, one_hot, most = (sums[:-1] / sums[-1]).tolist()
            figures = (tuple(entropy), tuple(relative), tuple(uniform), tuple(one_hot))
            found.append(Rows(name, *figures, sum(most) / len(most)))
        return tuple(found)


@dataclass(frozen=True)
class Size:
    """The root mean square of the entries of tokens: its quantiles over draws.

    Args:
        name: ``embedding`` for what enters the first block, else the block that they leave.
        low, median, high: The quantiles of 5, 50 and 95 %.
    """

    name: str
    low: float
    median: float
    high: float


class TokenSizes:
    """Gathers the root mean square of tokens as a net runs, one number a draw."""

    def __init__(self) -> None:
        self.found: dict[str, list[Tensor]] = {}

    def __call__(self, name: str, tokens: Tensor) -> None:
        """Add tokens ``[S, B, T, D]``, or ``[B, T, D]`` where they are the same for all draws."""
        drawn = tokens if tokens.dim() == 4 else tokens.unsqueeze(0)
        self.found.setdefault(name, []).append(drawn.detach().double().square().mean((1, 2, 3)).sqrt().cpu())

    def result(self) -> tuple[Size, ...]:
        """The blocks, in the order in which they ran, over the draws whose tokens are finite."""
        levels = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
        sizes = {name: torch.cat(values) for name, values in self.found.items()}
        sizes = {name: values[values.isfinite()] for name, values in sizes.items()}
        return tuple(Size(name, *v.quantile(levels).tolist()) for name, v in sizes.items() if len(v))
