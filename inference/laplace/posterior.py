"""A normal distribution around a trained net, and the functions that it stands for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ...models import BayesianModel
from ...models.calling import eval_mode
from ..data import Inputs, first, move, take
from ..posterior import Posterior
from ..prediction import slices
from .diagonal import DiagonalNormal
from .full import FullNormal
from .functions import Functions, Weights, identity_cotangents
from .kronecker import KroneckerNormal
from .structure import StructuredNormal

NORMALS: dict[str, type[StructuredNormal]] = {
    "diagonal": DiagonalNormal,
    "kronecker": KroneckerNormal,
    "full": FullNormal,
}


class LaplacePosterior(Posterior):
    r"""A normal distribution of weights around a mode; the other sites stay at the mode.

    .. math:: \theta \sim \mathcal N(\theta^*, T P^{-1}), \qquad
        f_s(x) = f(x; \theta^*) + J(x) (\theta_s - \theta^*) \quad \text{or} \quad f(x; \theta_s)

    Args:
        model: The model, whose net holds the mode.
        normal: The distribution of the deviations at temperature 1.
        mode: :math:`\theta^*` of every global site, by name.
        temperature: :math:`T`.
        linearized: Whether draws go through the linearised net (see above, left) or the net itself.
        probit: Whether classes are predicted, and tokens generated, by the probit approximation, without draws; for
            linearised nets. `decompose` draws all the same.
        info: See `Posterior`.
    """

    def __init__(
        self,
        model: BayesianModel,
        normal: StructuredNormal,
        mode: Mapping[str, Tensor],
        *,
        temperature: float = 1.0,
        linearized: bool = True,
        probit: bool = False,
        info: Mapping[str, Any] | None = None,
    ):
        super().__init__(model, info)
        self.normal, self.mode = normal, {name: value.detach().clone() for name, value in mode.items()}
        self.temperature, self.linearized, self.probit = temperature, linearized, probit
        self.closed_form = probit
        self.functions = Functions(model, list(normal.shapes))

    @property
    def num_samples(self) -> int | None:
        return None

    def chunks(self, num_samples: int, most: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
        return self._in_blocks(num_samples, most, self._fresh)

    def _fresh(self, size: int) -> dict[str, Tensor]:
        draws = {name: value.expand(size, *value.shape) for name, value in self.mode.items()}
        for name, deviation in self.normal.draw(size).items():
            draws[name] = draws[name] + (deviation * math.sqrt(self.temperature)).to(self.mode[name])
        return draws

    def run(self, weights: dict[str, Tensor], x: Inputs, size: int) -> tuple[Tensor, dict[str, Tensor]]:
        if not self.linearized:
            return super().run(weights, x, size)
        deviations = {name: weights[name] - self.mode[name] for name in self.normal.shapes}
        return self.functions.forward(deviations, x), {}

    def logit_variances(self, x: Inputs, *, last: bool = False) -> tuple[Tensor, Tensor]:
        r"""The net's outputs and the variances of the linearised ones, :math:`T\,\mathrm{diag}(J P^{-1} J^\top)`.

        Args:
            x: Inputs ``[B, ...]``, on the model's device.
            last: Whether only those of the last token are wanted, of outputs per token; default False.

        Returns:
            Both ``[B, ...]``, or ``[B, 1, C]``.
        """
        outputs = self.functions(self.functions.mode, x)
        wanted = outputs[:, -1:] if last else outputs
        variances, count = torch.empty_like(wanted), wanted[0].numel()
        for where in slices(len(outputs), self.functions.most(count)):
            jacobian = self.functions.backward(take(x, where), identity_cotangents(outputs[where], count))
            variances[where] = (self.temperature * self.normal.projected(jacobian)).view_as(wanted[where]).to(outputs)
        return wanted, variances

    def in_closed_form(self, x: Inputs, *, last: bool = False) -> Tensor:
        outputs, variances = self.logit_variances(x, last=last)
        return (outputs / (1 + math.pi / 8 * variances).sqrt()).unsqueeze(0)

    def _predict(self, x: Inputs, num_samples: int, batch_size: int, gathered: Any) -> None:
        if not self.probit:
            return super()._predict(x, num_samples, batch_size, gathered)
        anchor = next(self.model.parameters())
        x = move(x, anchor.device, anchor.dtype)
        with eval_mode(self.model):
            for where in slices(len(first(x)), batch_size):
                gathered.add(where, self.in_closed_form(take(x, where)), {})

    def tensors(self) -> dict[str, Tensor]:
        return {**self.normal.tensors(), **{f"mode/{name}": value for name, value in self.mode.items()}}

    def structure(self) -> dict[str, Any]:
        return {
            "structure": next(name for name, kind in NORMALS.items() if type(self.normal) is kind),
            "weights": list(self.normal.shapes),
            "sites": list(self.mode),
            "temperature": self.temperature,
            "linearized": self.linearized,
            "probit": self.probit,
        }

    @classmethod
    def restored(cls, model: BayesianModel, structure: dict[str, Any], tensors: dict[str, Tensor]) -> Posterior:
        mode: Weights = {name: tensors[f"mode/{name}"] for name in structure["sites"]}
        found, sites = ({name: v.shape for name, v in values.items()} for values in (mode, model.initial_values()))
        if found != sites:
            wrong = min(name for name in {*found, *sites} if found.get(name) != sites.get(name))
            there, here = (tuple(at[wrong]) if wrong in at else "none" for at in (found, sites))
            raise LookupError(f"the mode of {wrong} has shape {there}: expected {here}")
        shapes = {name: mode[name].shape for name in structure["weights"]}
        normal = NORMALS[structure["structure"]].restored(shapes, tensors)
        settings = {key: structure[key] for key in ("temperature", "linearized", "probit")}
        return cls(model, normal, mode, **settings)
