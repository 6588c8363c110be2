"""Samplers of a density with a gradient: several chains in one process, with a state that can be saved."""

from .adaptation import Adaptation
from .adjusted_mclmc import AdjustedMCLMCKernel
from .chains import Chains, Draw, Samples, collect
from .chees import ChEESKernel
from .hmc import HMCKernel
from .kernel import Kernel, Moved, Transition, Tuning
from .mclmc import MCLMCKernel
from .metropolis import MetropolisKernel
from .nuts import NUTSKernel
from .snaper import SNAPERKernel
from .streams import Streams
from .trajectory import TrajectoryKernel

__all__ = [
    "Adaptation",
    "AdjustedMCLMCKernel",
    "ChEESKernel",
    "Chains",
    "Draw",
    "HMCKernel",
    "Kernel",
    "MCLMCKernel",
    "MetropolisKernel",
    "Moved",
    "NUTSKernel",
    "SNAPERKernel",
    "Samples",
    "Streams",
    "TrajectoryKernel",
    "Transition",
    "Tuning",
    "collect",
]
