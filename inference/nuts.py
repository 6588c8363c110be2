"""The no-U-turn sampler."""

from __future__ import annotations

from dataclasses import dataclass

from .mcmc import MCMC
from .samplers import NUTSKernel


@dataclass(frozen=True, kw_only=True)
class NUTS(MCMC):
    r"""Draws from the exact posterior by the no-U-turn sampler, on all data at once.

    .. math:: w_s \sim p(w \mid y)^{1/T} \propto \big(p(y \mid w)\, p(w)\big)^{1/T}

    Each trajectory goes on until it turns back. Chains go one after another, as far as each needs.

    Args:
        num_samples, warmup_steps, thinning, minutes, temperature: See `MCMC`.
        compile, start, jitter, keep_rows: See `MCMC`.
        chains: How many, default 1.
        target_accept: Acceptance that the step size is adapted to, between 0 and 1, default 0.8.
        max_tree_depth: Default 8: trajectories of at most 255 steps.
        device, dtype: See `Driver`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Hoffman and Gelman, 2014, "The no-U-turn sampler"; see `NUTSKernel`.
    """

    chains: int = 1
    target_accept: float = 0.8
    max_tree_depth: int = 8

    @property
    def kernel(self) -> NUTSKernel:
        return NUTSKernel(max_tree_depth=self.max_tree_depth, target_accept=self.target_accept)
