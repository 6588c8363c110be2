"""Normal priors of many sites as vectors: their expected log-density needs means and variances alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor

from .family import Distribution

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def normal_parameters(prior: Distribution) -> tuple[Tensor, Tensor] | None:
    """Location and inverse scale of an independent normal prior (inverse scale 0 when flat), else None."""
    flat = False
    while True:
        if isinstance(prior, dist.Independent):
            prior = prior.base_dist
        elif isinstance(prior, dist.MaskedDistribution) and prior._mask is False:
            prior, flat = prior.base_dist, True
        else:
            break
    if type(prior) is not dist.Normal:
        return None
    return prior.loc, torch.zeros_like(prior.scale) if flat else prior.scale.reciprocal()


@dataclass(frozen=True, eq=False)
class NormalPriors:
    """The normal priors of the covered sites, as vectors in the order of the family's own.

    Kept from run to run for as long as the model offers the same distribution objects with constant parameters.

    Args:
        covered: The sites that are counted.
        priors: What the model offered for them.
        others: Those among them whose prior is not normal, or whose closed form was not asked for.
        loc: Means ``[D]``, 0 where there is no normal prior.
        precision: ``[D]``, 0 where there is no normal prior or a flat one.
        constant: What else stands in the log-density.
        weight: 1 for the numbers of covered sites and 0 for others, ``[D]``; None where all are covered.
        count: How many numbers are covered.
    """

    covered: frozenset[str]
    priors: dict[str, Distribution]
    others: tuple[str, ...]
    loc: Tensor
    precision: Tensor
    constant: Tensor
    weight: Tensor | None
    count: float

    @classmethod
    @torch.enable_grad()
    def of(
        cls,
        like: Tensor,
        shapes: Mapping[str, torch.Size],
        covered: frozenset[str],
        closed: frozenset[str],
        priors: Mapping[str, Distribution],
    ) -> NormalPriors:
        """Read the priors of a run.

        Args:
            like: A tensor of the right type on the right device.
            shapes: Those of all sites, in order.
            covered: The sites to count.
            closed: Those among them whose closed form may be used.
            priors: By site.
        """
        locs, precisions, weights, others = [], [], [], []
        constant = like.new_zeros(())
        for name, shape in shapes.items():
            loc, precision = like.new_zeros(shape), like.new_zeros(shape)
            found = normal_parameters(priors[name]) if name in closed else None
            if found is not None:
                loc, precision, logs = _averaged(*found, shape)
                constant = constant + logs
            elif name in covered:
                others.append(name)
            locs.append(loc.reshape(-1))
            precisions.append(precision.reshape(-1))
            weights.append(torch.full_like(locs[-1], float(name in covered)))
        weight = torch.cat(weights)
        return cls(
            covered,
            {name: priors[name] for name in covered},
            tuple(others),
            torch.cat(locs),
            torch.cat(precisions),
            constant,
            None if len(covered) == len(shapes) else weight,
            float(sum(shape.numel() for name, shape in shapes.items() if name in covered)),
        )

    def fits(self, covered: frozenset[str], priors: Mapping[str, Distribution]) -> bool:
        """Whether they are those of another run too."""
        constant = not (self.loc.requires_grad or self.precision.requires_grad)
        return constant and covered == self.covered and all(priors[name] is p for name, p in self.priors.items())

    def expected(self, loc: Tensor, variance: Tensor) -> Tensor:
        """The expected log-density of the sites with normal priors, from means and variances ``[D]``."""
        squares = variance + (loc - self.loc).square()
        return self.constant - 0.5 * (self.precision * squares).sum()

    def drawn(self, flat: Tensor) -> Tensor:
        """The same, estimated by draws ``[S, D]``."""
        return self.constant - 0.5 * (self.precision * (flat - self.loc).square()).sum() / len(flat)


def _averaged(loc: Tensor, inverse: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """The normal whose expected log-density is the average over particles, each with its own draws of hyper-sites.

    Args:
        loc, inverse: Location and inverse scale, broadcastable to ``[..., *shape]``.
        shape: That of the site.

    Returns:
        Its location and its precision, in ``shape``, and the sum of what else stands in the average.
    """
    full = torch.broadcast_shapes(loc.shape, inverse.shape, shape)
    loc, inverse = (value.expand(full).reshape(-1, *shape) for value in (loc, inverse))
    proper = inverse > 0
    logs = torch.where(proper, torch.where(proper, inverse, 1.0).log() - HALF_LOG_2PI, 0.0).sum() / len(loc)
    if len(loc) == 1:
        return loc[0], inverse[0].square(), logs
    precision = inverse.square().mean(0)
    weights = inverse.square() / torch.where(precision > 0, precision, 1.0)
    center = (weights * loc).mean(0)
    spread = (inverse.square() * (loc - center).square()).mean(0)
    return center, precision, logs - 0.5 * spread.sum()
