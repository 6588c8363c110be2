"""Guides: approximate posteriors in families, over weights and over attention rows."""

from .concrete_dropout import ConcreteDropout
from .counting import ParameterCounts, Shared, count_parameters
from .delta import Delta
from .dirichlet_rows import DirichletRows
from .family import Contribution, Family, LatentSite
from .flow import Flow
from .full_rank import FullRank
from .guide import Guide
from .joint import JointFamily
from .low_rank import LowRank
from .matrix_normal import MatrixNormal
from .mc_dropout import MCDropout
from .mean_field import MeanField
from .plug_in_rows import PlugInRows
from .radial import Radial

__all__ = [
    "ConcreteDropout",
    "Contribution",
    "Delta",
    "DirichletRows",
    "Family",
    "Flow",
    "FullRank",
    "Guide",
    "JointFamily",
    "LatentSite",
    "LowRank",
    "MCDropout",
    "MatrixNormal",
    "MeanField",
    "ParameterCounts",
    "PlugInRows",
    "Radial",
    "Shared",
    "count_parameters",
]
