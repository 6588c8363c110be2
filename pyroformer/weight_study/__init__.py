"""What trained weights are like, and the prior that follows from it."""

from .files import study_weights, write_study
from .nets import Nets, read_weight_study
from .prior_map import prior_map
from .study import GroupStudy, WeightStudy, study_of

__all__ = [
    "GroupStudy",
    "Nets",
    "WeightStudy",
    "prior_map",
    "read_weight_study",
    "study_of",
    "study_weights",
    "write_study",
]
