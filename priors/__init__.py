"""Priors: distributions over weights and over attention rows, and the map from site names to priors."""

from .base import PointEstimate, Prior, RowPrior, RowPriorModule, ScaledPrior, ScaleFamily, Site
from .cauchy import Cauchy
from .dirichlet import MaskedDirichlet
from .entrywise_mixture import EntrywiseMixture
from .exponential_power import ExponentialPower
from .generalized_normal import GeneralizedNormal
from .globs import assign
from .hierarchical import Hierarchical, HierarchicalPrior
from .hyperpriors import Gamma, HalfCauchy, Hyperprior, UniformScale
from .improper import Improper
from .laplace import Laplace
from .mixture import Mixture, ScaleMixture
from .normal import Normal
from .point import Fixed, Learned
from .rows import ContextualRows, FlatRows, MatchedUniformRows, SoftmaxRows
from .settings import SettingError, choice_name, describe, settings
from .student_t import StudentT
from .uniform import Uniform

__all__ = [
    "Cauchy",
    "ContextualRows",
    "EntrywiseMixture",
    "ExponentialPower",
    "Fixed",
    "FlatRows",
    "Gamma",
    "GeneralizedNormal",
    "HalfCauchy",
    "Hierarchical",
    "HierarchicalPrior",
    "Hyperprior",
    "Improper",
    "Laplace",
    "Learned",
    "MaskedDirichlet",
    "MatchedUniformRows",
    "Mixture",
    "Normal",
    "PointEstimate",
    "Prior",
    "RowPrior",
    "RowPriorModule",
    "ScaleFamily",
    "ScaleMixture",
    "ScaledPrior",
    "SettingError",
    "Site",
    "SoftmaxRows",
    "StudentT",
    "Uniform",
    "UniformScale",
    "assign",
    "choice_name",
    "describe",
    "settings",
]
