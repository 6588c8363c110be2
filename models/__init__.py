"""Models: transformers as Pyro models."""

from .attention import Attention
from .embeddings import Features, Image, Input, Pair, Series, Tokens
from .encoder_decoder import EncoderDecoder
from .layers import LayerNorm, Linear, linear
from .lifting import BayesianModel
from .likelihoods import Categorical, Gaussian, Likelihood
from .listing import SampleSite, sample_sites
from .transformer import Backbone, Output, Transformer

__all__ = [
    "Attention",
    "Backbone",
    "BayesianModel",
    "Categorical",
    "EncoderDecoder",
    "Features",
    "Gaussian",
    "Image",
    "Input",
    "LayerNorm",
    "Likelihood",
    "Linear",
    "Output",
    "Pair",
    "SampleSite",
    "Series",
    "Tokens",
    "Transformer",
    "linear",
    "sample_sites",
]
