"""Markov chains that see a minibatch at a time: stochastic-gradient MCMC."""

from .driver import StochasticGradientMCMC
from .schedules import ConstantSteps, CyclicalSteps, DecreasingSteps, StepSchedule
from .sghmc import SGHMC
from .sgld import SGLD
from .sgnht import SGNHT

__all__ = [
    "SGHMC",
    "SGLD",
    "SGNHT",
    "ConstantSteps",
    "CyclicalSteps",
    "DecreasingSteps",
    "StepSchedule",
    "StochasticGradientMCMC",
]
