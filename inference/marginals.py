"""Prior against posterior, one site at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ..priors.improper import is_flat
from . import posterior as posteriors
from .files import read_tensors_and_content, write_tensors
from .mixture_posterior import MixturePosterior
from .posterior import Posterior, store_as_it_was

MOST_DRAWS = 128


@dataclass(frozen=True, eq=False)
class Marginal:
    """Entries of one weight or hyperparameter, all of its entries taken together.

    Args:
        posterior: Values ``[M]`` under the posterior.
        prior: Values ``[P]`` under the prior, or None where it is flat, none, or another one in every member.
    """

    posterior: Tensor
    prior: Tensor | None


def marginals(posterior: Posterior, *, most: int = 1000, seed: int = 0) -> dict[str, Marginal]:
    r"""What the posterior of each weight and hyperparameter became, against its prior.

    .. math:: \tfrac1{|w|} \sum_i p(w_i \mid y) \quad\text{against}\quad \tfrac1{|w|} \sum_i p(w_i)

    Args:
        posterior: The posterior.
        most: Values kept of each, drawn from the entries of up to 128 draws, default 1000.
        seed: Of the draws.

    Returns:
        By the name of the weight (of a hierarchical prior: the weight itself, whatever its form) or of the site. Where
        members of a mixture have different priors of a weight, around other values or with another learned scale, it
        has none here.
    """
    model = posterior.model
    if not posterior.num_weights:
        return {}
    size = max(1, min(MOST_DRAWS, posteriors.MAX_NUMBERS // posterior.num_weights))
    drawn = posterior.draw(size, seed=seed)
    others = {*model.hyper_sites, *model.likelihood.initial_values()}
    after = {**{name: drawn[name] for name in drawn if name in others}, **_weights(posterior, drawn)}
    with torch.random.fork_rng(devices=[]), torch.no_grad(), store_as_it_was():
        torch.manual_seed(seed)
        with poutine.block(), poutine.trace() as tracer, pyro.plate("draws", size, dim=-2):
            weights, _ = model.sample_globals()
        before = {**{name: tracer.trace.nodes[name]["value"] for name in after if name in others}, **weights}
        none = {name for name, prior in zip(model.sites, model.distributions().values(), strict=True) if is_flat(prior)}
        none |= _several(posterior)
    generator = torch.Generator().manual_seed(seed)
    return {
        name: Marginal(_some(v, most, generator), None if name in none else _some(before[name], most, generator))
        for name, v in after.items()
    }


def _weights(posterior: Posterior, drawn: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that draws stand for, those of each member of a mixture by what this one has learned."""
    if not isinstance(posterior, MixturePosterior):
        return posterior.model.weights(drawn)
    each = len(next(iter(drawn.values()))) // len(posterior.members)  # as many from all, one member after the other
    parts = [
        _weights(member, {name: value[index * each : (index + 1) * each] for name, value in drawn.items()})
        for index, member in enumerate(posterior.members)
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _several(posterior: Posterior) -> set[str]:
    """The weights whose priors differ between the members of a mixture."""
    if not isinstance(posterior, MixturePosterior):
        return set()
    first = posterior.model.weight_priors
    apart = [first.differing(member.model.weight_priors) | _several(member) for member in posterior.members]
    return set().union(*apart)


def _some(values: Tensor, most: int, generator: torch.Generator) -> Tensor:
    flat = values.detach().flatten().cpu()
    # with replacement: a permutation of millions of entries would cost more than the draws
    return (flat if len(flat) <= most else flat[torch.randint(len(flat), (most,), generator=generator)]).float()


def write_marginals(path: Path, found: Mapping[str, Marginal]) -> None:
    """Write marginals to a safetensors file, whole or not at all."""
    tensors = {f"posterior.{name}": marginal.posterior for name, marginal in found.items()}
    tensors |= {f"prior.{name}": m.prior for name, m in found.items() if m.prior is not None}
    write_tensors(path, tensors, {"sites": list(found)})  # safetensors keeps no order


def read_marginals(path: Path) -> dict[str, Marginal]:
    """The marginals that `write_marginals` wrote, in their order; none where there is no file."""
    if not path.is_file():
        return {}
    tensors, content = read_tensors_and_content(path)
    return {name: Marginal(tensors[f"posterior.{name}"], tensors.get(f"prior.{name}")) for name in content["sites"]}
