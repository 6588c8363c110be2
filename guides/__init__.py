"""Guides: approximate posteriors in families, over weights and over attention rows."""

from .counting import ParameterCounts, Shared, count_parameters
from .delta import Delta
from .dirichlet_rows import DirichletRows
from .family import Contribution, Family, LatentSite
from .guide import Guide
from .mean_field import MeanField

__all__ = [
    "Contribution",
    "Delta",
    "DirichletRows",
    "Family",
    "Guide",
    "LatentSite",
    "MeanField",
    "ParameterCounts",
    "Shared",
    "count_parameters",
]
