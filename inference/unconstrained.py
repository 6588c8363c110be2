"""The global sites of a model as one vector of unconstrained numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import biject_to

from ..guides.guide import is_latent
from ..models import BayesianModel


class Unconstrained:
    r"""The map between values of the global sites and one vector.

    .. math:: u = \big(t_1^{-1}(w_1), t_2^{-1}(w_2), \dots\big)

    with the sites in the order in which the model draws them, each mapped from its support to the real numbers.

    Args:
        model: The model.

    Attributes:
        shapes: The shape of each site's part of the vector, by site.
        size: The length ``P`` of the vector.
    """

    def __init__(self, model: BayesianModel):
        start = model.initial_values()
        with torch.no_grad(), torch.random.fork_rng(devices=[]), poutine.block(), poutine.trace() as tracer:
            model.sample_globals()
        sites = {name: site for name, site in tracer.trace.nodes.items() if is_latent(site)}
        self.transforms = {name: biject_to(site["fn"].support) for name, site in sites.items()}
        self.shapes = {name: transform.inv(start[name]).shape for name, transform in self.transforms.items()}
        self.sizes = [shape.numel() for shape in self.shapes.values()]
        self.size = sum(self.sizes)

    def joined(self, parts: Mapping[str, Tensor]) -> Tensor:
        """One vector ``[P]`` of unconstrained numbers that are given by site."""
        return torch.cat([parts[name].reshape(-1) for name in self.shapes])

    def values(self, vectors: Tensor) -> dict[str, Tensor]:
        """Values ``[S, ...]`` by site that vectors ``[S, P]`` stand for."""
        pieces = zip(self.shapes.items(), vectors.split(self.sizes, -1), strict=True)
        return {name: self.transforms[name](piece.reshape(-1, *shape)) for (name, shape), piece in pieces}
