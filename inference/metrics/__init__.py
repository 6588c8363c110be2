"""Metrics of predictions, as functions of tensors.

``N`` examples, ``C`` classes, ``S`` samples, ``D`` outputs; ``[]`` is one number. Results are float64, logs natural."""

from .agreement import agreement, normal_wasserstein, total_variation
from .calibration import (
    Reliability,
    adaptive_calibration_error,
    calibration_error,
    classwise_calibration_error,
    reliability,
)
from .classification import accuracy, brier, negative_log_likelihood
from .detection import aupr, auroc, fpr_at_tpr
from .regression import interval_coverage, mixture_log_density, mixture_quantile, rmse
from .seeds import mean_and_standard_error
from .selective import aurc, risk_coverage
from .uncertainty import entropy, mutual_information, predictive_entropy

__all__ = [
    "Reliability",
    "accuracy",
    "adaptive_calibration_error",
    "agreement",
    "aupr",
    "aurc",
    "auroc",
    "brier",
    "calibration_error",
    "classwise_calibration_error",
    "entropy",
    "fpr_at_tpr",
    "interval_coverage",
    "mean_and_standard_error",
    "mixture_log_density",
    "mixture_quantile",
    "mutual_information",
    "negative_log_likelihood",
    "normal_wasserstein",
    "predictive_entropy",
    "reliability",
    "risk_coverage",
    "rmse",
    "total_variation",
]
