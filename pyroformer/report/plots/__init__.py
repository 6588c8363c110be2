"""Plots of predictions, of posteriors and of training. Each function draws on the axes it is given and returns them."""

from .attention import attention_map, head_bars
from .autocorrelation import autocorrelation_lines
from .differences import difference_lines
from .energies import energy_histograms
from .entropy import entropy_histograms
from .prior_posterior import prior_posterior
from .ranks import rank_lines
from .regression import regression_band
from .reliability import reliability_diagram
from .risk_coverage import risk_coverage_curves
from .shift import shift_curves
from .style import method_styles
from .traces import trace_lines
from .training import elbo_curves, validation_curves
from .uncertainty import uncertainty_bars

__all__ = [
    "attention_map",
    "autocorrelation_lines",
    "difference_lines",
    "elbo_curves",
    "energy_histograms",
    "entropy_histograms",
    "head_bars",
    "method_styles",
    "prior_posterior",
    "rank_lines",
    "regression_band",
    "reliability_diagram",
    "risk_coverage_curves",
    "shift_curves",
    "trace_lines",
    "uncertainty_bars",
    "validation_curves",
]
