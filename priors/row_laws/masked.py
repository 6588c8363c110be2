"""What distributions over the valid entries of a row have in common."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from ..carried import with_logs
from ..rows import masked_log_softmax


class MaskedRows(TorchDistribution):
    """Rows of which only the entries in a mask are random; the others are 0.

    Densities and divergences are sums over valid entries, so that a padded row has those of the shorter row. A row
    without valid entries is 0 and has density 1. Draws carry their logarithms; see `with_logs`.

    Args:
        main: The parameter that has the shape of the rows, ``[..., S]``.
        mask: Valid entries, boolean, broadcastable to ``main``, or None when all are.
    """

    parameters: ClassVar[tuple[str, ...]]
    """The constructor's arguments but for the mask: first the one in the shape of the rows; the others broadcast to
    it."""
    has_rsample = True

    def __init__(self, main: Tensor, mask: Tensor | None, validate_args: bool | None):
        self.mask_of_entries = mask
        super().__init__(main.shape[:-1], main.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> MaskedRows:
        main, *others = (getattr(self, name) for name in self.parameters)
        shape = torch.Size(batch_shape) + self.event_shape
        return type(self)(main.expand(shape), *others, mask=self.mask_of_entries, validate_args=False)  # type: ignore[misc]

    def entries(self, values: Tensor, other: float = 0.0) -> Tensor:
        """``values`` in the valid entries, ``other`` elsewhere."""
        return values if self.mask_of_entries is None else torch.where(self.mask_of_entries, values, other)

    def over(self, values: Tensor) -> Tensor:
        """The sum over the valid entries of each row, ``[...]``."""
        return self.entries(values).sum(-1)

    @property
    def count(self) -> Tensor:
        """How many entries of each row are valid, ``[...]`` or broadcastable to it."""
        main: Tensor = getattr(self, self.parameters[0])
        if self.mask_of_entries is None:
            return main.new_tensor(float(main.shape[-1]))
        return self.mask_of_entries.expand(main.shape).sum(-1).to(main.dtype)

    def residual_squares(self, values: Tensor) -> Tensor:
        """The sum of squares of a row's valid entries around their mean, ``[...]``."""
        values = self.entries(values)  # whatever stands in masked entries would reach the gradient through the mean
        mean = values.sum(-1) / self.count.clamp(min=1)
        return self.over((values - mean.unsqueeze(-1)).square())

    def where_any(self, values: Tensor) -> Tensor:
        """``values`` of the rows that have valid entries, 0 for the others."""
        return values if self.mask_of_entries is None else torch.where(self.count > 0, values, 0.0)

    def on_simplex(self, logits: Tensor) -> Tensor:
        """The row with these logits, which carries its logarithms."""
        logs = masked_log_softmax(logits, self.mask_of_entries)
        return with_logs(self.entries(logs.exp()), logs)

    def positive(self, logs: Tensor) -> Tensor:
        """The positive entries with these logarithms, which they carry."""
        logs = self.entries(logs)
        largest = math.log(torch.finfo(logs.dtype).max) - 1
        return with_logs(self.entries(logs.clamp(max=largest).exp()), logs)
