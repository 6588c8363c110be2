"""How long trajectories are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pyro.ops.stats import effective_sample_size
from torch import Tensor

from .kernel import Moved, Tuning

MOST_WATCHED = 128
"""Entries of a vector of which draws are kept to see how they forget: evenly spaced."""


class Lengths:
    """A length that stays as it is; others derive from it.

    Args:
        length: In units of the whitened density.

    Attributes:
        length: The present one.
    """

    def __init__(self, length: float):
        self.length = length

    def update(self, moved: Moved, tuning: Tuning) -> None:
        """Take a step of warm-up into account."""

    def watch(self, z: Tensor) -> None:
        """Take positions ``[K, D]`` within a window into account."""

    def renew(self, widths: Tensor, step_size: float) -> None:
        """A window has ended.

        Args:
            widths: Standard deviations ``[D]`` in units of the old masses, which are 1 in those of the new ones.
            step_size: What it has led to.
        """

    def finish(self) -> None:
        """Warm-up has ended."""

    def state(self) -> dict[str, Tensor]:
        """Everything that changes, beside what is in the tuning."""
        return {"length": torch.tensor(self.length, dtype=torch.float64)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where `state` was taken."""
        self.length = float(state["length"])


class Watched:
    """Positions of chains one after another, at some entries.

    Attributes:
        rows: ``[K, P]`` each.
    """

    def __init__(self) -> None:
        self.rows: list[Tensor] = []

    @staticmethod
    def entries(z: Tensor) -> Tensor:
        """Evenly spaced entries ``[K, P]`` of vectors ``[K, D]``."""
        return z[..., :: -(-z.shape[-1] // MOST_WATCHED)].clone()  # a view would keep all of z

    def autocorrelation_time(self) -> float:
        r"""The mean over entries and chains of the integrated autocorrelation time, in steps.

        .. math:: \tau = 1 + 2 \sum_{t \ge 1} \rho_t

        Each chain has its own mean: chains in different modes are not taken for slow ones.

        Reference:
            Geyer, 1992, "Practical Markov chain Monte Carlo" (where the sum ends).
        """
        draws = torch.stack(self.rows).double().flatten(1)
        draws = draws[:, draws.std(0) > 0]  # a chain that stays has no autocorrelation
        if draws.numel() == 0:
            return float(len(self.rows))
        times = len(draws) / effective_sample_size(draws.unsqueeze(0))
        return float(times.clamp(min=0.1).mean())  # where draws alternate the estimate may fall below 0

    def state(self) -> dict[str, Tensor]:
        return {"watched": torch.stack(self.rows)} if self.rows else {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.rows = list(state["watched"]) if "watched" in state else []


class AutocorrelatedLength(Lengths):
    r"""A length that is renewed at the end of every window but the first, by how fast its draws forget.

    .. math:: L \leftarrow L \sqrt{f \tau}

    The square root, the geometric mean of the old length and of :math:`f \tau L`, damps: :math:`\tau` falls at least as
    fast as :math:`L` grows, and without it lengths would alternate. In the first window masses are guesses, which say
    nothing about lengths among the masses that follow.

    Args:
        length: To begin with.
        factor: :math:`f`, default 0.3.

    Reference:
        Robnik, Cohn-Gordon and Seljak, 2025, "Metropolis adjusted microcanonical Hamiltonian Monte Carlo", whose tuning
        sets the length once, to :math:`0.3 \tau L`; a reconstruction.
    """

    FEWEST, MOST_CHANGE = 10, 2.0
    FEWEST_STEPS = 2
    """Steps of a mean trajectory at least: with one step, of any length, proposals would be those of a random walk."""

    def __init__(self, length: float, factor: float = 0.3):
        super().__init__(length)
        self.factor = factor
        self.watched = Watched()
        self.windows = 0

    def watch(self, z: Tensor) -> None:
        self.watched.rows.append(self.watched.entries(z))

    def renew(self, widths: Tensor, step_size: float) -> None:
        self.windows += 1
        if self.windows > 1 and len(self.watched.rows) >= self.FEWEST:
            change = (self.factor * self.watched.autocorrelation_time()) ** 0.5
            used = max(self.length, self.FEWEST_STEPS * step_size)
            self.length = used * min(self.MOST_CHANGE, max(1 / self.MOST_CHANGE, change))
        self.watched = Watched()

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "windows": torch.tensor(self.windows), **self.watched.state()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        self.windows = int(state["windows"])
        self.watched.restore(state)
