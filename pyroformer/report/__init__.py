"""Reports: what a comparison found as tables, plots and a page."""

from .columns import Cell, Column, best, cells, columns
from .html import write_html
from .plots import (
    attention_map,
    autocorrelation_lines,
    elbo_curves,
    energy_histograms,
    entropy_histograms,
    head_bars,
    method_styles,
    prior_posterior,
    rank_lines,
    regression_band,
    reliability_diagram,
    risk_coverage_curves,
    shift_curves,
    trace_lines,
    uncertainty_bars,
    validation_curves,
)
from .reading import reading
from .table import rich_table, write_csv, write_long_csv

__all__ = [
    "Cell",
    "Column",
    "attention_map",
    "autocorrelation_lines",
    "best",
    "cells",
    "columns",
    "elbo_curves",
    "energy_histograms",
    "entropy_histograms",
    "head_bars",
    "method_styles",
    "prior_posterior",
    "rank_lines",
    "reading",
    "regression_band",
    "reliability_diagram",
    "rich_table",
    "risk_coverage_curves",
    "shift_curves",
    "trace_lines",
    "uncertainty_bars",
    "validation_curves",
    "write_csv",
    "write_html",
    "write_long_csv",
]
