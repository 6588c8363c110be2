"""Parameters that stay numbers: trained, or left as they are."""

from __future__ import annotations

from dataclasses import dataclass

from .base import PointEstimate


@dataclass(frozen=True, kw_only=True)
class Fixed(PointEstimate):
    """The parameter keeps the value it has in the net."""

    @property
    def trained(self) -> bool:
        return False


@dataclass(frozen=True, kw_only=True)
class Learned(PointEstimate):
    """The parameter has no prior and is optimised with the guide's parameters (empirical Bayes)."""

    @property
    def trained(self) -> bool:
        return True
