"""What is judged of chains: functions of their draws, by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

from torch import Tensor

from ...priors import SettingError


@dataclass(frozen=True, eq=False)
class Quantity:
    """A function of the draws of chains.

    Args:
        values: ``[K, S, ...]``.
        dims: The names of the axes behind the draws, default none.
        labels: The names of the places along an axis, by its name; numbers where there are none.
        judged: Whether convergence is judged by it, default True. Weights have symmetries, and are not.
    """

    values: Tensor
    dims: tuple[str, ...] = ()
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    judged: bool = True

    def __post_init__(self) -> None:
        if self.values.dim() != 2 + len(self.dims):
            expected = f"a name for each of the axes behind chains and draws of {tuple(self.values.shape)}"
            raise SettingError("dims", self.dims, expected)

    def places(self, name: str) -> list[str]:
        """The names of all entries, in the order of the flattened values: ``name[axis 1, other 0]``."""
        if not self.dims:
            return [name]
        axes = zip(self.dims, self.values.shape[2:], strict=True)
        each = [self.labels.get(dim) or [f"{dim} {index}" for index in range(size)] for dim, size in axes]
        return [f"{name}[{', '.join(place)}]" for place in product(*each)]


Quantities = dict[str, Quantity]


def by_chain(values: Tensor, chains: int) -> Tensor:
    """Draws ``[K S, ...]``, one chain after the other, as ``[K, S, ...]``.

    Raises:
        SettingError: The draws are not as many in every chain.
    """
    if chains < 1 or len(values) % chains:
        raise SettingError("chains", chains, f"a number of chains that {len(values)} draws can be split into")
    return values.unflatten(0, (chains, len(values) // chains))
