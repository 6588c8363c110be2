"""Guides: approximate posteriors in families, over weights and over attention rows."""

from .delta import Delta
from .dirichlet_rows import DirichletRows
from .family import Contribution, Family, LatentSite
from .guide import Guide
from .mean_field import MeanField

__all__ = ["Contribution", "Delta", "DirichletRows", "Family", "Guide", "LatentSite", "MeanField"]
