"""Bounds on the evidence that a guide may be fitted to."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from ..guides.estimators import Estimator
from ..priors.settings import check
from .objective import OnePassELBO
from .particle_bound import ParticleBound


@dataclass(frozen=True, kw_only=True)
class Bound(ABC):
    """What SVI maximises: a bound on the log evidence, with its settings."""

    weighs_draws = True
    """Whether it weighs whole draws of the weights by their densities, several a step."""

    @abstractmethod
    def objective(self, temperature: float, particles: int, estimator: Estimator = "shared") -> OnePassELBO:
        """The objective, with so many draws a step; see `SVI` for the estimator, which those that weigh draws lack."""


@dataclass(frozen=True, kw_only=True)
class ELBO(Bound):
    r"""The evidence lower bound.

    .. math:: \mathcal L = E_q[\log p(y, w) - \log q(w)]

    Reference:
        Jordan et al., 1999, "An introduction to variational methods for graphical models".
    """

    weighs_draws = False

    def objective(self, temperature: float, particles: int, estimator: Estimator = "shared") -> OnePassELBO:
        return OnePassELBO(temperature=temperature, num_particles=particles, estimator=estimator)


@dataclass(frozen=True, kw_only=True)
class Renyi(Bound):
    r"""The variational Rényi bound, estimated with the ``K`` draws of a step.

    .. math:: \mathcal L_\alpha = \frac1{1 - \alpha} \log \frac1K \sum_k
              \Big(\frac{p(y, w_k)}{q(w_k)}\Big)^{1 - \alpha}, \qquad w_k \sim q

    The smaller :math:`\alpha`, the wider the posterior: towards 1 it is the ELBO's, which covers one mode from within;
    at 0 this is the importance-weighted bound; above 1 it is narrower still. For :math:`\alpha < 0` it is no lower
    bound. See `ParticleBound` for what holds with few draws and with minibatches.

    Args:
        alpha: :math:`\alpha`, any number but 1, default 0.5.

    Raises:
        SettingError: ``alpha`` is 1 or not finite.

    Reference:
        Li and Turner, 2016, "Rényi divergence variational inference", Eq. 10; the default is a reconstruction.

    Example:
        task: toy_regression
        driver:
          svi:
            bound:
              renyi:
                alpha: 0.5
            particles: 8
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        check(self, "alpha", math.isfinite(self.alpha), "a finite number other than 1")
        check(self, "alpha", self.alpha != 1, "a number other than 1, at which the bound is elbo")

    def objective(self, temperature: float, particles: int, estimator: Estimator = "shared") -> OnePassELBO:
        return ParticleBound(alpha=self.alpha, num_particles=particles)


@dataclass(frozen=True, kw_only=True)
class ImportanceWeighted(Bound):
    r"""The importance-weighted bound with the ``K`` draws of a step.

    .. math:: \mathcal L_K = E_q\Big[\log \frac1K \sum_k \frac{p(y, w_k)}{q(w_k)}\Big], \qquad w_k \sim q

    It grows with ``K`` from the ELBO towards the log evidence. What is fitted proposes draws to be weighted: it is
    wider than the ELBO's, and predictions, which do not weight, are those of the guide itself. It is `Renyi` at 0; the
    gradient is the plain reparameterised one, whose signal falls behind its noise as ``K`` grows.

    Reference:
        Burda, Grosse and Salakhutdinov, 2016, "Importance weighted autoencoders", Eq. 8.

    Example:
        task: toy_regression
        driver:
          svi:
            bound: importance_weighted
            particles: 8
    """

    def objective(self, temperature: float, particles: int, estimator: Estimator = "shared") -> OnePassELBO:
        return ParticleBound(alpha=0.0, num_particles=particles)
