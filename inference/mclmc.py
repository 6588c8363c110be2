"""Microcanonical Langevin Monte Carlo."""

from __future__ import annotations

from dataclasses import dataclass

from ..models import BayesianModel
from ..priors.settings import check
from .mcmc import MCMC
from .samplers import AdjustedMCLMCKernel, Kernel, MCLMCKernel

ONLY = {True: ("energy_variance", "steps_per_draw"), False: ("length_jitter", "max_steps", "target_accept")}
"""Settings of the other sampler, by ``adjusted``."""


@dataclass(frozen=True, kw_only=True)
class MCLMC(MCMC):
    r"""Draws by trajectories of constant speed in a direction that the gradient turns, on all data at once.

    .. math:: dz = M^{-1/2} u\, dt, \qquad
        du = \frac{(1 - u u^\top)\, M^{-1/2} g}{D - 1}\, dt, \qquad |u| = 1

    with the gradient :math:`g` of the log-density. Adjusted, ends of trajectories are accepted by the error of their
    energy, and draws are from the exact posterior. Unadjusted, every step is taken and the direction is forgotten
    little by little: draws have a bias, of second order in the step, which ``energy_variance`` keeps small. All chains
    go at once.

    Args:
        num_samples, warmup_steps, chains, thinning, minutes, temperature: See `MCMC`.
        compile, start, jitter, keep_rows: See `MCMC`.
        adjusted: Whether ends are accepted by their energy, default True.
        length: Mean length of a trajectory, or of the way on which a direction is forgotten, in units of
            :math:`D^{1/2}` in the whitened density, above 0: where warm-up begins. None (default): 2 adjusted, 1
            unadjusted.
        adapt_length: Whether warm-up adapts it, default True.
        length_jitter: Adjusted: lengths are uniform within this share of the mean, from 0 to 1, default 0.5.
        max_steps: Adjusted: most steps of a trajectory, default 1000.
        target_accept: Adjusted: acceptance that the step size is adapted to, between 0 and 1, default 0.9, as in the
            paper.
        energy_variance: Unadjusted: variance of the error of the energy of a step, by dimension, that the step size is
            adapted to, above 0, default 5e-4, as in the paper.
        steps_per_draw: Unadjusted: steps between two draws, of two gradients each, default 10.
        device, dtype: See `Driver`.

    Raises:
        SettingError: A setting is out of range, or belongs to the other sampler; or the model has one number alone.

    Reference:
        Robnik, Cohn-Gordon and Seljak, 2025, "Metropolis adjusted microcanonical Hamiltonian Monte Carlo"; Robnik and
        Seljak, 2023, "Fluctuation without dissipation: microcanonical Langevin Monte Carlo". The warm-up is a
        reconstruction; see `AdjustedMCLMCKernel` and `MCLMCKernel`.
    """

    adjusted: bool = True
    length: float | None = None
    adapt_length: bool = True
    length_jitter: float = 0.5
    max_steps: int = 1000
    target_accept: float = 0.9
    energy_variance: float = 5e-4
    steps_per_draw: int = 10

    def __post_init__(self) -> None:
        for key in ONLY[bool(self.adjusted)]:
            default = type(self).__dataclass_fields__[key].default
            name = "unadjusted" if self.adjusted else "adjusted"
            check(self, key, getattr(self, key) == default, f"{default}: it belongs to the {name} sampler")
        check(self, "length_jitter", 0 <= self.length_jitter <= 1, "a number from 0 to 1")
        super().__post_init__()

    def refusal(self, model: BayesianModel) -> str | None:
        if reason := super().refusal(model):
            return reason
        numbers = sum(value.numel() for value in model.initial_values().values())
        return None if numbers > 1 else "a model with at least two random numbers: a direction has no other to turn to"

    @property
    def kernel(self) -> Kernel:
        length = {} if self.length is None else {"length": self.length}
        if not self.adjusted:
            return MCLMCKernel(
                energy_variance=self.energy_variance,
                **length,
                adapt_length=self.adapt_length,
                steps_per_draw=self.steps_per_draw,
            )
        return AdjustedMCLMCKernel(
            **length,
            adapt_length=self.adapt_length,
            jitter=self.length_jitter,
            max_steps=self.max_steps,
            target_accept=self.target_accept,
        )
