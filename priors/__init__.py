"""Priors: distributions over weights and over attention rows, and the map from site names to priors."""

from .ard import ARD
from .base import PointEstimate, Prior, RowPrior, RowPriorModule, ScaledPrior, ScaleFamily, Site
from .blocks import Blocks
from .cauchy import Cauchy
from .centers import (
    ContextualCenter,
    FlatCenter,
    LearnedCenter,
    MatchedUniformCenter,
    PositionalCenter,
    RowCenter,
    RowCenterModule,
    SoftmaxCenter,
)
from .correlated import CorrelatedPrior
from .dirichlet import MaskedDirichlet
from .empirical_bayes import EmpiricalBayes
from .entrywise_mixture import EntrywiseMixture
from .exponential_power import ExponentialPower
from .generalized_normal import GeneralizedNormal
from .globs import assign
from .hierarchical import Hierarchical
from .hierarchy import HierarchicalPrior
from .horseshoe import Horseshoe
from .hyperpriors import Gamma, HalfCauchy, Hyperprior, PrecisionGamma, UniformScale
from .improper import Improper
from .kronecker import Kronecker, KroneckerNormal, KroneckerT
from .laplace import Laplace
from .log_normal import LogNormal
from .matrix_normal import MatrixNormal
from .mixture import Mixture, ScaleMixture
from .multivariate_t import MultivariateT
from .normal import Normal
from .per_head import HeadBlocks, PerHead
from .point import Fixed, Learned
from .pretrained import Pretrained
from .random_scale import RandomScale
from .row_laws import (
    DirichletRows,
    GammaRows,
    GumbelSoftmaxRows,
    LogisticNormalRows,
    LogNormalRows,
    MaskedGamma,
    MaskedGumbelSoftmax,
    MaskedLogisticNormal,
    MaskedLogNormal,
    MaskedWeibull,
    RowLaw,
)
from .settings import SettingError, choice_name, describe, settings
from .spike_and_slab import SpikeAndSlab
from .student_t import StudentT
from .uniform import Uniform

__all__ = [
    "ARD",
    "Blocks",
    "Cauchy",
    "ContextualCenter",
    "CorrelatedPrior",
    "DirichletRows",
    "EmpiricalBayes",
    "EntrywiseMixture",
    "ExponentialPower",
    "Fixed",
    "FlatCenter",
    "Gamma",
    "GammaRows",
    "GeneralizedNormal",
    "GumbelSoftmaxRows",
    "HalfCauchy",
    "HeadBlocks",
    "Hierarchical",
    "HierarchicalPrior",
    "Horseshoe",
    "Hyperprior",
    "Improper",
    "Kronecker",
    "KroneckerNormal",
    "KroneckerT",
    "Laplace",
    "Learned",
    "LearnedCenter",
    "LogNormal",
    "LogNormalRows",
    "LogisticNormalRows",
    "MaskedDirichlet",
    "MaskedGamma",
    "MaskedGumbelSoftmax",
    "MaskedLogNormal",
    "MaskedLogisticNormal",
    "MaskedWeibull",
    "MatchedUniformCenter",
    "MatrixNormal",
    "Mixture",
    "MultivariateT",
    "Normal",
    "PerHead",
    "PointEstimate",
    "PositionalCenter",
    "PrecisionGamma",
    "Pretrained",
    "Prior",
    "RandomScale",
    "RowCenter",
    "RowCenterModule",
    "RowLaw",
    "RowPrior",
    "RowPriorModule",
    "ScaleFamily",
    "ScaleMixture",
    "ScaledPrior",
    "SettingError",
    "Site",
    "SoftmaxCenter",
    "SpikeAndSlab",
    "StudentT",
    "Uniform",
    "UniformScale",
    "assign",
    "choice_name",
    "describe",
    "settings",
]
