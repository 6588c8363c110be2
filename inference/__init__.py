"""Inference: drivers that turn a model, a guide and data into a posterior, and what is asked of it."""

from .calibration import Calibrated, Calibration
from .checkpoint import Checkpoint
from .data import Data, DataError
from .deep_ensemble import DeepEnsemble
from .draws_posterior import DrawsPosterior
from .driver import Driver
from .errors import InferenceError
from .files import WriteError
from .guide_posterior import GuidePosterior
from .importance import Importance, psis
from .library import Library
from .mixture_posterior import MixturePosterior
from .monitor import Monitor, RunMonitor
from .nuts import NUTS
from .objective import OnePassELBO, Terms
from .optimize import Optimizing
from .point import MAP, ML
from .posterior import Posterior
from .prediction import ClassPrediction, RealPrediction
from .starting import PostHoc
from .svi import SVI
from .temperature_scaling import TemperatureScaling

__all__ = [
    "MAP",
    "ML",
    "NUTS",
    "SVI",
    "Calibrated",
    "Calibration",
    "Checkpoint",
    "ClassPrediction",
    "Data",
    "DataError",
    "DeepEnsemble",
    "DrawsPosterior",
    "Driver",
    "GuidePosterior",
    "Importance",
    "InferenceError",
    "Library",
    "MixturePosterior",
    "Monitor",
    "OnePassELBO",
    "Optimizing",
    "PostHoc",
    "Posterior",
    "RealPrediction",
    "RunMonitor",
    "TemperatureScaling",
    "Terms",
    "WriteError",
    "psis",
]
