"""Errors in a text that is read, to see how predictions fail as it moves away from what was learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .shifts import SEVERITIES

TextShiftKind = Literal["substitution", "erasure"]
KINDS = ("substitution", "erasure")
AMOUNTS = (0.02, 0.05, 0.1, 0.2, 0.4)
"""The share of the tokens that is changed, at severities 1 to 5."""


def substituted(x: Tensor, share: float, vocabulary: int, generator: torch.Generator) -> Tensor:
    r"""Each token by another one with probability :math:`p`, drawn uniformly among the known others.

    Args:
        x: Tokens ``[N, T]``; those that are not below ``vocabulary`` (padding) stay.
        share: :math:`p`, from 0 to 1.
        vocabulary: How many tokens there are, at least 3; 0 is the unknown one.
        generator: Of places and tokens; a larger share changes the same places and more.
    """
    chosen = torch.rand(x.shape, generator=generator) < share
    drawn = torch.randint(1, vocabulary - 1, x.shape, generator=generator)
    others = drawn + (drawn >= x).long()  # no token becomes itself
    # an unknown token has one other more
    others = torch.where(x > 0, others, torch.randint(1, vocabulary, x.shape, generator=generator))
    return torch.where(chosen & (x < vocabulary), others, x)


def erased(x: Tensor, share: float, vocabulary: int, generator: torch.Generator) -> Tensor:
    r"""Each token by the unknown one with probability :math:`p`; see `substituted`."""
    chosen = torch.rand(x.shape, generator=generator) < share
    return torch.where(chosen & (x < vocabulary), 0, x)


@dataclass(frozen=True)
class TextShift:
    """One kind of error at one severity: a function of tokens.

    Args:
        kind: ``substitution`` or ``erasure``.
        severity: 1 to 5; 0 changes nothing.
    """

    kind: TextShiftKind
    severity: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.severity not in (0, *SEVERITIES):
            raise ValueError(f"{self.name}: expected one of {', '.join(KINDS)}, and a severity from 0 to 5")

    @property
    def name(self) -> str:
        """As sets are called: ``substitution-3``."""
        return f"{self.kind}-{self.severity}"

    @property
    def amount(self) -> float | None:
        """The share of the tokens that is changed; None at severity 0."""
        return AMOUNTS[self.severity - 1] if self.severity else None

    def __call__(self, x: Tensor, vocabulary: int, seed: int = 0) -> Tensor:
        """Tokens ``[N, T]``, changed; severities of one kind share their random numbers.

        Args:
            x: Tokens.
            vocabulary: See `substituted`.
            seed: Of places and tokens; the global random state is left alone.
        """
        if self.amount is None:
            return x
        generator = torch.Generator().manual_seed((1 + KINDS.index(self.kind) << 32) + seed)
        change = substituted if self.kind == "substitution" else erased
        return change(x, self.amount, vocabulary, generator)
