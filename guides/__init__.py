"""Guides: approximate posteriors in families, over weights and over attention rows."""

from .amortised_rows import AmortisedRows
from .concrete_dropout import ConcreteDropout
from .counting import ParameterCounts, Shared, count_parameters
from .default_rows import default_rows
from .delta import Delta
from .dirichlet_rows import DirichletRows
from .family import Contribution, Family, LatentSite
from .flow import Flow
from .full_rank import FullRank
from .guide import Guide
from .gumbel_softmax_rows import GumbelSoftmaxRows
from .joint import JointFamily
from .log_normal_rows import LogNormalRows
from .logistic_normal_rows import LogisticNormalRows
from .low_rank import LowRank
from .matrix_normal import MatrixNormal
from .mc_dropout import MCDropout
from .mean_field import MeanField
from .plug_in_rows import PlugInRows
from .radial import Radial
from .weibull_rows import WeibullRows

__all__ = [
    "AmortisedRows",
    "ConcreteDropout",
    "Contribution",
    "Delta",
    "DirichletRows",
    "Family",
    "Flow",
    "FullRank",
    "Guide",
    "GumbelSoftmaxRows",
    "JointFamily",
    "LatentSite",
    "LogNormalRows",
    "LogisticNormalRows",
    "LowRank",
    "MCDropout",
    "MatrixNormal",
    "MeanField",
    "ParameterCounts",
    "PlugInRows",
    "Radial",
    "Shared",
    "WeibullRows",
    "count_parameters",
    "default_rows",
]
