"""Diagnostics of Markov chains: how far draws are to be relied upon.

``K`` chains, ``S`` draws of each; statistics take ``[K, S, ...]`` and return ``[...]`` in float64."""

from .autocovariance import autocorrelation
from .datatree import to_datatree, write_netcdf
from .diagnosis import Diagnosis, diagnose
from .effective_size import ess_bulk, ess_mean, ess_tail
from .energy import e_bfmi
from .finding import Finding, Verdict
from .functions import functions, weights
from .loo import LeaveOneOut, loo
from .passes import pointwise_log_likelihood
from .quantity import Quantities, Quantity
from .r_hat import r_hat
from .standard_errors import mcse_mean, mcse_sd
from .table import Line, table
from .verdict import verdict

__all__ = [
    "Diagnosis",
    "Finding",
    "LeaveOneOut",
    "Line",
    "Quantities",
    "Quantity",
    "Verdict",
    "autocorrelation",
    "diagnose",
    "e_bfmi",
    "ess_bulk",
    "ess_mean",
    "ess_tail",
    "functions",
    "loo",
    "mcse_mean",
    "mcse_sd",
    "pointwise_log_likelihood",
    "r_hat",
    "table",
    "to_datatree",
    "verdict",
    "weights",
    "write_netcdf",
]
