"""The diagonal of the curvature."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..data import Inputs
from .functions import Functions, Weights
from .structure import Curvature, StructuredNormal, check_positive


class DiagonalNormal(StructuredNormal):
    r"""Independent entries, :math:`\delta_i \sim \mathcal N(0, P_{ii}^{-1})`.

    Args:
        precision: :math:`P_{ii}` by weight, in its shape.
    """

    def __init__(self, precision: Weights):
        super().__init__({name: value.shape for name, value in precision.items()})
        self.precision = precision

    @property
    def log_det(self) -> Tensor:
        return torch.stack([value.log().sum() for value in self.precision.values()]).sum()

    def draw(self, num_samples: int) -> Weights:
        return {
            name: torch.randn(num_samples, *value.shape, dtype=value.dtype, device=value.device) * value.rsqrt()
            for name, value in self.precision.items()
        }

    def variances(self) -> Weights:
        return {name: value.reciprocal() for name, value in self.precision.items()}

    def projected(self, jacobian: Mapping[str, Tensor]) -> Tensor:
        parts = [
            (jacobian[name].to(value).square() / value).flatten(2).sum(-1) for name, value in self.precision.items()
        ]
        return torch.stack(parts).sum(0)

    def tensors(self) -> dict[str, Tensor]:
        return {f"diagonal/{name}": value for name, value in self.precision.items()}

    @classmethod
    def restored(cls, shapes: Mapping[str, torch.Size], tensors: Mapping[str, Tensor]) -> DiagonalNormal:
        return cls({name: tensors[f"diagonal/{name}"].view(shape) for name, shape in shapes.items()})


class DiagonalCurvature(Curvature):
    r"""The diagonal of the generalised Gauss-Newton matrix.

    .. math:: \sum_n \sum_k \big( J_n^\top l_{nk} \big)^2
    """

    def __init__(self, functions: Functions):
        super().__init__(functions)
        self.diagonal = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in functions.mode.items()}

    def add(self, x: Inputs, roots: Tensor) -> None:
        for gradients in self.gradients(x, roots):
            for name, values in gradients.items():
                self.diagonal[name] += values.square().sum((0, 1))

    def normal(self, prior: Mapping[str, Tensor]) -> DiagonalNormal:
        precision = {name: value + prior[name] for name, value in self.diagonal.items()}
        for name, value in precision.items():
            check_positive(name, value.min(), value.max(), prior[name])
        return DiagonalNormal(precision)
