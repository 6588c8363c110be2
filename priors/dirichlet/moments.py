r"""The means of the logarithms of Dirichlet rows and what their covariances are made of, by terms that do not cancel.

.. math:: E[\ln a_j] = \psi(c_j) - \psi(S), \qquad
    \mathrm{Cov}[\ln a_i, \ln a_j] = \delta_{ij}\,\psi_1(c_j) - \psi_1(S)

over the valid entries of a row, with their sum S. The gradient in :math:`c_k` of the mean is that covariance, and of
:math:`\psi_1(c_k)` it is :math:`\psi_2(c_k)`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .gamma_functions import compare, tetragamma
from .kernels import RowFunction, flatten, only, run, valid


def _moments(c: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
    """The means, the trigammas, the tetragammas, and ``[R, 1]`` the trigamma of the sum."""
    c = valid(c, mask)
    total = only(c, mask).sum(-1, keepdim=True)
    if mask is not None:
        total = torch.where(total > 0, total, 1.0)
    _, change, trigamma = compare(c, total, total - c)
    _, _, of_row = compare(total, total, torch.zeros_like(total))
    return only(-change, mask), only(trigamma, mask), only(tetragamma(c), mask), of_row


class _Gradient(RowFunction):
    @staticmethod
    def forward(
        on_means: Tensor | None, on_own: Tensor | None, own: Tensor, slopes: Tensor, of_row: Tensor, mask: Tensor | None
    ) -> Tensor:
        found = torch.zeros_like(own)
        if on_means is not None:
            on_means = only(on_means, mask)
            found = torch.addcmul(on_means * own, on_means.sum(-1, keepdim=True), of_row, value=-1)
        if on_own is not None:
            found = found.addcmul(on_own, slopes)
        return only(found, mask)


class LogMoments(RowFunction):
    """The means and the trigammas, ``[..., T]``, with their gradients, which a caller ignores."""

    @staticmethod
    def forward(c: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        shape = c.shape
        means, own, slopes, of_row = run(_moments, c.reshape(-1, shape[-1]), flatten(mask, shape))
        return means.view(shape), own.view(shape), slopes.view(shape), of_row.view(*shape[:-1], 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, own, slopes, of_row = output
        ctx.mark_non_differentiable(slopes, of_row)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(own, slopes, of_row, inputs[1])

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        on_means, on_own, *_ = slopes
        if on_means is None and on_own is None:
            return None, None
        return _Gradient.apply(on_means, on_own, *ctx.saved_tensors), None
