"""Reports: what a comparison found as tables, plots and a page."""

from .columns import Cell, Column, best, cells, columns
from .html import write_html
from .plots import elbo_curves, method_styles, regression_band, reliability_diagram, validation_curves
from .reading import reading
from .table import rich_table, write_csv, write_long_csv

__all__ = [
    "Cell",
    "Column",
    "best",
    "cells",
    "columns",
    "elbo_curves",
    "method_styles",
    "reading",
    "regression_band",
    "reliability_diagram",
    "rich_table",
    "validation_curves",
    "write_csv",
    "write_html",
    "write_long_csv",
]
