"""Drawn attention rows in unconstrained numbers, of which only the entries that their mask allows take any."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform
from torch.nn import functional as F

from ...priors import RowPrior
from ...priors.carried import logs_of, with_logs


def refusal_of(law: RowPrior) -> str | None:
    """Why rows with this prior have no density to draw from, or None when they have one."""
    if law.kl_weight == 1 and law.kl_normalization == "none":
        return None
    return "rows that count in full, kl_weight: 1 and kl_normalization: none, or there is no joint density to draw from"


def coordinates_of(site: dict[str, Any]) -> RowCoordinates:
    """The map from unconstrained numbers to the values of a site of attention rows."""
    kind = StickBreaking if site["infer"]["law"].space == "simplex" else LogEntries
    return kind(site["value"].shape, site["infer"]["mask"])


def log_sigmoid(u: Tensor) -> Tensor:
    """Exact at both ends, and in any order of `torch.func.vmap` and gradients."""
    return -torch.logaddexp(torch.zeros_like(u), -u)


class RowCoordinates(Transform):
    r"""The map from unconstrained numbers to the values of a site of attention rows, which carry their logarithms.

    .. math:: \ln \left| \det \frac{\partial a}{\partial z} \right| = \sum_j \ln a_j

    over valid entries, for every map of this kind.

    Args:
        shape: That of the site's value, ``[..., S]``.
        mask: Valid entries, boolean, broadcastable to it; None when all are.

    Attributes:
        mask: Valid entries ``[..., S]``, or None when all are.
        free: The entries that take a number, ``[..., S]`` or ``[S]``.
        size: How many numbers they take.
    """

    domain = constraints.real_vector
    bijective = True

    def __init__(self, shape: torch.Size, mask: Tensor | None):
        super().__init__()
        self.shape = torch.Size(shape)
        self.mask = None if mask is None or bool(mask.all()) else mask.expand(shape)
        self.free = self._free()
        self.size = int(self.free.expand(self.shape).sum())
        self._where = None if self.mask is None else self.free.flatten().nonzero().squeeze(-1)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self) or other.shape != self.shape:
            return False
        if self.mask is None or other.mask is None:
            return self.mask is other.mask
        return torch.equal(self.mask, other.mask)

    @abstractmethod
    def _free(self) -> Tensor:
        """See `free`."""

    def entries(self, values: Tensor, other: float = 0.0) -> Tensor:
        """``values`` in the valid entries, ``other`` elsewhere."""
        return values if self.mask is None else torch.where(self.mask, values, other)

    def spread(self, z: Tensor) -> Tensor:
        """The numbers at their entries, ``[*K, ..., S]``, and 0 at the entries that take none."""
        if self._where is None:
            return F.pad(z, (0, self.shape[-1] - z.shape[-1]))
        flat = z.new_zeros((*z.shape[:-1], self.shape.numel()))
        return flat.scatter(-1, self._where.expand(z.shape), z).unflatten(-1, self.shape)

    def gathered(self, values: Tensor) -> Tensor:
        """Of values by entry, ``[*K, ..., S]``, those at the entries that take a number."""
        if self._where is None:
            return values[..., : int(self.free.sum())]
        return values.flatten(-len(self.shape))[..., self._where]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """One number for each row."""
        return self.entries(logs_of(y)).sum(-1)


class StickBreaking(RowCoordinates):
    r"""Rows on the simplex: each valid entry but the last breaks its share off what those before it have left.

    .. math:: \ln a_j = \ln \sigma(u_j) + \sum_{k < j} \ln \sigma(-u_k), \qquad u_j = z_j - \ln r_j

    over valid entries, with :math:`r_j` of them behind the entry ``j``, so that 0 is the uniform row; the last one gets
    what is left. So ``n`` valid entries take ``n - 1`` numbers, and the density is that of ``n - 1`` entries. A row
    with one valid entry is 1 there, and one without any is 0; both take none. Everything is found in logarithms, which
    stay exact where entries are too small for their dtype.

    Args:
        shape, mask: See `RowCoordinates`.

    Reference:
        Carpenter et al., 2017, "Stan: a probabilistic programming language" (the offset); the masks are ours.
    """

    codomain = constraints.simplex

    def _free(self) -> Tensor:
        valid = torch.ones(self.shape[-1:], dtype=torch.bool) if self.mask is None else self.mask
        behind = valid.flip(-1).cumsum(-1).flip(-1) - valid.long()
        self._offset = behind.clamp(min=1).double().log()
        return valid & (behind > 0)

    def _call(self, x: Tensor) -> Tensor:
        u, free = self.spread(x) - self._offset.to(x), self.free.to(x.device)
        own, rest = (torch.where(free, log_sigmoid(each), 0.0) for each in (u, -u))
        logs = self.entries(own + F.pad(rest[..., :-1], (1, 0)).cumsum(-1))
        return with_logs(self.entries(logs.exp()), logs)

    def _inverse(self, y: Tensor) -> Tensor:
        logs = self.entries(logs_of(y), torch.finfo(y.dtype).min)
        left = logs.flip(-1).logcumsumexp(-1).flip(-1)
        return self.gathered(logs - F.pad(left[..., 1:], (0, 1)) + self._offset.to(logs))


class LogEntries(RowCoordinates):
    r"""Positive entries, which a law normalises to rows, by their logarithms.

    .. math:: \ln s_j = z_j

    Every valid entry takes a number; the others are 0. Values have a ceiling where their dtype ends, logarithms none.

    Args:
        shape, mask: See `RowCoordinates`.
    """

    codomain = constraints.independent(constraints.nonnegative, 1)

    def _free(self) -> Tensor:
        return torch.ones(self.shape[-1:], dtype=torch.bool) if self.mask is None else self.mask

    def _call(self, x: Tensor) -> Tensor:
        logs = self.spread(x)
        largest = math.log(torch.finfo(logs.dtype).max) - 1
        return with_logs(self.entries(logs.clamp(max=largest).exp()), logs)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.gathered(logs_of(y))
