"""What a spec means, before anything is trained: every random number, what is fitted to it, and what stays a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution
from torch import Tensor

from ..guides import Delta, Guide, MeanField, ParameterCounts, Shared, count_parameters
from ..guides.guide import run_once
from ..inference.chained import Chained
from ..inference.driver import check_observations
from ..inference.posterior import store_as_it_was
from ..models import BayesianModel, SampleSite, sample_sites
from ..models.sites import ROW_MODULES
from ..priors import choice_name
from ..spec import KEYS, Spec
from .notes import notes
from .wording import in_words, is_choice

MADE = {"point": Delta, "mean_field": MeanField}
"""The family that a driver without a guide makes itself, by its treatment of sites."""


@dataclass(frozen=True)
class RandomSite:
    """A sample site.

    Args:
        name: Its name.
        role: ``weight``, ``hyper``, ``standard``, ``likelihood`` or ``rows``; see `SampleSite`.
        shape: Of one value; of rows, that of one example.
        prior: In words, without the settings that have their default.
        posterior: The guide family, or what the driver makes of the site: ``point``, ``draws``, ...
        parameters: Numbers of the posterior that are this site's alone.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    prior: str
    posterior: str
    parameters: int


@dataclass(frozen=True)
class Point:
    """A parameter that is no random number.

    Args:
        name: Its name.
        role: ``weight``, ``row prior``, ``hyperparameter`` or ``likelihood``.
        shape: Its shape.
        trained: Whether it is learned; else it stays as it is.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    trained: bool


@dataclass(frozen=True)
class Totals:
    """How many numbers there are.

    Args:
        random: Random numbers outside the data: weights, hyperparameters, parameters of the likelihood.
        random_per_example: Random numbers that every example has of its own: attention rows.
        variational: Parameters of the posterior, of one member of an ensemble.
        trained: Parameters that are learned as numbers.
        fixed: Parameters that stay as they are.
    """

    random: int
    random_per_example: int
    variational: int
    trained: int
    fixed: int


@dataclass(frozen=True)
class Explanation:
    """What a spec means, as plain data; it prints as text.

    Args:
        parts: The keys of the spec with their choices and all settings in words; a map from globs stays a map.
        sets: The task's sets and their sizes.
        likelihood: In words.
        sites: Every sample site, in the order in which they are drawn.
        points: Every parameter that is no random number.
        shared: Parameters of the posterior that several sites share.
        members: How many posteriors are fitted, each with parameters of its own.
        totals: The sums.
        notes: What a user should know.
    """

    parts: dict[str, str | dict[str, str]]
    sets: dict[str, int]
    likelihood: str
    sites: tuple[RandomSite, ...]
    points: tuple[Point, ...]
    shared: tuple[Shared, ...]
    members: int
    totals: Totals
    notes: tuple[str, ...]

    def __rich__(self) -> Any:
        from .explanation_view import ExplanationView

        return ExplanationView(self)

    def __str__(self) -> str:
        from .terminal import as_text

        return as_text(self)


def explain(spec: Spec) -> Explanation:
    """What a spec means: its sites, posteriors and numbers; nothing is trained.

    Args:
        spec: The spec; its data are read.

    Returns:
        The explanation.

    Raises:
        SpecError: The parts of the spec do not fit each other.
        DataError: The data are not found, or cannot be learnt from.
    """
    data = spec.task.load()
    with torch.random.fork_rng(devices=[]), store_as_it_was():
        model = spec.build_model(data)
        families = spec.build_guide(model, data)
        check_observations(model, data.data)
        example = data.data.example()
        fitted = None if isinstance(spec.driver, Chained) else families  # chains: it is the guide of where they start
        made = MADE.get(spec.driver.treatment) if fitted is None and model.initial_values() else None
        given = fitted if made is None else made()
        guide = None if given is None else Guide(model, given, example)
        counts = ParameterCounts({}, ()) if guide is None else count_parameters(guide, *example)
        named = () if guide is None or made is not None else guide.sites
        posteriors = {name: choice_name(type(guide.family_of(name))) for name in named} if guide is not None else {}
        traced = run_once(model, example)
        sites = tuple(
            RandomSite(
                name,
                site.role,
                tuple(traced[name]["fn"].shape()[1:] if site.shape is None else site.shape),
                _prior(site),
                posteriors.get(name, spec.driver.treatment),
                counts.own.get(name, 0),
            )
            for name, site in sample_sites(model).items()
        )
        points = _points(model)
    return Explanation(
        parts=_parts(spec, families),
        sets={name: size for name, size in data.source["sizes"].items() if size},
        likelihood=in_words(model.likelihood, full=True),
        sites=sites,
        points=points,
        shared=counts.shared,
        members=spec.driver.members,
        totals=_totals(sites, points, counts),
        notes=tuple(notes(spec, model, data)),
    )


def _parts(spec: Spec, families: Any) -> dict[str, str | dict[str, str]]:
    """Every key of the spec in words; the guide as it is where the spec leaves it open."""
    found: dict[str, str | dict[str, str]] = {}
    for key in KEYS:
        value = families if key == "guide" else getattr(spec, key)
        if value is None and key == "guide":
            value = "none"
        if isinstance(value, Mapping):
            found[key] = {glob: in_words(choice, full=True) for glob, choice in value.items()}
        else:
            found[key] = in_words(value, full=True)
    return found


def _prior(site: SampleSite) -> str:
    if site.role in ("hyper", "likelihood") or not is_choice(site.choice):
        return density(site.distribution) if site.distribution is not None else in_words(site.choice)
    return in_words(site.choice)


def density(distribution: Distribution) -> str:
    """A distribution with those of its parameters that are one number: ``half_cauchy(scale=1)``."""
    while hasattr(distribution, "base_dist") and not distribution.arg_constraints:  # Independent, masked, expanded
        distribution = distribution.base_dist
    shown = []
    for name in distribution.arg_constraints:
        value = getattr(distribution, name, None)
        if isinstance(value, Tensor) and value.numel() and bool((value == value.flatten()[0]).all()):
            shown.append(f"{name}={float(value.flatten()[0]):.4g}")
    return choice_name(type(distribution)) + (f"({', '.join(shown)})" if shown else "")


def _points(model: BayesianModel) -> tuple[Point, ...]:
    owners = dict(model.net.named_modules())
    found = []
    for name, value in model.net.named_parameters():
        if name not in model.sites:
            role = "row prior" if isinstance(owners[name.rpartition(".")[0]], ROW_MODULES) else "weight"
            found.append(Point(name, role, tuple(value.shape), value.requires_grad))
    found += [Point(name, "hyperparameter", tuple(v.shape), True) for name, v in model.weight_priors.learned.items()]
    for name, value in model.likelihood.named_parameters():
        found.append(Point(f"likelihood.{name}", "likelihood", tuple(value.shape), value.requires_grad))
    return tuple(found)


def _totals(sites: tuple[RandomSite, ...], points: tuple[Point, ...], counts: ParameterCounts) -> Totals:
    return Totals(
        random=sum(prod(site.shape) for site in sites if site.role != "rows"),
        random_per_example=sum(prod(site.shape) for site in sites if site.role == "rows"),
        variational=counts.total,
        trained=sum(prod(point.shape) for point in points if point.trained),
        fixed=sum(prod(point.shape) for point in points if not point.trained),
    )
