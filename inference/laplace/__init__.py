"""The Laplace approximation: a normal distribution around a trained net."""

from .driver import Laplace
from .posterior import LaplacePosterior

__all__ = ["Laplace", "LaplacePosterior"]
