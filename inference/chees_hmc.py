"""Hamiltonian Monte Carlo whose trajectories are as long as warm-up finds best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..priors.settings import check, check_option
from .hmc import HMC
from .samplers import ChEESKernel, SNAPERKernel

KERNELS: dict[str, type[ChEESKernel]] = {"chees": ChEESKernel, "snaper": SNAPERKernel}


@dataclass(frozen=True, kw_only=True)
class CheesHMC(HMC):
    r"""Draws from the exact posterior by Hamiltonian trajectories whose length warm-up finds, on all data at once.

    .. math:: w_s \sim p(w \mid y)^{1/T} \propto \big(p(y \mid w)\, p(w)\big)^{1/T}

    The mean length climbs the change in the estimator of the expected square (ChEES), by the ends that all chains
    reach; they follow trajectories of the same number of steps.

    Args:
        num_samples, warmup_steps, thinning, minutes, temperature: See `MCMC`.
        compile, start, jitter, keep_rows: See `MCMC`.
        chains: How many, at least 2, from which lengths are learnt; default 4.
        length: Mean length of a trajectory where warm-up begins, in units of the whitened density, above 0, default
            1.5.
        length_jitter: Lengths are within this share of the mean, from 0 to 1, by Halton's sequence; default 1, as in
            the paper: from 0 to twice the mean.
        max_steps: Most steps of a trajectory, default 1000.
        criterion: ``chees`` (default), or ``snaper``: the length is chosen along the first principal component alone.
        target_accept: Acceptance, by the harmonic mean over chains, that the step size is adapted to, between 0 and 1,
            default 0.651, as in the paper.
        device, dtype: See `Driver`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Hoffman, Radul and Sountsov, 2021, "An adaptive MCMC scheme for setting trajectory lengths in Hamiltonian Monte
        Carlo"; Sountsov and Hoffman, 2022, "Focusing on difficult directions for learning HMC trajectory lengths"; see
        `ChEESKernel` and `SNAPERKernel`.
    """

    length_jitter: float = 1.0
    criterion: Literal["chees", "snaper"] = "chees"
    target_accept: float = 0.651

    def __post_init__(self) -> None:
        check_option(self, "criterion", KERNELS)
        super().__post_init__()
        check(self, "chains", self.chains >= 2, "at least 2 chains, from which lengths are learnt")

    @property
    def kernel(self) -> ChEESKernel:
        return KERNELS[self.criterion](
            length=self.length,
            jitter=self.length_jitter,
            max_steps=self.max_steps,
            target_accept=self.target_accept,
        )
