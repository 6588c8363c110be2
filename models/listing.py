"""Every sample site of a model: what is drawn, in what shape, from which distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution

from .lifting import BayesianModel


@dataclass(frozen=True, eq=False)
class SampleSite:
    """A latent sample site of a `BayesianModel`.

    Args:
        name: Its name in traces, guides and draws.
        role: ``hyper``: a hyperparameter of weights; ``weight``: a weight; ``standard``: what a weight in non-centred
            form is computed from; ``likelihood``: a parameter of the likelihood; ``rows``: the rows of an attention
            layer.
        shape: Of one value; None for rows, whose shape is that of the data.
        distribution: The prior (of a weight in centred form: where its hyper-sites start); None for rows, whose prior
            depends on the layer's activations.
        choice: The prior as it was chosen (a function included); None for the likelihood's sites.
        weights: The weights that depend on the site; empty for the likelihood's sites and for rows.
    """

    name: str
    role: Literal["hyper", "weight", "standard", "likelihood", "rows"]
    shape: torch.Size | None
    distribution: Distribution | None
    choice: Any
    weights: tuple[str, ...] = ()


def sample_sites(model: BayesianModel) -> dict[str, SampleSite]:
    """Every latent sample site of a model by name, in the order in which they are drawn; rows come last."""
    found: dict[str, SampleSite] = {}
    hypers, priors = model.hyper_sites, model.distributions()
    owners: dict[str, list[str]] = {name: [] for name in hypers}
    for weight, site in model.sites.items():
        for name in getattr(model.chosen[weight], "hyper_sites", lambda _: ())(site):
            owners[name].append(weight)
    for name, prior in hypers.items():
        choice, weights = model.chosen[owners[name][0]], tuple(owners[name])
        found[name] = SampleSite(name, "hyper", prior.event_shape, prior, choice, weights)
    for (name, prior), weight in zip(priors.items(), model.sites, strict=True):
        role: Literal["weight", "standard"] = "weight" if name == weight else "standard"
        found[name] = SampleSite(name, role, prior.event_shape, prior, model.chosen[weight], (weight,))
    with poutine.block(), poutine.trace() as tracer, torch.random.fork_rng(devices=[]):
        model.likelihood.sites()
    for name, node in tracer.trace.nodes.items():
        prior = node["fn"]
        found[name] = SampleSite(name, "likelihood", prior.batch_shape + prior.event_shape, prior, None)
    for name in model.rows:
        found[name] = SampleSite(name, "rows", None, None, model.row_priors[name])
    return found
