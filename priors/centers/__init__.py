"""Where priors over attention rows are centred: a weight for every entry, from nothing, positions, keys or scores."""

from .base import RowCenter, RowCenterModule
from .contextual import ContextualCenter
from .flat import FlatCenter
from .learned import LearnedCenter
from .matched_uniform import MatchedUniformCenter
from .positional import PositionalCenter
from .softmax import SoftmaxCenter

__all__ = [
    "ContextualCenter",
    "FlatCenter",
    "LearnedCenter",
    "MatchedUniformCenter",
    "PositionalCenter",
    "RowCenter",
    "RowCenterModule",
    "SoftmaxCenter",
]
