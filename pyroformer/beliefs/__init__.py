"""What a prior believes before any training: its functions, their attention, and what is wrong with them."""

from .classes import ClassBeliefs
from .page import write_beliefs
from .predictive import PriorPredictive, prior_predictive
from .reals import RealBeliefs
from .rows import Rows, Size

__all__ = [
    "ClassBeliefs",
    "PriorPredictive",
    "RealBeliefs",
    "Rows",
    "Size",
    "prior_predictive",
    "write_beliefs",
]
