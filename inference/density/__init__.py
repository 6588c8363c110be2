"""Densities: a Pyro model as a log-density, with gradient, of one vector of unconstrained numbers."""

from .flat_density import FlatDensity
from .layout import Layout
from .row_coordinates import LogEntries, RowCoordinates, StickBreaking

__all__ = ["FlatDensity", "Layout", "LogEntries", "RowCoordinates", "StickBreaking"]
