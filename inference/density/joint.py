"""The log-density of a Pyro model at one vector of unconstrained numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ...guides.guide import as_evaluated
from .layout import Layout, Message
from .unvalidated import Unvalidated


def normal_of(site: Message) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation of every entry, in the value's shape, where that is all there is to a site."""
    found = site["fn"]
    while isinstance(found, torch.distributions.Independent):
        found = found.base_dist
    plain = site["mask"] in (None, True) if not isinstance(site["mask"], Tensor) else False
    if type(found) is not dist.Normal or not plain or isinstance(site["scale"], Tensor) or site["scale"] != 1:
        return None
    shape = site["value"].shape
    return found.loc.expand(shape), found.scale.expand(shape)


def joined(parts: list[Tensor]) -> Tensor:
    """Vectors one after another."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class Joint:
    r"""The log-density of a model in unconstrained numbers, by running it.

    .. math:: \frac1T \ln p\big(y, t(z)\big) + \ln \left| \det \frac{\partial t(z)}{\partial z} \right|

    Normal sites, which most weights are, count together as one vector.

    Args:
        model, args, kwargs: See `Layout`.
        layout: Where its latent sites are.
        temperature: :math:`T`.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        layout: Layout,
        temperature: float,
    ):
        self.model, self.args, self.kwargs = model, args, kwargs
        self.layout, self.temperature = layout, temperature

    def __call__(self, z: Tensor) -> Tensor:
        """The log-density, a scalar, at a vector ``[D]``."""
        values, volume = self.layout.placed(z)
        with as_evaluated(self.model), Unvalidated(), poutine.block():
            with poutine.trace() as tracer, poutine.condition(data=values):
                self.model(*self.args, **self.kwargs)
            density = self._log_joint(tracer.trace.nodes, z)
        return (density if self.temperature == 1 else density / self.temperature) + volume

    def _log_joint(self, nodes: Mapping[str, Message], z: Tensor) -> Tensor:
        normal: dict[str, tuple[Tensor, Tensor]] = {}
        total: Tensor | float = 0.0
        for name, site in nodes.items():
            if site["type"] != "sample" or site_is_subsample(site) or site["infer"].get("_deterministic"):
                continue
            if name in self.layout.offsets and (found := normal_of(site)) is not None:
                normal[name] = found
                continue
            log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
            total = total + scale_and_mask(log_prob, site["scale"], site["mask"]).sum()
        total = total + self._normal_sites(z, normal) if normal else total
        return torch.as_tensor(total)

    def _normal_sites(self, z: Tensor, found: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        """The log-density of normal sites, in the order of the vector, whose parts are taken out in whole runs."""
        names = [name for name in self.layout.names if name in found]
        runs: list[tuple[int, int]] = []
        for name in names:
            begin, end = self.layout.offsets[name]
            runs = [*runs[:-1], (runs[-1][0], end)] if runs and runs[-1][1] == begin else [*runs, (begin, end)]
        value = z if runs == [(0, len(z))] else joined([z[begin:end] for begin, end in runs])
        loc, scale = (joined([found[name][index].reshape(-1) for name in names]) for index in (0, 1))
        residual = (value - loc) / scale
        return -0.5 * residual.square().sum() - scale.log().sum() - 0.5 * math.log(2 * math.pi) * len(value)

    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The log-density and its gradient ``[D]``."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            value = self(z)
            (gradient,) = torch.autograd.grad(value, z)
        return value.detach(), gradient
