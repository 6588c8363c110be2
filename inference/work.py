"""What a piece of inference depends on, as plain data: by this a state or a net that is kept is found again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution
from torch import Tensor

from ..guides import Family, Guide
from ..models import Backbone, BayesianModel
from ..priors import HierarchicalPrior, Prior, describe


def guide_of(guide: Family | Mapping[str, Family] | Guide | None) -> Any:
    """The families of every site, or the map from globs to families that a guide will be made of."""
    if isinstance(guide, Guide):
        return {name: describe(guide.family_of(name)) for name in guide.sites}
    return describe(guide if guide is None or isinstance(guide, Family) else dict(guide))


def model_of(model: BayesianModel) -> dict[str, Any]:
    """The net with its settings and what it was built for, the likelihood and the priors of attention rows."""
    net = model._modules["net"]
    return {
        "net": describe(net) if isinstance(net, Backbone) else f"{type(net).__qualname__} {net}",
        "shapes": [_shapes(net.inputs), _shapes(net.outputs)] if isinstance(net, Backbone) else None,
        "likelihood": describe(model.likelihood),
        "rows": {name: describe(prior) for name, prior in model.row_priors.items()},
    }


def _shapes(found: Any) -> Any:
    """Inputs or outputs as plain data: whether they are padded, or look ahead, is no setting and no shape of a net."""
    return {type(found).__qualname__: asdict(found)} if is_dataclass(found) and not isinstance(found, type) else None


def priors_of(model: BayesianModel) -> dict[str, Any]:
    """The prior of every weight; a user's function is known by the densities that it gives."""
    made = model.distributions()
    parameters = dict(model._modules["net"].named_parameters())
    return {
        name: describe(prior)
        if isinstance(prior, Prior | HierarchicalPrior)
        else _densities(made[name], model.sites[name].value.to(parameters[name]))
        for name, prior in model.chosen.items()
    }


def _densities(prior: Distribution, value: Tensor) -> list[Any]:
    """What tells a distribution from others: its type, and the log-densities of a few values."""
    logs: list[str] = []
    for point in (value, value.abs() + 0.5, 0.5 - value, 3 * value - 2):
        try:
            logs.append(float(prior.log_prob(point).sum()).hex())
        except ValueError:  # outside the support
            logs.append("none")
    return [type(prior).__qualname__, *logs]
