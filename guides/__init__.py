"""Guides: approximate posteriors in families, over weights and over attention rows."""

from .concrete_dropout import ConcreteDropout
from .counting import ParameterCounts, Shared, count_parameters
from .delta import Delta
from .dirichlet_rows import DirichletRows
from .family import Contribution, Family, LatentSite
from .guide import Guide
from .mc_dropout import MCDropout
from .mean_field import MeanField

__all__ = [
    "ConcreteDropout",
    "Contribution",
    "Delta",
    "DirichletRows",
    "Family",
    "Guide",
    "LatentSite",
    "MCDropout",
    "MeanField",
    "ParameterCounts",
    "Shared",
    "count_parameters",
]
