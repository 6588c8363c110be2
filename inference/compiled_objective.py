"""The loss of a guide on a minibatch, its parts and its gradients, as one compiled function."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from ..guides import Guide
from ..priors.compiling import Compiled
from .data import Inputs
from .density.cleaning import cleaned, is_pure
from .density.flat_density import agree
from .density.fusing import fused
from .density.noise import Draw, lifted
from .density.tracing import LOOKS, NotTraceable, functional, traced
from .density.unvalidated import Unvalidated
from .objective import OnePassELBO, Terms

Weights = tuple[float, float]
ELSEWHERE = 1e-2
"""How far from the present parameters a graph is tried, in the mean."""


@dataclass(frozen=True, eq=False)
class Step:
    """What a step of training needs to know of a minibatch.

    Args:
        terms: The parts of the bound.
        loss: What is minimised, divided by the number of examples.
        gradients: Of the loss, by the names of the parameters; those that it does not depend on are left out.
    """

    terms: Terms
    loss: Tensor
    gradients: dict[str, Tensor]


class CompiledObjective:
    r"""What a step of training computes of a minibatch, written down once and compiled.

    .. math:: (\theta, x, y, \varepsilon) \mapsto
        \big(-\tfrac1N \mathcal L, \text{the parts of } \mathcal L, -\tfrac1N \nabla_\theta \mathcal L\big)

    The random numbers :math:`\varepsilon` are drawn outside, by torch's generator and in the order in which the guide
    would have drawn them, so that the numbers are those of the plain objective to rounding. The graph is that of the
    shapes of the first minibatch; a last, smaller one is left to the plain objective, and so is everything, after one
    warning, where operations depend on values or change something in place.

    Args:
        objective: The bound.
        guide: The guide, with its model; both are copied to be written down.
        parameters: What is trained, by name: ``guide.`` or ``model.`` before the name that it has there.
        num_data: ``N``.
    """

    def __init__(self, objective: OnePassELBO, guide: Guide, parameters: Mapping[str, nn.Parameter], num_data: int):
        self.objective, self.guide, self.parameters, self.num_data = objective, guide, parameters, num_data
        self.shapes: list[torch.Size] | None = None
        self.run: Compiled | None = None
        self.draws: list[Draw] = []
        self.parts: list[str] = []
        self.moved: list[str] = []
        self.random = torch.get_rng_state()

    def __call__(self, x: Inputs, y: Tensor, weights: Weights) -> Step | None:
        """A step on a minibatch with these weights of the KL and of its rows; None where the plain one has to do it."""
        batch = [*(x if isinstance(x, tuple) else (x,)), y]
        shapes = [part.shape for part in batch]
        if self.shapes is None:
            self.shapes = shapes
            self._write_down(isinstance(x, tuple), batch)
        if self.run is None or shapes != self.shapes:
            return None
        self.random = torch.get_rng_state()
        arguments = [*self._numbers(weights), *(p.detach() for p in self.parameters.values()), *batch]
        with torch.no_grad():
            return self._step(self.run(*arguments, *(draw() for draw in self.draws)))

    def explain(self, x: Inputs, y: Tensor) -> None:
        """Run the plain objective as the last step did, so that the guide's trace shows what that met."""
        torch.set_rng_state(self.random)
        with torch.no_grad():
            self.objective.terms(self.guide, x, y, self.num_data)

    def _numbers(self, weights: Iterable[float]) -> list[Tensor]:
        like = next(iter(self.parameters.values()))
        return [torch.tensor(weight, dtype=like.dtype, device=like.device) for weight in weights]

    def _step(self, found: tuple[Tensor, ...]) -> Step:
        loss, *rest = found
        parts, gradients = rest[: len(self.parts)], rest[len(self.parts) :]
        return Step(
            Terms(**dict(zip(self.parts, parts, strict=True))), loss, dict(zip(self.moved, gradients, strict=True))
        )

    def _write_down(self, several: bool, batch: list[Tensor]) -> None:
        plain = Plain(self.objective, copy.deepcopy(self.guide), list(self.parameters), self.num_data, several)
        values = [p.detach() for p in self.parameters.values()]
        given = [*self._numbers((1.0, 1.0)), *values, *batch]
        try:
            with torch.random.fork_rng(devices=[]):
                before = plain.buffers()
                plain(*given)  # what is made in the first run, and kept, is not written down
                for name, value in plain.buffers().items():
                    if not torch.equal(value, before[name]):
                        raise NotTraceable(f"a run changes {name}")
                graph = traced(plain, *given, random=True)
                if not is_pure(graph):
                    graph = functional(graph, *given)
                draws = lifted(graph, *given)
                graph = cleaned(graph, *given, *(draw() for draw in draws))
                elsewhere = [value + ELSEWHERE * torch.randn_like(value) for value in values]
                turned = [*self._numbers((0.75, 0.5)), *elsewhere, *(part.flip(0) for part in batch)]
                torch.manual_seed(1)
                expected = plain(*turned)
                torch.manual_seed(1)
                with torch.no_grad():
                    if not agree(graph(*turned, *(draw() for draw in draws)), expected):
                        raise NotTraceable(LOOKS)
                graph = fused(graph, *given, *(draw() for draw in draws))
        except NotTraceable as error:
            warnings.warn(
                f"training runs uncompiled, since its operations could not be written down: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        self.parts, self.moved, self.draws = plain.parts, plain.moved, draws
        self.run = Compiled(graph, dynamic=False)


class Plain:
    """The loss, its parts and its gradients as a plain function of tensors.

    Args:
        objective, guide, num_data: See `CompiledObjective`; the guide is used up.
        names: Those of the parameters.
        several: Whether a net has several inputs.

    Attributes:
        parts: The names of the parts of the bound, after a run.
        moved: The parameters that the loss depends on, after a run.
    """

    def __init__(self, objective: OnePassELBO, guide: Guide, names: list[str], num_data: int, several: bool):
        self.names, self.num_data, self.several = names, num_data, several
        self.module = _Loss(objective, guide)
        self.parts: list[str] = []
        self.moved: list[str] = []

    def buffers(self) -> dict[str, Tensor]:
        """A copy of what a run may leave behind, such as running statistics."""
        return {name: value.clone() for name, value in self.module.model.named_buffers()}

    def __call__(self, beta: Tensor, row_beta: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """The loss; the parts; the gradients.

        Args:
            beta, row_beta: The weights of the KL and of its rows.
            rest: The parameters, the inputs, the observations.
        """
        *inputs, y = rest[len(self.names) :]
        x = tuple(inputs) if self.several else inputs[0]
        with torch.enable_grad(), Unvalidated():
            leaves = {n: v.detach().requires_grad_() for n, v in zip(self.names, rest, strict=False)}
            arguments = (x, y, self.num_data, beta, row_beta)
            loss, terms = torch.func.functional_call(self.module, leaves, arguments)
            gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        parts = {part.name: getattr(terms, part.name) for part in fields(Terms)}
        found = {name: gradient for name, gradient in zip(leaves, gradients, strict=True) if gradient is not None}
        self.parts, self.moved = [name for name, part in parts.items() if part is not None], list(found)
        return loss.detach(), *(parts[name].detach() for name in self.parts), *found.values()


class _Loss(nn.Module):
    """The loss as a module whose parameters can be replaced."""

    def __init__(self, objective: OnePassELBO, guide: Guide):
        super().__init__()
        self.objective, self.guide, self.model = objective, guide, guide.model

    def forward(self, x: Inputs, y: Tensor, num_data: int, beta: Any, row_beta: Any) -> tuple[Tensor, Terms]:
        terms = self.objective.terms(self.guide, x, y, num_data)
        return self.objective.loss_of(terms, beta, row_beta) / num_data, terms
