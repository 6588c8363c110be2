"""Distributions of a matrix whose rows and columns are correlated."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class Kronecker(TorchDistribution):
    r"""Entries made of independent ones by mixing rows and columns: :math:`W = M + S \odot A Z B^\top`.

    The covariance of all entries is that of :math:`Z` times :math:`\mathrm{diag}(s)\,(BB^\top \otimes AA^\top)\,
    \mathrm{diag}(s)`. A vector is a matrix of one column; of an event with more axes the first counts rows, and the
    others together count columns.

    Args:
        loc: :math:`M`, ``[*W]`` or with leading batch dimensions.
        scale: :math:`S`, above 0, broadcastable to ``[..., *W]``.
        row_tril: :math:`A`, ``[R, R]``, lower triangular with a diagonal above 0; None (default): the identity.
        column_tril: :math:`B`, ``[C, C]``, likewise.
        event_dim: How many of the last axes are those of the weight, default all of ``loc``.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor,
        row_tril: Tensor | None = None,
        column_tril: Tensor | None = None,
        event_dim: int | None = None,
        validate_args: bool | None = None,
    ):
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.row_tril, self.column_tril = row_tril, column_tril
        lead = self.loc.dim() - (loc.dim() if event_dim is None else event_dim)
        shape = self.loc.shape
        super().__init__(shape[:lead], shape[lead:], validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """The numbers of rows ``R`` and of columns ``C``."""
        rows = self.event_shape[0] if self.event_shape else 1
        return rows, self.event_shape.numel() // rows

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> Kronecker:
        new, shape = copy.copy(self), torch.Size(batch_shape) + self.event_shape
        new.loc, new.scale, new._batch_shape = self.loc.expand(shape), self.scale.expand(shape), torch.Size(batch_shape)
        return new

    def white(self, value: Tensor) -> Tensor:
        """The independent entries :math:`Z` that a value is made of, ``[..., R, C]``."""
        z = (value - self.loc) / self.scale
        z = z.reshape(z.shape[: z.dim() - len(self.event_shape)] + self.matrix_shape)
        if self.row_tril is not None:
            z = torch.linalg.solve_triangular(self.row_tril, z, upper=False)
        if self.column_tril is not None:
            z = torch.linalg.solve_triangular(self.column_tril.mT, z, upper=True, left=False)
        return z

    def coloured(self, z: Tensor) -> Tensor:
        """The value that is made of independent entries ``[..., R, C]``: the inverse of `white`."""
        if self.row_tril is not None:
            z = self.row_tril @ z
        if self.column_tril is not None:
            z = z @ self.column_tril.mT
        return self.loc + self.scale * z.reshape(z.shape[:-2] + self.event_shape)

    @property
    def log_det(self) -> Tensor:
        """The log-determinant of the map from :math:`Z` to :math:`W`, by batch."""
        total = self.scale.log().reshape(*self.batch_shape, -1).sum(-1)
        for tril, times in zip((self.row_tril, self.column_tril), self.matrix_shape[::-1], strict=True):
            if tril is not None:
                total = total + times * tril.diagonal().log().sum()
        return total

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        diagonal = self.loc.new_ones(self.matrix_shape)
        if self.row_tril is not None:
            diagonal = diagonal * self.row_tril.square().sum(-1, keepdim=True)
        if self.column_tril is not None:
            diagonal = diagonal * self.column_tril.square().sum(-1)
        return self.scale.square() * diagonal.reshape(self.event_shape)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape + self.matrix_shape
        return self.coloured(self.standard(torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self.standard_log_prob(self.white(value)) - self.log_det

    @abstractmethod
    def standard(self, normal: Tensor) -> Tensor:
        """A draw of :math:`Z`, from independent standard normal entries ``[..., R, C]``."""

    @abstractmethod
    def standard_log_prob(self, z: Tensor) -> Tensor:
        """The log-density of :math:`Z`, ``[..., R, C]``, by batch."""


class KroneckerNormal(Kronecker):
    r"""A matrix-normal distribution: correlated rows, correlated columns.

    .. math:: \log p(W) = -\tfrac12 \|Z\|^2 - \tfrac{RC}2 \ln 2\pi - C \ln|A| - R \ln|B| - \sum_i \ln s_i, \qquad
        Z = A^{-1} \frac{W - M}{S} B^{-\top}

    Args:
        loc, scale, row_tril, column_tril, event_dim: See `Kronecker`.

    Reference:
        Dawid, 1981, "Some matrix-variate distribution theory".
    """

    def standard(self, normal: Tensor) -> Tensor:
        return normal

    def standard_log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * (z.square().sum((-2, -1)) + math.log(2 * math.pi) * z.shape[-1] * z.shape[-2])


class KroneckerT(Kronecker):
    r"""A Student-t distribution of a matrix: normal entries divided by one random scale, for all or for every row.

    .. math:: W = M + S \odot A Z B^\top, \qquad Z_{ij} = g_i^{-1/2} N_{ij}, \qquad \nu g_i \sim \chi^2_\nu

    with one :math:`g` for all rows, or one for each.

    Args:
        df: :math:`\nu > 0`.
        loc, scale, row_tril, column_tril, event_dim: See `Kronecker`.
        by_row: Whether every row of :math:`Z` has a :math:`g` of its own, default False.

    Reference:
        Kotz and Nadarajah, 2004, "Multivariate t distributions and their applications", Chapter 1.
    """

    def __init__(
        self,
        df: float,
        loc: Tensor,
        scale: Tensor,
        row_tril: Tensor | None = None,
        column_tril: Tensor | None = None,
        event_dim: int | None = None,
        by_row: bool = False,
        validate_args: bool | None = None,
    ):
        self.df, self.by_row = df, by_row
        super().__init__(loc, scale, row_tril, column_tril, event_dim, validate_args)

    @property
    def mean(self) -> Tensor:
        return self.loc if self.df > 1 else torch.full_like(self.loc, math.nan)

    @property
    def variance(self) -> Tensor:
        if self.df > 2:
            return super().variance * (self.df / (self.df - 2))
        return torch.full_like(self.loc, math.inf if self.df > 1 else math.nan)

    def standard(self, normal: Tensor) -> Tensor:
        shape = normal.shape[:-1] if self.by_row else normal.shape[:-2]
        gamma = torch._standard_gamma(normal.new_full(shape, self.df / 2)) / (self.df / 2)
        return normal * gamma.reshape(shape + (1,) * (normal.dim() - len(shape))).rsqrt()

    def standard_log_prob(self, z: Tensor) -> Tensor:
        squares = z.square().sum(-1) if self.by_row else z.square().sum((-2, -1))
        count = z.shape[-1] if self.by_row else z.shape[-1] * z.shape[-2]
        half = (self.df + count) / 2
        front = math.lgamma(half) - math.lgamma(self.df / 2) - count / 2 * math.log(math.pi * self.df)
        logs = front - half * torch.log1p(squares / self.df)
        return logs.sum(-1) if self.by_row else logs
