"""Stochastic-gradient Langevin dynamics."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...priors.settings import check
from .driver import StochasticGradientMCMC
from .motion import Motion, Surroundings, left_of


@dataclass(frozen=True, kw_only=True)
class SGLD(StochasticGradientMCMC):
    r"""Draws by gradient steps on minibatches with normal noise: stochastic-gradient Langevin dynamics.

    .. math:: z \leftarrow z - \frac{\epsilon_t}{2} \nabla \hat U(z) + \sqrt{\epsilon_t T}\, \xi, \qquad
              \xi \sim \mathcal N(0, I), \qquad \epsilon_t = \frac{2 \ell_t}{N}

    The step size :math:`\epsilon_t` of the paper is the variance of the noise; the learning rate :math:`\ell_t` is that
    of SGD on the loss per example, so that a value serves data of any number. In a direction of variance
    :math:`\sigma^2` the draws have :math:`\sigma^2 / (1 - \epsilon / 4 \sigma^2)`, and more by the noise of the
    minibatches; steps above :math:`\epsilon = 4 \sigma^2` diverge. No step is rejected.

    Args:
        num_samples, chains, epochs, batch_size, schedule: See `StochasticGradientMCMC`.
        learning_rate: :math:`\ell = N \epsilon / 2`, the largest, above 0, default 1e-3, which is small: chains
            diverge at rates that are too large, and get further with larger ones.
        temperature, start, jitter, validate_every, validation_samples: See `StochasticGradientMCMC`.
        subtract_noise: Whether the variance :math:`V` of the gradients is estimated from the halves of each minibatch,
            and the noise that is added is what is left, :math:`\epsilon T - \epsilon^2 V / 4` in each entry, at least
            0; default False. It needs a ``batch_size`` that is even.
        device, dtype: See `Driver`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Welling and Teh, 2011, "Bayesian learning via stochastic gradient Langevin dynamics", Eq. 4; what is subtracted:
        Ahn, Korattikara and Welling, 2012, "Bayesian posterior sampling via stochastic gradient Fisher scoring" (the
        idea; by entries here). Defaults are a reconstruction.
    """

    subtract_noise: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, "batch_size", not (self.subtract_noise and self.batch_size % 2), "an even number, to be halved")

    @property
    def estimates_noise(self) -> bool:
        return self.subtract_noise

    def move(self, motion: Motion, around: Surroundings) -> tuple[Tensor, Motion]:
        rate = around.rate
        scale = left_of(2 * rate * around.temperature, rate**2 * around.excess)
        return rate * around.force + scale * around.noise, motion
