"""Which weights a Laplace approximation is over, and what their priors say."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution
from torch import Tensor, nn

from ...models import BayesianModel, Linear
from ...priors import HierarchicalPrior, Prior, choice_name
from ...priors.globs import near_misses
from ...priors.improper import is_flat
from .functions import Weights

ALL, LAST_LAYER = "all", "last_layer"


def last_layer(model: BayesianModel) -> str | None:
    """The glob of the net's last affine layer, in the order of its modules; None where there is none."""
    net = model._modules["net"]
    assert net is not None
    names = [name for name, module in net.named_modules() if isinstance(module, Linear | nn.Linear)]
    return (f"{names[-1]}.*" if names[-1] else "*") if names else None


def chosen(model: BayesianModel, subset: str | tuple[str, ...]) -> list[str]:
    """The random weights that a subset names, in the order of the net.

    Raises:
        ValueError: A pattern matches none.
    """
    patterns = (subset,) if isinstance(subset, str) else subset
    found: set[str] = set()
    for pattern in patterns:
        glob = {ALL: "*", LAST_LAYER: last_layer(model)}.get(pattern, pattern)
        if glob is None:
            raise ValueError("a net with a linear layer, or globs over its weights: it has no last layer")
        hits = fnmatch.filter(model.sites, glob)
        if not hits:
            near = near_misses(pattern, model.sites)
            raise ValueError(f"a subset of the random weights: {pattern!r} matches none{near}")
        found |= set(hits)
    return [name for name in model.sites if name in found]


@dataclass(frozen=True, eq=False)
class NormalPrior:
    """The normal priors of some weights; all numbers are float64, in the shape of the weight.

    Args:
        loc: Means by weight.
        precision: Inverse variances by weight; 0 where the prior is flat.
    """

    loc: Weights
    precision: Weights


def normal_prior(model: BayesianModel, names: list[str]) -> NormalPrior:
    """The priors of some weights.

    Raises:
        ValueError: One of them is not normal or flat.
    """
    made = model.distributions()
    loc, precision = {}, {}
    for name in names:
        prior = model.chosen[name]
        if isinstance(prior, HierarchicalPrior):
            raise ValueError(f"normal priors: that of {name} is hierarchical, with a random or learned scale")
        found = _normal(made[name], model.sites[name].value.shape)
        if found is None:
            kind = choice_name(type(prior)) if isinstance(prior, Prior) else "a function's"
            raise ValueError(f"normal or improper priors: that of {name} is {kind}, whose curvature is not constant")
        loc[name], precision[name] = found
    return NormalPrior(loc, precision)


def _normal(prior: Distribution, shape: torch.Size) -> tuple[Tensor, Tensor] | None:
    """Mean and precision of independent normal or flat entries, or None for others."""
    flat = is_flat(prior)
    while isinstance(prior, dist.Independent | dist.MaskedDistribution):
        if isinstance(prior, dist.MaskedDistribution) and not flat and prior._mask is not True:
            return None
        prior = prior.base_dist
    if not isinstance(prior, dist.Normal):
        return None
    loc, scale = (part.detach().double().expand(shape) for part in (prior.loc, prior.scale))
    return loc.clone(), torch.zeros_like(loc) if flat else scale.square().reciprocal()
