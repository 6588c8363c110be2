"""The log-density of a Pyro model, with its gradient, as a function of one vector."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from ...priors.compiling import Compiled
from ...priors.settings import SettingError, check, check_positive
from .batching import batchable, without_mutation
from .cleaning import cleaned
from .fusing import fused
from .joint import Joint
from .layout import Layout
from .tracing import LOOKS, NotTraceable, traced, warn_of_running

Evaluation = Callable[[Tensor], tuple[Tensor, Tensor]]
AGREEMENT = {torch.float64: 1e-9, torch.float32: 1e-3}
"""How far two evaluations may differ, as a share of the largest number: the order of sums is not the same."""


class FlatDensity:
    r"""The log-density of a Pyro model at vectors of unconstrained numbers, with its gradient.

    .. math:: \ln \pi(z) = \frac1T \ln p\big(y, t(z)\big) + \ln \left| \det \frac{\partial t(z)}{\partial z} \right|

    with the map :math:`t` from unconstrained numbers to the values of the latent sites. The model runs a few times,
    while the tensor operations of density and gradient are written down; afterwards these alone are done, and the model
    must stay as it is. A model for which that cannot be done, since its operations depend on values, says so in a
    warning and runs in every evaluation. Networks are evaluated, not trained: without dropout. What is learned as a
    number stays at its present value.

    Args:
        model: A `BayesianModel`, or any function with Pyro's primitives, all of whose latent sites are continuous.
        args: Its positional arguments, data included, such as ``(x, y)``.
        kwargs: Its keyword arguments, default none.
        temperature: :math:`T > 0` of the joint density, default 1. The Jacobian keeps its weight.
        compile: Whether operations are compiled, default False: seconds before the first evaluation, the same numbers
            to rounding. Without a compiler a warning says so.
        trace: Whether operations are written down, default True; False runs the model in every evaluation.

    Attributes:
        layout: The map :math:`t`, a `Layout`.
        size: The length ``D`` of the vector.
        graph: The operations for one vector, or None where the model runs in every evaluation.

    Raises:
        SettingError: A setting is out of range, or the model has no such density; see `Layout`.

    Reference:
        Kucukelbir et al., 2017, "Automatic differentiation variational inference", Eq. 4 (the change of variables).
    """

    def __init__(
        self,
        model: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        temperature: float = 1.0,
        compile: bool = False,
        trace: bool = True,
    ):
        self.temperature, self.compile, self.trace = temperature, compile, trace
        check_positive(self, "temperature")
        check(self, "compile", trace or not compile, "false where trace is false: what is compiled is the graph")
        self.layout = Layout(model, args, kwargs)
        self.joint = Joint(model, tuple(args), dict(kwargs or {}), self.layout, temperature)
        self.graph: GraphModule | None = None
        self._single: Evaluation = self.joint.value_and_grad
        self._batched: dict[int, Evaluation] = {}
        with torch.random.fork_rng(devices=[]):
            self._check()
            if trace:
                self._trace()

    @property
    def size(self) -> int:
        return self.layout.size

    def start(self) -> Tensor:
        """A vector ``[D]`` to start from: see `Layout.start`."""
        return self.layout.start()

    def flatten(self, values: Mapping[str, Tensor]) -> Tensor:
        """The vector for values by site: see `Layout.flatten`."""
        return self.layout.flatten(values)

    def unflatten(self, z: Tensor) -> dict[str, Tensor]:
        """The values by site for a vector ``[D]`` or ``[K, D]``: see `Layout.unflatten`."""
        return self.layout.unflatten(z)

    def log_prob_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The log-density and its gradient.

        Args:
            z: ``[D]``, or ``[K, D]`` for several chains.

        Returns:
            A scalar and ``[D]``, or ``[K]`` and ``[K, D]``.
        """
        with torch.no_grad():
            if z.dim() == 1:
                return self._single(z)
            if len(z) == 1:
                value, gradient = self._single(z[0])
                return value.unsqueeze(0), gradient.unsqueeze(0)
            return self._several(z)

    def _several(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The densities of ``K`` vectors at once, by operations that are written down for each ``K``."""
        if self.graph is None:
            return self._looped(z)
        if len(z) not in self._batched:
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("error", message=".*batching rule.*")  # it would be a loop, a slow one
                    several = traced(torch.func.vmap(batchable(self.graph)), z)
                batched = cleaned(several, z)
                own = self.joint.value_and_grad(z[0])
                if not agree(tuple(part[0] for part in batched(z)), own):
                    raise NotTraceable("for several chains they give other numbers")
                self._batched[len(z)] = self._finished(batched, z)
            except NotTraceable as error:
                said = f"chains are evaluated one after another, since they could not be batched: {error}"
                warnings.warn(said, RuntimeWarning, stacklevel=3)
                self._batched[len(z)] = self._looped
        return self._batched[len(z)](z)

    def _looped(self, z: Tensor) -> tuple[Tensor, Tensor]:
        values, gradients = zip(*(self._single(each) for each in z), strict=True)
        return torch.stack(values), torch.stack(gradients)

    def _finished(self, graph: GraphModule, z: Tensor) -> Evaluation:
        if not self.compile:
            return graph
        quick = fused(graph, z)
        with torch.no_grad():
            same = agree(quick(z), graph(z))
        return Compiled(quick if same else graph, dynamic=False)

    def _check(self) -> None:
        """Run the model twice at one place; its own errors are raised as they are."""
        start = self.start()
        if not agree(self.joint.value_and_grad(start), self.joint.value_and_grad(start)):
            expected = "a density: two evaluations at one place differ, so it draws random numbers beside its sites"
            raise SettingError("model", type(self.joint.model).__name__, expected)

    def _trace(self) -> None:
        """Write the operations down; they have to give what the model gives, also where they were not seen."""
        start = self.start()
        noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        elsewhere = start + 0.1 * noise.to(start)
        try:
            graph = cleaned(without_mutation(traced(self.joint.value_and_grad, start), start), start)
            with torch.no_grad():
                found = graph(elsewhere)
            if not agree(found, self.joint.value_and_grad(elsewhere)):
                raise NotTraceable(LOOKS)
        except NotTraceable as error:
            return warn_of_running(error)
        self.graph, self._single = graph, self._finished(graph, elsewhere)


def agree(own: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    """Whether two evaluations give the same numbers to rounding."""
    return all(
        torch.allclose(
            a, b, rtol=_share(a), atol=_share(a) * float(b.nan_to_num(0.0, 0.0, 0.0).abs().max()), equal_nan=True
        )
        for a, b in zip(own, other, strict=True)
    )


def _share(values: Tensor) -> float:
    return AGREEMENT.get(values.dtype, 1e-2)
