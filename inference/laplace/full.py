"""The whole curvature, one matrix over all weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..data import Inputs
from .functions import Functions, Weights
from .structure import Curvature, StructuredNormal, check_positive


def flat(values: Mapping[str, Tensor], names: Mapping[str, object], lead: int) -> Tensor:
    """Values by weight as one vector, behind ``lead`` leading dimensions."""
    return torch.cat([values[name].flatten(lead) for name in names], -1)


class FullNormal(StructuredNormal):
    r"""Entries that all covary, by the Cholesky factor of their precision.

    .. math:: \delta = L^{-\top} \epsilon, \qquad P = L L^\top

    Args:
        shapes: See `StructuredNormal`; entries are in this order.
        cholesky: :math:`L`, lower triangular.
    """

    def __init__(self, shapes: Mapping[str, torch.Size], cholesky: Tensor):
        super().__init__(shapes)
        self.cholesky = cholesky

    def _apart(self, vectors: Tensor) -> Weights:
        parts = vectors.split([shape.numel() for shape in self.shapes.values()], -1)
        lead = vectors.shape[:-1]
        return {
            name: part.reshape(*lead, *shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    @property
    def log_det(self) -> Tensor:
        return 2 * self.cholesky.diagonal().log().sum()

    def draw(self, num_samples: int) -> Weights:
        noise = torch.randn(len(self.cholesky), num_samples, dtype=torch.float64, device=self.cholesky.device)
        return self._apart(torch.linalg.solve_triangular(self.cholesky.mT, noise, upper=True).mT)

    def variances(self) -> Weights:
        return self._apart(torch.cholesky_inverse(self.cholesky).diagonal())

    def projected(self, jacobian: Mapping[str, Tensor]) -> Tensor:
        rows = flat(jacobian, self.shapes, 2).to(self.cholesky)
        solved = torch.linalg.solve_triangular(self.cholesky, rows.flatten(0, 1).mT, upper=False)
        return solved.square().sum(0).view(rows.shape[:2])

    def tensors(self) -> dict[str, Tensor]:
        return {"cholesky": self.cholesky}

    @classmethod
    def restored(cls, shapes: Mapping[str, torch.Size], tensors: Mapping[str, Tensor]) -> FullNormal:
        return cls(shapes, tensors["cholesky"])


class FullCurvature(Curvature):
    """The generalised Gauss-Newton matrix itself, ``[P, P]`` for ``P`` numbers in the order of the weights."""

    def __init__(self, functions: Functions):
        super().__init__(functions)
        anchor = next(iter(functions.mode.values()))
        self.matrix = torch.zeros(functions.size, functions.size, dtype=torch.float64, device=anchor.device)

    def add(self, x: Inputs, roots: Tensor) -> None:
        for gradients in self.gradients(x, roots):
            rows = flat(gradients, self.shapes, 2).flatten(0, 1).double()
            self.matrix.addmm_(rows.mT, rows)

    def normal(self, prior: Mapping[str, Tensor]) -> FullNormal:
        own = flat(prior, self.shapes, 0)
        precision = self.matrix + torch.diag(own)
        cholesky, failed = torch.linalg.cholesky_ex(precision)
        if failed or not own.min() > 0:  # rounding hides that a matrix without a prior is singular
            eigenvalues = torch.linalg.eigvalsh(precision)
            smallest = eigenvalues[0].clamp(max=0) if failed else eigenvalues[0]
            check_positive("the weights", smallest, eigenvalues[-1], own)
        return FullNormal(self.shapes, cholesky)
