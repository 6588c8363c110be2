"""Samplers of a density with a gradient: several chains in one process, with a state that can be saved."""

from .chains import Chains, Draw, Samples, collect
from .hmc import HMCKernel
from .kernel import Kernel, Transition, Tuning
from .microcanonical import MicrocanonicalKernel
from .nuts import NUTSKernel
from .streams import Streams
from .trajectory import TrajectoryKernel

__all__ = [
    "Chains",
    "Draw",
    "HMCKernel",
    "Kernel",
    "MicrocanonicalKernel",
    "NUTSKernel",
    "Samples",
    "Streams",
    "TrajectoryKernel",
    "Transition",
    "Tuning",
    "collect",
]
