"""A Dirichlet made for attention: millions of rows a step, drawn, differentiated and compared by vectorised kernels."""

from .distribution import MaskedDirichlet

__all__ = ["MaskedDirichlet"]
