"""A Dirichlet distribution over the valid entries of a row."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints, register_kl

from ..carried import logs_of, with_logs
from .density import Density
from .divergence import Divergence
from .kernels import once, only
from .moments import LogMoments
from .rows import DrawRows
from .softmax import AroundSoftmax
from .symmetric import SymmetricDivergence


class MaskedDirichlet(TorchDistribution):
    r"""Dirichlet rows of which only the entries in a mask are random; the others are 0.

    .. math:: \log p(a) = \ln\Gamma(\textstyle\sum_j c_j) - \sum_j \ln\Gamma(c_j) + \sum_j (c_j - 1)\ln a_j

    with all sums over valid entries, so that a padded row has the law, the density and the divergences of the shorter
    row. A row without valid entries is 0 and has density 1. Draws are differentiable in the concentrations, by implicit
    reparameterization of the gamma variables that they are made of; nothing here has second derivatives.

    Args:
        concentration: ``[..., T]``, finite and above 0 where valid. Below 1e-6 it counts as 1e-6, in value and slope.
        mask: Valid entries, boolean, broadcastable to ``concentration``; None (default) when all are.
        validate_args: Check the concentrations; default: as torch's distributions do.
        compile: Compile the kernels, where a compiler is found, at some seconds for the first call; default False.

    Note:
        A draw carries its exact logarithms (`carried.logs_of`), which the density uses. In the linear values no entry
        is below :math:`e^{-40}` (in float64 :math:`e^{-300}`) times the largest of its row: what is smaller counts as
        that.

    Reference:
        Figurnov et al., 2018, "Implicit reparameterization gradients" (arXiv 1805.08498); Marsaglia and Tsang, 2000.
    """

    arg_constraints = {"concentration": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex
    has_rsample = True

    def __init__(
        self,
        concentration: Tensor,
        mask: Tensor | None = None,
        validate_args: bool | None = None,
        *,
        compile: bool = False,
    ):
        self.compile = compile
        self.mask_of_entries = None if mask is None else mask.expand(concentration.shape)
        self._given = concentration
        self._drawn: tuple[Tensor, int] | None = None
        shape = concentration.shape
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    @classmethod
    def around_softmax(
        cls,
        scores: Tensor,
        mask: Tensor | None = None,
        *,
        sharpness: Tensor | float,
        floor: float,
        compile: bool = False,
    ) -> MaskedDirichlet:
        r"""Rows around softmax attention, :math:`c = \alpha\,\mathrm{softmax}(Z) + \epsilon`.

        Args:
            scores: Z, ``[..., T]``.
            mask: Valid entries, boolean, broadcastable to ``scores``; None (default) when all are.
            sharpness: :math:`\alpha > 0`, a number, or a tensor that broadcasts to ``[..., 1]``, one number a row.
            floor: :math:`\epsilon > 0`.
            compile: As of the class.
        """
        per_row = torch.as_tensor(sharpness, dtype=scores.dtype, device=scores.device).expand(*scores.shape[:-1], 1)
        valid = None if mask is None else mask.expand(scores.shape)
        concentration = AroundSoftmax.apply(scores, valid, per_row, floor, compile)
        return cls(concentration, mask, validate_args=False, compile=compile)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> MaskedDirichlet:
        shape = torch.Size(batch_shape) + self.event_shape
        mask = None if self.mask_of_entries is None else self.mask_of_entries.expand(shape)
        return type(self)(self._given.expand(shape), mask, validate_args=False, compile=self.compile)

    @cached_property
    def concentration(self) -> Tensor:
        """The concentrations, with 1 in masked entries."""
        return self._given if self.mask_of_entries is None else torch.where(self.mask_of_entries, self._given, 1.0)

    @property
    def count(self) -> Tensor | int:
        """How many entries of each row are valid, ``[...]``."""
        mask = self.mask_of_entries
        if mask is None:
            return self.event_shape[0]
        own = once(mask)  # the same for all heads, and often for all queries
        return own.expand(*own.shape[:-1], mask.shape[-1]).sum(-1).expand(mask.shape[:-1])

    @property
    def total(self) -> Tensor:
        """The sum of a row's concentrations; 1 for a row without valid entries."""
        mask = self.mask_of_entries
        total = only(self.concentration, mask).sum(-1)
        return total if mask is None else torch.where(mask.any(-1), total, 1.0)

    @property
    def mean(self) -> Tensor:
        return only(self.concentration / self.total.unsqueeze(-1), self.mask_of_entries)

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 - self.mean) / (self.total.unsqueeze(-1) + 1)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        mask = None if self.mask_of_entries is None else self.mask_of_entries.expand(shape)
        given = self._given
        sloped = given.requires_grad and torch.is_grad_enabled()
        rows, logs, *rest = DrawRows.apply(given.expand(shape), mask, sloped, self.compile)
        # A leaf may outlive the graph of a draw, on which divergences from it must not depend.
        if rest and shape == given.shape and not given.is_leaf:
            self._drawn = rest[0], given._version
        return with_logs(rows, logs)

    def log_prob(self, value: Tensor) -> Tensor:
        logs = logs_of(value)
        shape = torch.broadcast_shapes(logs.shape, self._given.shape)
        mask = None if self.mask_of_entries is None else self.mask_of_entries.expand(shape)
        return Density.apply(self._given.expand(shape), logs.expand(shape), mask, self.compile)[0].squeeze(-1)

    def entropy(self) -> Tensor:
        # Minus the divergence from the uniform density over the simplex, which is the gamma function of the count.
        count = self.count
        uniform = self._divergence_to(self._given.new_ones(()).expand(self._given.shape))
        if isinstance(count, int):
            return -uniform - math.lgamma(count)
        return -uniform - torch.lgamma(count.clamp(min=1).to(uniform.dtype))

    def log_moments(self) -> tuple[Tensor, Tensor]:
        r"""What the moments of the logarithms of a row are made of.

        .. math:: E[\ln a_j] = \psi(c_j) - \psi(S), \qquad
            \mathrm{Cov}[\ln a_i, \ln a_j] = \delta_{ij}\,\psi_1(c_j) - \psi_1(S)

        Returns:
            The means and :math:`\psi_1(c_j)`, both ``[..., T]``, 0 in masked entries.
        """
        means, own, *_ = LogMoments.apply(self._given, self.mask_of_entries)
        return means, own

    def _divergence_to(self, other: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(self._given.shape, other.shape)
        other = other.expand(shape)
        level = once(other)
        learned = other.requires_grad and torch.is_grad_enabled()
        sums = self._sums
        if sums is not None and shape == self._given.shape and not learned and level.shape[-1] == 1:
            count = self.count
            if isinstance(count, Tensor):
                count = count.unsqueeze(-1).to(sums.dtype)
            return SymmetricDivergence.apply(sums, level, count, self.compile)[0].squeeze(-1)
        mask = None if self.mask_of_entries is None else self.mask_of_entries.expand(shape)
        found = Divergence.apply(self._given.expand(shape), other, mask, learned, self.compile)
        return found[0].squeeze(-1)

    @property
    def _sums(self) -> Tensor | None:
        """The sums that a draw has left, of which gradients are found with its own; None if that is of no use."""
        if self._drawn is None or not torch.is_grad_enabled():
            return None
        sums, version = self._drawn
        return sums if version == self._given._version else None


@register_kl(MaskedDirichlet, MaskedDirichlet)
def _kl(p: MaskedDirichlet, q: MaskedDirichlet) -> Tensor:
    """The closed form over the valid entries, which must be those of both."""
    return p._divergence_to(q._given)
