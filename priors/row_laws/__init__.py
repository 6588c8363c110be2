"""Laws of attention rows: distributions over the valid entries of a row, and the priors that scatter rows by them."""

from .base import RowLaw
from .dirichlet import DirichletRows
from .gamma import GammaRows, MaskedGamma
from .gumbel_softmax import GumbelSoftmaxRows, MaskedGumbelSoftmax
from .log_normal import LogNormalRows, MaskedLogNormal
from .logistic_normal import LogisticNormalRows, MaskedLogisticNormal
from .masked import MaskedRows
from .weibull import MaskedWeibull

__all__ = [
    "DirichletRows",
    "GammaRows",
    "GumbelSoftmaxRows",
    "LogNormalRows",
    "LogisticNormalRows",
    "MaskedGamma",
    "MaskedGumbelSoftmax",
    "MaskedLogNormal",
    "MaskedLogisticNormal",
    "MaskedRows",
    "MaskedWeibull",
    "RowLaw",
]
