"""Priors: distributions over weights and over attention rows, and the map from site names to priors."""

from .base import PointEstimate, Prior, RowPrior, RowPriorModule, Site
from .dirichlet import MaskedDirichlet
from .globs import assign
from .improper import Improper
from .normal import Normal
from .point import Fixed, Learned
from .rows import ContextualRows, FlatRows, MatchedUniformRows, SoftmaxRows
from .settings import SettingError, choice_name, describe, settings

__all__ = [
    "ContextualRows",
    "Fixed",
    "FlatRows",
    "Improper",
    "Learned",
    "MaskedDirichlet",
    "MatchedUniformRows",
    "Normal",
    "PointEstimate",
    "Prior",
    "RowPrior",
    "RowPriorModule",
    "SettingError",
    "Site",
    "SoftmaxRows",
    "assign",
    "choice_name",
    "describe",
    "settings",
]
