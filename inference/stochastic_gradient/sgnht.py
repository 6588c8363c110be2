"""The stochastic-gradient Nosé-Hoover thermostat."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...priors.settings import check
from .driver import StochasticGradientMCMC
from .motion import Motion, Surroundings


@dataclass(frozen=True, kw_only=True)
class SGNHT(StochasticGradientMCMC):
    r"""Draws by stochastic-gradient dynamics whose friction follows the temperature: a Nosé-Hoover thermostat.

    .. math:: m \leftarrow (1 - \alpha) m - h_t \nabla \hat U(z) + \sqrt{2 a T}\, \xi, \qquad
              z \leftarrow z + h_t m, \qquad
              \alpha \leftarrow \alpha + h_t^2 \Big(\frac{m^\top m}{D} - T\Big), \qquad h_t = \sqrt{\ell_t / N}

    Noise of minibatches that nobody measured heats the momentum; the friction :math:`\alpha` of a chain grows until its
    mean square is :math:`T` again. It corrects noise that is the same in all directions. With :math:`v = h m` these are
    the steps of the paper, whose :math:`\eta` is :math:`\ell / N` and whose :math:`a` and :math:`\alpha` are these.

    Args:
        num_samples, chains, epochs, batch_size, schedule: See `StochasticGradientMCMC`.
        learning_rate: :math:`\ell`, the largest, above 0, default 1e-4, which is small: chains diverge at rates that
            are too large, and get further with larger ones.
        diffusion: :math:`a`, the noise that is added, and the friction at the start, above 0 and below 1, default 0.1.
        temperature, start, jitter, validate_every, validation_samples: See `StochasticGradientMCMC`.
        device, dtype: See `Driver`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Ding, Fang, Babbush, Chen, Skeel and Neven, 2014, "Bayesian sampling using stochastic gradient thermostats",
        Algorithm 2. Defaults are a reconstruction.
    """

    learning_rate: float = 1e-4
    diffusion: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, "diffusion", 0 < self.diffusion < 1, "a number above 0 and below 1")

    @property
    def first_friction(self) -> float:
        return self.diffusion

    def move(self, motion: Motion, around: Surroundings) -> tuple[Tensor, Motion]:
        step, temperature = around.rate**0.5, around.temperature
        noise = (2 * self.diffusion * temperature) ** 0.5 * around.noise
        momentum = (1 - motion.friction.unsqueeze(-1)) * motion.momentum + step * around.force + noise
        heat = momentum.square().mean(-1) - temperature
        # without noise, in a stage that explores, the momentum is to be cold
        friction = motion.friction + around.rate * heat if temperature else motion.friction
        return step * momentum, Motion(momentum, friction)
