"""A Dirichlet distribution over the valid entries of a row."""

from __future__ import annotations

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import Dirichlet, constraints, register_kl


def _sum(values: Tensor, mask: Tensor | None) -> Tensor:
    return (values if mask is None else torch.where(mask, values, 0.0)).sum(-1)


class MaskedDirichlet(TorchDistribution):
    r"""Dirichlet rows of which only the entries in a mask are random; the others are 0.

    .. math:: \log p(a) = \ln\Gamma(\textstyle\sum_j c_j) - \sum_j \ln\Gamma(c_j) + \sum_j (c_j - 1)\ln a_j

    with all sums over valid entries, so that a padded row has the law, the density and the divergences of the shorter
    row. A row without valid entries is 0 and has density 1.

    Args:
        concentration: ``[..., T]``, above 0 where valid.
        mask: Valid entries, boolean, broadcastable to ``concentration``; None (default) when all are.

    Note:
        Values are linear, so entries below the smallest number of their dtype count as that number: in float32 the
        density of draws at concentrations far below 1 is only approximate.
    """

    arg_constraints = {"concentration": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex
    has_rsample = True

    def __init__(self, concentration: Tensor, mask: Tensor | None = None, validate_args: bool | None = None):
        self.mask_of_entries = None if mask is None else mask.expand(concentration.shape)
        # A masked entry gets a concentration of its own only so that every special function below stays finite.
        self.concentration = concentration if mask is None else torch.where(mask, concentration, 1.0)
        shape = concentration.shape
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> MaskedDirichlet:
        shape = torch.Size(batch_shape) + self.event_shape
        mask = None if self.mask_of_entries is None else self.mask_of_entries.expand(shape)
        return type(self)(self.concentration.expand(shape), mask, validate_args=False)

    @property
    def count(self) -> Tensor | int:
        """How many entries of each row are valid, ``[...]``."""
        mask = self.mask_of_entries
        return self.event_shape[0] if mask is None else mask.sum(-1)

    @property
    def total(self) -> Tensor:
        """The sum of a row's concentrations; 1 for a row without valid entries."""
        total = _sum(self.concentration, self.mask_of_entries)
        mask = self.mask_of_entries
        return total if mask is None else torch.where(mask.any(-1), total, 1.0)

    @property
    def mean(self) -> Tensor:
        mean = self.concentration / self.total.unsqueeze(-1)
        return mean if self.mask_of_entries is None else torch.where(self.mask_of_entries, mean, 0.0)

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 - self.mean) / (self.total.unsqueeze(-1) + 1)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        mask, concentration = self.mask_of_entries, self.concentration
        if mask is None:
            return Dirichlet(concentration, validate_args=False).rsample(torch.Size(sample_shape))
        # In double: beside masked entries valid ones of small concentration may all fall below the smallest float32.
        rows = Dirichlet(concentration.double(), validate_args=False).rsample(torch.Size(sample_shape))
        rows = torch.where(mask, rows, 0.0)  # gamma variables are independent: renormalising leaves Dir(c_valid)
        rows = rows / rows.sum(-1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
        return rows.to(concentration.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        logs = value.clamp(min=torch.finfo(value.dtype).tiny).log()
        return _sum((self.concentration - 1) * logs, self.mask_of_entries) - self._log_normalizer()

    def entropy(self) -> Tensor:
        total, free = self.total, self.total - self.count
        weighted = _sum((self.concentration - 1) * torch.digamma(self.concentration), self.mask_of_entries)
        entropy = self._log_normalizer() + free * torch.digamma(total) - weighted
        return self._where_valid(entropy)

    def _log_normalizer(self) -> Tensor:
        logs = _sum(torch.lgamma(self.concentration), self.mask_of_entries) - torch.lgamma(self.total)
        return self._where_valid(logs)

    def _where_valid(self, values: Tensor) -> Tensor:
        mask = self.mask_of_entries
        return values if mask is None else torch.where(mask.any(-1), values, 0.0)


@register_kl(MaskedDirichlet, MaskedDirichlet)
def _kl(p: MaskedDirichlet, q: MaskedDirichlet) -> Tensor:
    """The closed form over the valid entries, which must be those of both."""
    mask = p.mask_of_entries
    cross = (p.concentration - q.concentration) * (
        torch.digamma(p.concentration) - torch.digamma(p.total).unsqueeze(-1)
    )
    return p._where_valid(q._log_normalizer() - p._log_normalizer() + _sum(cross, mask))
