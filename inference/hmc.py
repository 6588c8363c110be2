"""Hamiltonian Monte Carlo with trajectories of a given length."""

from __future__ import annotations

from dataclasses import dataclass

from ..priors.settings import check
from .mcmc import MCMC
from .samplers import HMCKernel


@dataclass(frozen=True, kw_only=True)
class HMC(MCMC):
    r"""Draws from the exact posterior by Hamiltonian trajectories of a jittered length, on all data at once.

    .. math:: w_s \sim p(w \mid y)^{1/T} \propto \big(p(y \mid w)\, p(w)\big)^{1/T}

    All chains follow trajectories of the same number of steps, so their gradients are evaluated together.

    Args:
        num_samples, warmup_steps, chains, thinning, minutes, temperature: See `MCMC`.
        compile, start, jitter, keep_rows: See `MCMC`.
        length: Mean length of a trajectory, in units of the whitened density, above 0, default 1.5.
        length_jitter: Lengths are uniform within this share of it, from 0 to 1, default 0.5.
        max_steps: Most steps of a trajectory, default 1000.
        target_accept: Acceptance that the step size is adapted to, between 0 and 1, default 0.8.
        device, dtype: See `Driver`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Neal, 2011, "MCMC using Hamiltonian dynamics", Secs. 3.2 and 4.2.
    """

    length: float = 1.5
    length_jitter: float = 0.5
    max_steps: int = 1000
    target_accept: float = 0.8

    def __post_init__(self) -> None:
        check(self, "length_jitter", 0 <= self.length_jitter <= 1, "a number from 0 to 1")
        super().__post_init__()

    @property
    def kernel(self) -> HMCKernel:
        return HMCKernel(
            length=self.length,
            jitter=self.length_jitter,
            max_steps=self.max_steps,
            target_accept=self.target_accept,
        )
