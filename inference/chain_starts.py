"""Where Markov chains start: at nets of their own, at draws of the prior, or at what another driver found."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..models import BayesianModel
from ..priors.settings import SettingError
from .data import Data
from .deep_ensemble import DeepEnsemble
from .driver import Driver, Families
from .monitor import Monitor
from .point import MAP
from .prior_functions import FLAT, PriorFunctions, flat_sites
from .starting import trained

Start = Driver | Literal["prior"] | None


class Starts(NamedTuple):
    """Where chains start.

    Args:
        model: The model of all chains: its priors around the net's weights are made around the first chain's net where
            chains start at nets that are trained.
        values: By site, for each chain.
        info: What the drivers that found them have to say of themselves.
    """

    model: BayesianModel
    values: list[dict[str, Tensor]]
    info: list[dict[str, Any]]


def seed_of(seed: int, chain: int) -> int:
    """The seed of one chain: far apart, so that the chains of neighbouring seeds share nothing."""
    return seed * 1_000_003 + chain


def one_each(start: Start) -> Driver | None:
    """The driver that runs once for every chain, or None: the start is found in one run for all, or in none."""
    if isinstance(start, DeepEnsemble):
        return start.member
    return start if isinstance(start, MAP) else None


def refusal(start: Start, model: BayesianModel, chains: int) -> str | None:
    """Why chains of a model cannot start there, or None when they can."""
    fresh = isinstance(start, DeepEnsemble) or (chains > 1 and (start is None or one_each(start) is not None))
    if fresh and (reason := model.no_fresh_start):
        return f"a net that starts afresh for every chain (or 1 chain): {reason}"
    if start == "prior":
        return FLAT if flat_sites(model) else None
    return start.refusal(model) if isinstance(start, Driver) else None


def find(
    start: Start, chains: int, model: BayesianModel, guide: Families | None, data: Data, seed: int, monitor: Monitor
) -> Starts:
    """Find where chains start.

    Args:
        start: The setting of the driver.
        chains: How many.
        model: The model.
        guide: For starts that fit one.
        data: What is learnt from.
        seed: Of the driver's run.
        monitor: Its records are marked with the part ``start``; with a `Library` nets that are there are not trained
            again.

    Raises:
        SettingError: The driver's posterior has fewer draws than there are chains.
    """
    if isinstance(start, Driver) and (each := one_each(start)) is not None:
        alone = chains == 1 and not isinstance(start, DeepEnsemble)  # then it is the net of other drivers' starts
        seeds = [seed if alone else seed_of(seed, chain) for chain in range(chains)]
        nets = [model if alone else model.reinitialized(own) for own in seeds]
        found = []
        for chain, (net, own) in enumerate(zip(nets, seeds, strict=True)):
            with monitor.labelled(**({"chain": chain} if chains > 1 else {})):
                found.append(_of_one(each, net, guide, data, own, monitor))
        moved = found[0].model if each.moves_centers or isinstance(each, MAP) else model
        return Starts(moved, [one.values[0] for one in found], [one.info[0] for one in found])
    if isinstance(start, Driver):
        with monitor.labelled(part="start"):
            posterior = start.run(model, guide, data, seed, monitor)
        draws = posterior.draw(chains, seed=seed)
        count = len(next(iter(draws.values())))
        if count < chains:
            raise SettingError("chains", chains, f"at most {count}, the draws that the start has")
        values = [{name: value[chain] for name, value in draws.items()} for chain in range(chains)]
        return Starts(posterior.model if start.moves_centers else model, values, [dict(posterior.info)])
    if start == "prior":
        prior = PriorFunctions(model)
        drawn = [prior.draw(1, seed=seed_of(seed, chain)) for chain in range(chains)]
        return Starts(model, [{name: value[0] for name, value in one.items()} for one in drawn], [])
    nets = [model if chain == 0 else model.reinitialized(seed_of(seed, chain)) for chain in range(chains)]
    return Starts(model, [net.initial_values() for net in nets], [])


def _of_one(
    driver: Driver, model: BayesianModel, guide: Families | None, data: Data, seed: int, monitor: Monitor
) -> Starts:
    """Where one chain starts; the model has its priors around the net that it starts from."""
    if isinstance(driver, MAP):
        started, info = trained(driver, model, data, seed, monitor)
        values = started.initial_values()
        weights = started.weights({name: value.unsqueeze(0) for name, value in values.items()})
        moved = started.centered_on({name: value[0] for name, value in weights.items()})
        return Starts(moved, [values], [info])
    with monitor.labelled(part="start"):
        posterior = driver.run(model, guide, data, seed, monitor)
    drawn = {name: value[0] for name, value in posterior.draw(1, seed=seed).items()}
    return Starts(posterior.model, [drawn], [dict(posterior.info)])


def jittered(z: Tensor, scale: float, seed: int) -> Tensor:
    """Unconstrained numbers ``[K, D]`` with normal noise of a standard deviation, each chain's its own."""
    if not scale:
        return z
    # beside the streams of the chains, whose first momenta would be the same numbers
    own = [torch.Generator().manual_seed(seed_of(seed, chain) + 500_001) for chain in range(len(z))]
    noise = torch.stack([torch.randn(z.shape[1:], generator=each, dtype=z.dtype) for each in own])
    return z + scale * noise.to(z.device)
