"""Inference: drivers that turn a model, a guide and data into a posterior, and what is asked of it."""

from .bounds import ELBO, Bound, ImportanceWeighted, Renyi
from .calibration import Calibrated, Calibration
from .checkpoint import Checkpoint
from .chees_hmc import CheesHMC
from .data import Data, DataError
from .decomposition import Decomposition, decompose
from .deep_ensemble import DeepEnsemble
from .draws_posterior import DrawsPosterior
from .driver import Driver
from .errors import InferenceError, Interrupted
from .files import WriteError
from .generation import Generation, generate
from .guide_posterior import GuidePosterior
from .hmc import HMC
from .importance import Importance, psis
from .ivon import IVON
from .laplace import Laplace, LaplacePosterior
from .library import Library
from .low_rank_posterior import LowRankPosterior
from .mclmc import MCLMC
from .mcmc import MCMC
from .minibatched import Minibatched
from .mixture_posterior import MixturePosterior
from .monitor import Monitor, RunMonitor
from .nuts import NUTS
from .objective import OnePassELBO, Terms
from .optimize import Optimizing
from .particle_bound import ParticleBound
from .point import MAP, ML
from .posterior import Posterior
from .prediction import ClassPrediction, RealPrediction
from .starting import PostHoc
from .stochastic_gradient import (
    SGHMC,
    SGLD,
    SGNHT,
    ConstantSteps,
    CyclicalSteps,
    DecreasingSteps,
    StepSchedule,
    StochasticGradientMCMC,
)
from .stored_draws import StoredDraws
from .svi import SVI
from .swag import SWAG
from .temperature_scaling import TemperatureScaling

__all__ = [
    "ELBO",
    "HMC",
    "IVON",
    "MAP",
    "MCLMC",
    "MCMC",
    "ML",
    "NUTS",
    "SGHMC",
    "SGLD",
    "SGNHT",
    "SVI",
    "SWAG",
    "Bound",
    "Calibrated",
    "Calibration",
    "Checkpoint",
    "CheesHMC",
    "ClassPrediction",
    "ConstantSteps",
    "CyclicalSteps",
    "Data",
    "DataError",
    "Decomposition",
    "DecreasingSteps",
    "DeepEnsemble",
    "DrawsPosterior",
    "Driver",
    "Generation",
    "GuidePosterior",
    "Importance",
    "ImportanceWeighted",
    "InferenceError",
    "Interrupted",
    "Laplace",
    "LaplacePosterior",
    "Library",
    "LowRankPosterior",
    "Minibatched",
    "MixturePosterior",
    "Monitor",
    "OnePassELBO",
    "Optimizing",
    "ParticleBound",
    "PostHoc",
    "Posterior",
    "RealPrediction",
    "Renyi",
    "RunMonitor",
    "StepSchedule",
    "StochasticGradientMCMC",
    "StoredDraws",
    "TemperatureScaling",
    "Terms",
    "WriteError",
    "decompose",
    "generate",
    "psis",
]
