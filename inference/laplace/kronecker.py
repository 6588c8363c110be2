"""Kronecker factors of the curvature, one pair for every weight of an affine map."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ..data import Inputs, first, take
from ..prediction import slices
from .affine import Call, affine, watched
from .diagonal import DiagonalCurvature, DiagonalNormal
from .functions import Functions, Weights
from .structure import Curvature, StructuredNormal, check_positive

MOST_EXAMPLES = 64
"""Examples that go forward and backward together."""


class KroneckerNormal(StructuredNormal):
    r"""Matrix-normal weights :math:`E \times D` in the eigenbases of both factors, and independent entries elsewhere.

    .. math:: P = (Q_G \otimes Q_A)\, \mathrm{diag}(p)\, (Q_G \otimes Q_A)^\top, \qquad
              \delta = Q_G \big(\epsilon \odot p^{-1/2}\big) Q_A^\top

    A bias is a weight with :math:`D = 1`.

    Args:
        shapes: See `StructuredNormal`.
        left, right: :math:`Q_G` ``[E, E]`` and :math:`Q_A` ``[D, D]`` by weight.
        precision: :math:`p`, ``[E, D]`` by weight.
        rest: The distribution of the other weights, or None.
    """

    def __init__(
        self,
        shapes: Mapping[str, torch.Size],
        left: Weights,
        right: Weights,
        precision: Weights,
        rest: DiagonalNormal | None,
    ):
        super().__init__(shapes)
        self.left, self.right, self.precision, self.rest = left, right, precision, rest

    @property
    def log_det(self) -> Tensor:
        blocks = [value.log().sum() for value in self.precision.values()]
        return torch.stack([*blocks, *([] if self.rest is None else [self.rest.log_det])]).sum()

    def draw(self, num_samples: int) -> Weights:
        drawn = {} if self.rest is None else self.rest.draw(num_samples)
        for name, value in self.precision.items():
            noise = torch.randn(num_samples, *value.shape, dtype=value.dtype, device=value.device)
            turned = self.left[name] @ (noise * value.rsqrt()) @ self.right[name].mT
            drawn[name] = turned.view(num_samples, *self.shapes[name])
        return drawn

    def variances(self) -> Weights:
        found = {} if self.rest is None else self.rest.variances()
        for name, value in self.precision.items():
            marginal = self.left[name].square() @ value.reciprocal() @ self.right[name].square().mT
            found[name] = marginal.view(self.shapes[name])
        return found

    def projected(self, jacobian: Mapping[str, Tensor]) -> Tensor:
        parts = [] if self.rest is None else [self.rest.projected(jacobian)]
        for name, value in self.precision.items():
            given = jacobian[name]  # turned in its own dtype: rotations lose nothing, and are most of the work
            left, right = self.left[name].to(given), self.right[name].to(given)
            turned = left.mT @ given.reshape(*given.shape[:2], *value.shape) @ right
            parts.append((turned.to(value).square() / value).sum((-2, -1)))
        return torch.stack(parts).sum(0)

    def tensors(self) -> dict[str, Tensor]:
        parts = {"left": self.left, "right": self.right, "eigenvalues": self.precision}
        own = {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
        return own | ({} if self.rest is None else self.rest.tensors())

    @classmethod
    def restored(cls, shapes: Mapping[str, torch.Size], tensors: Mapping[str, Tensor]) -> KroneckerNormal:
        blocks = [name for name in shapes if f"left/{name}" in tensors]
        rest = {name: shape for name, shape in shapes.items() if name not in blocks}
        left, right, precision = (
            {name: tensors[f"{part}/{name}"] for name in blocks} for part in ("left", "right", "eigenvalues")
        )
        return cls(shapes, left, right, precision, DiagonalNormal.restored(rest, tensors) if rest else None)


class KroneckerCurvature(Curvature):
    r"""A Kronecker product for every weight of an affine map, from its inputs :math:`a` and the backpropagated roots
    :math:`g` of all examples and tokens; the diagonal for other weights.

    .. math:: \frac1R\, G \otimes A, \qquad A = \sum_r a_r a_r^\top, \qquad G = \sum_r \sum_k g_{rk} g_{rk}^\top

    With ``expand`` a token of an example is a term :math:`r` of its own, if any output depends on it: exact for one
    example without further tokens, or where terms are alike and do not act together. Dividing by the number of examples
    alone would count each of ``T`` tokens about ``T`` times. With ``reduce`` an example is one term, with the mean of
    its :math:`a` and the sum of its :math:`g`: exact where the tokens of an example are alike and are averaged. A bias
    has factors of its own, with :math:`a = 1`, and is independent of its weight.

    Args:
        functions: See `Curvature`.
        x: Some examples, on which the affine maps are found.
        tokens: ``expand`` or ``reduce``.

    Reference:
        Martens and Grosse, 2015, Sec. 3; Grosse and Martens, 2016 (``expand``); Eschenhagen et al., 2023,
        "Kronecker-factored approximate curvature for modern neural network architectures", Sec. 3.
    """

    def __init__(self, functions: Functions, x: Inputs, tokens: Literal["expand", "reduce"] = "expand"):
        super().__init__(functions)
        self.tokens = tokens
        self.names = affine(functions, x)
        others = {name: value for name, value in functions.mode.items() if name not in self.names}
        self.rest = DiagonalCurvature(functions.of(list(others))) if others else None
        self.count = dict.fromkeys(self.names, 0)
        self.left: Weights = {}
        self.right: Weights = {}
        for name in self.names:
            value = functions.mode[name]
            sizes = (len(value), value.shape[1] if value.dim() > 1 else 1)
            self.left[name], self.right[name] = (
                torch.zeros(size, size, dtype=torch.float64, device=value.device) for size in sizes
            )

    def add(self, x: Inputs, roots: Tensor) -> None:
        for where in slices(len(first(x)), MOST_EXAMPLES):
            outputs, calls, _ = watched(self.functions, take(x, where))
            through = [
                torch.autograd.grad(outputs, [call.y for call in calls], root, retain_graph=True, allow_unused=True)
                for root in roots[:, where]
            ]
            for call, gradients in zip(calls, zip(*through, strict=True), strict=True):
                if gradients[0] is not None:
                    self._add(call, torch.stack(gradients))
        if self.rest is not None:
            self.rest.add(x, roots)

    def _add(self, call: Call, g: Tensor) -> None:
        """Add one call, with the gradients ``[K, B, ..., E]`` at its outputs."""
        a = call.x
        if self.tokens == "reduce" and a.dim() > 2:
            a, g = a.flatten(1, -2).mean(1), g.flatten(2, -2).sum(2)
        a, g = a.flatten(0, -2), g.flatten(1, -2)
        seen = (g != 0).any(-1).any(0)  # what no output depends on, such as padding, is no term
        a, g = a[seen].double(), g[:, seen].flatten(0, 1).double()
        for name, factor in ((call.weight, a), (call.bias, torch.ones_like(a[:, :1]))):
            if name in self.left:
                self.left[name].addmm_(g.mT, g)
                self.right[name].addmm_(factor.mT, factor)
                self.count[name] += len(factor)

    def blocks(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The factors :math:`G` and :math:`A / R` by weight."""
        return {name: (self.left[name], self.right[name] / max(1, self.count[name])) for name in self.names}

    @cached_property
    def eigen(self) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """The eigenvalues ``[E, D]`` of every product and the bases of its factors, once everything is added."""
        found = {}
        for name, (g, a) in self.blocks().items():
            (of_g, left), (of_a, right) = torch.linalg.eigh(g), torch.linalg.eigh(a)
            found[name] = (torch.outer(of_g.clamp(min=0), of_a.clamp(min=0)), left, right)
        return found

    def normal(self, prior: Mapping[str, Tensor]) -> KroneckerNormal:
        left, right, precision = {}, {}, {}
        for name, (products, left[name], right[name]) in self.eigen.items():
            precision[name] = products + prior[name].flatten()[0]
            check_positive(name, precision[name].min(), precision[name].max(), prior[name])
        rest = None if self.rest is None else self.rest.normal(prior)
        return KroneckerNormal(self.shapes, left, right, precision, rest)
