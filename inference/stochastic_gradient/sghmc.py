"""Stochastic-gradient Hamiltonian Monte Carlo."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...priors.settings import check
from .driver import StochasticGradientMCMC
from .motion import Motion, Surroundings, left_of


@dataclass(frozen=True, kw_only=True)
class SGHMC(StochasticGradientMCMC):
    r"""Draws by stochastic-gradient Hamiltonian dynamics with friction: SGD with momentum, and noise to match.

    .. math:: m \leftarrow \beta m - h_t \nabla \hat U(z) + \sqrt{2 (1 - \beta) T}\, \xi, \qquad
              z \leftarrow z + h_t m, \qquad h_t = \sqrt{\ell_t / N}

    With the velocity :math:`v = h m` and a constant rate that is Eq. 15 of the paper, whose :math:`\eta` is
    :math:`\ell / N` and whose :math:`\alpha` is :math:`1 - \beta`; steps of SGD with momentum have the same
    :math:`\ell` and :math:`\beta`, and lead about :math:`1 / (1 - \beta)` times as far as those of `SGLD`. At
    :math:`\beta = 0` it is SGLD. The mean square of the momentum, the kinetic temperature, is near :math:`T` where the
    noise is right.

    Args:
        num_samples, chains, epochs, batch_size, schedule: See `StochasticGradientMCMC`.
        learning_rate: :math:`\ell`, the largest, above 0, default 1e-4, which is small: chains diverge at rates that
            are too large, and get further with larger ones.
        momentum: :math:`\beta`, at least 0 and below 1, default 0.9.
        temperature, start, jitter, validate_every, validation_samples: See `StochasticGradientMCMC`.
        subtract_noise: Whether the variance :math:`V` of the gradients is estimated from the halves of each minibatch,
            and the noise that is added is what is left, :math:`2 (1 - \beta) T - h^2 V` in each entry, at least 0;
            default False. It needs a ``batch_size`` that is even.
        device, dtype: See `Driver`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Chen, Fox and Guestrin, 2014, "Stochastic gradient Hamiltonian Monte Carlo", Eqs. 13 and 15; in these symbols,
        and the temperatures: Wenzel et al., 2020, "How good is the Bayes posterior in deep neural networks really"
        (arXiv 2002.02405), Algorithm 1. Defaults are a reconstruction.
    """

    learning_rate: float = 1e-4
    momentum: float = 0.9
    subtract_noise: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, "momentum", 0 <= self.momentum < 1, "a number of at least 0 and below 1")
        check(self, "batch_size", not (self.subtract_noise and self.batch_size % 2), "an even number, to be halved")

    @property
    def estimates_noise(self) -> bool:
        return self.subtract_noise

    @property
    def first_friction(self) -> float:
        return 1 - self.momentum

    def move(self, motion: Motion, around: Surroundings) -> tuple[Tensor, Motion]:
        step = around.rate**0.5
        scale = left_of(2 * (1 - self.momentum) * around.temperature, around.rate * around.excess)
        momentum = self.momentum * motion.momentum + step * around.force + scale * around.noise
        return step * momentum, motion._replace(momentum=momentum)
