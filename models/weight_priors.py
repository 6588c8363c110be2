"""The priors of a net's weights at work: what is drawn, in which order, and where it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution
from torch import Tensor, nn

from ..priors import HierarchicalPrior, Prior, SettingError, Site
from ..priors.support import moved_inside
from .sites import AnyPrior


@dataclass(frozen=True, eq=False)
class Made:
    """What priors say for one device and dtype.

    Args:
        key: Device and dtype.
        sites: The weights, with values of that kind.
        hypers: The distributions of the hyper-sites.
        fixed: Those priors of weights that look at no hyperparameter, by the name of the sample site.
    """

    key: tuple[torch.device, torch.dtype]
    sites: dict[str, Site]
    hypers: dict[str, Distribution]
    fixed: dict[str, Distribution]


def as_event(name: str, prior: Distribution, shape: torch.Size) -> Distribution:
    """A user's prior, widened to one event of the parameter's shape."""
    lead = shape[: len(shape) - len(prior.event_shape)]
    fits = prior.event_shape == shape[len(lead) :] and len(prior.batch_shape) <= len(lead)
    sizes = zip(reversed(prior.batch_shape), reversed(lead), strict=False)
    if not fits or any(own not in (1, size) for own, size in sizes):
        own = tuple(prior.batch_shape + prior.event_shape)
        raise ValueError(f"the prior of {name} has shape {own}: expected {tuple(shape)}, or one that broadcasts to it")
    return prior.expand(lead).to_event(len(lead)) if lead else prior


def with_plate(value: Tensor, event_dim: int) -> Tensor:
    """A value ``[S, *event]`` as ``[S, 1, *event]``: Pyro's parallel `Predictive` leaves out the data plate."""
    return value.unsqueeze(-event_dim - 1) if value.dim() == event_dim + 1 else value


def key_of(name: str) -> str:
    """A name as torch allows it for parameters and buffers: without dots."""
    return name.replace(".", "/")


def same_distribution(one: Distribution | None, other: Distribution | None) -> bool:
    """Whether two distributions are one: of a kind, with equal draws from one seed and equal densities there."""
    if one is None or other is None or type(one) is not type(other):
        return one is other
    with torch.random.fork_rng(devices=[]):
        draws = []
        for distribution in (one, other):
            torch.manual_seed(0)
            draws.append(distribution.sample())
    return _same(*draws) and _same(one.log_prob(draws[0]), other.log_prob(draws[0]))


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other if one is None or other is None else torch.equal(one, other)


class WeightPriors(nn.Module):
    """The priors of a net's weights; its parameters are the hyperparameters that priors have learned.

    Its buffers are the values of the weights whose priors look at them, so that they are saved with the model.

    Args:
        sites: The weights that are drawn, by name.
        chosen: The prior of each.

    Methods take the net, whose parameters tell the device, the dtype and the values to start from.

    Raises:
        SettingError: A prior is none for its weight, or weights that share a hyperparameter differ in what it is.
    """

    def __init__(self, sites: dict[str, Site], chosen: dict[str, AnyPrior]):
        super().__init__()
        self.sites, self.chosen = sites, chosen
        for name, prior in chosen.items():
            if isinstance(prior, Prior | HierarchicalPrior):
                prior.check_site(sites[name])
        self.hierarchical = {name: p for name, p in chosen.items() if isinstance(p, HierarchicalPrior)}
        self.conditional = any(prior.conditional for prior in self.hierarchical.values())
        self.starts: dict[str, Tensor] = {}
        self._made: Made | None = None
        self.kept = {name: key_of(f"{name}_center") for name, p in chosen.items() if getattr(p, "looks_at_values", 0)}
        for name, key in self.kept.items():
            self.register_buffer(key, sites[name].value.clone())
        self._check_shared()
        self.restart()

    def _check_shared(self) -> None:
        """Refuse hyperparameters of one name in which weights differ: that of the first would win, unseen."""
        seen: dict[str, tuple[str, Distribution | None, Tensor | None]] = {}
        for name, prior in self.hierarchical.items():
            site = self.sites[name]
            with poutine.block():
                drawn, starts = prior.hyper_sites(site), {**prior.start(site), **prior.learned(site)}
            for own in {**drawn, **starts}:
                first, distribution, start = seen.setdefault(own, (name, drawn.get(own), starts.get(own)))
                if first == name:
                    continue
                what = "distribution" if not same_distribution(distribution, drawn.get(own)) else "start"
                if what == "distribution" or not _same(start, starts.get(own)):
                    expected = f"one {what} for all weights that share it: {first} and {name} give different ones"
                    raise SettingError("prior", own, expected)

    def names(self) -> dict[str, str]:
        """Whose they are, by the name of every site and hyperparameter that the priors state: the first weight's."""
        found: dict[str, str] = {}
        for name, prior in self.hierarchical.items():
            site = self.sites[name]
            with poutine.block():
                stated = [*prior.hyper_sites(site), *prior.learned(site)]
            for own in (*stated, *({prior.drawn_as(site)} - {name})):
                found.setdefault(own, name)
        return found

    def differing(self, other: WeightPriors) -> set[str]:
        """The weights whose prior is another one in a copy of these: around other values, or with others learned."""
        own, its = ({**dict(p.named_parameters()), **dict(p.named_buffers())} for p in (self, other))
        changed = {key for key, value in own.items() if not _same(value, its[key].to(value))}
        looked_at = {name: {self.kept[name]} if name in self.kept else set() for name in self.sites}
        for name, prior in self.hierarchical.items():
            looked_at[name] |= {key_of(learned) for learned in prior.learned(self.sites[name])}
        return {name for name, keys in looked_at.items() if keys & changed}

    def restart(self) -> None:
        """Put hyper-sites and learned hyperparameters back to the start that their priors give."""
        self.starts = {}
        for name, prior in self.hierarchical.items():
            for own, start in prior.learned(self.sites[name]).items():
                key = key_of(own)
                old = self._parameters.get(key)
                start = start.detach().clone()
                self.register_parameter(key, nn.Parameter(start if old is None else start.to(old)))

    def center(self, values: Mapping[str, Tensor]) -> None:
        """Make the priors that look at the values of their weights around these; others stay as they are."""
        buffers = dict(self.named_buffers())
        with torch.no_grad():
            for name in self.kept.keys() & values.keys():
                buffers[self.kept[name]].copy_(values[name])
        self._kept_have_changed()

    def _kept_have_changed(self) -> None:
        buffers = dict(self.named_buffers())
        for name, key in self.kept.items():
            self.sites[name] = replace(self.sites[name], value=buffers[key].clone())
        self._made = None

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._kept_have_changed()

    @property
    def learned(self) -> dict[str, Tensor]:
        """The learned hyperparameters by name."""
        return {key.replace("/", "."): value for key, value in self.named_parameters()}

    def made(self, net: nn.Module) -> Made:
        """What the priors say on the net's device and in its dtype, made once."""
        anchor = next(net.parameters(), torch.empty(0))
        key = (anchor.device, anchor.dtype)
        if self._made is None or self._made.key != key:
            parameters = dict(net.named_parameters())
            sites = {name: replace(site, value=site.value.to(parameters[name])) for name, site in self.sites.items()}
            hypers: dict[str, Distribution] = {}
            fixed: dict[str, Distribution] = {}
            with poutine.block(), poutine.trace() as tracer:
                for name, site in sites.items():
                    prior = self.chosen[name]
                    if isinstance(prior, HierarchicalPrior):
                        hypers |= {own: d for own, d in prior.hyper_sites(site).items() if own not in hypers}
                        if not prior.conditional:
                            fixed[prior.drawn_as(site)] = prior.distribution(site, {})
                    elif isinstance(prior, Prior):
                        fixed[name] = prior.distribution(site)
                    elif callable(prior):
                        fixed[name] = as_event(name, prior(name, site.value), site.value.shape)
            if tracer.trace.nodes:  # the result is kept, so that what is drawn here would be drawn once and never again
                found = next(iter(tracer.trace.nodes))
                raise ValueError(
                    f"a prior states the site {found!r}: expected distributions without sites of their own"
                )
            self._made = Made(key, sites, hypers, fixed)
        return self._made

    def drawn_as(self, name: str) -> str:
        """The name of the sample site of a weight."""
        prior = self.hierarchical.get(name)
        return name if prior is None else prior.drawn_as(self.sites[name])

    def distributions(self, made: Made, hypers: Mapping[str, Tensor]) -> dict[str, Distribution]:
        """The priors of all weights given hyperparameters, by the name of the sample site."""
        if not self.conditional:
            return made.fixed
        names = {name: self.drawn_as(name) for name in made.sites}
        return {
            own: made.fixed[own]
            if own in made.fixed
            else self.hierarchical[name].distribution(made.sites[name], hypers)
            for name, own in names.items()
        }

    def draw(self, net: nn.Module) -> dict[str, Tensor]:
        """Draw the hyper-sites, then every weight."""
        made = self.made(net)
        if not self.hierarchical:
            return {name: pyro.sample(name, prior) for name, prior in made.fixed.items()}
        hypers = self.learned
        for name, prior in made.hypers.items():
            hypers[name] = with_plate(pyro.sample(name, prior), prior.event_dim)
        priors, weights = self.distributions(made, hypers), {}
        for name, site in made.sites.items():
            own = self.drawn_as(name)
            weights[name] = with_plate(pyro.sample(own, priors[own]), priors[own].event_dim)
            if name in self.hierarchical:
                weights[name] = self.hierarchical[name].weight(site, weights[name], hypers)
            if own != name:
                weights[name] = pyro.deterministic(name, weights[name], event_dim=site.value.dim())
        return weights

    def weights(self, net: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights that values of hyper-sites and sample sites stand for; weights without values are left out."""
        made, hypers = self.made(net), {**values, **self.learned}
        found = {}
        for name, site in made.sites.items():
            prior, own = self.hierarchical.get(name), self.drawn_as(name)
            if own in values:
                found[name] = values[own] if prior is None else prior.weight(site, values[own], hypers)
        return found

    def initial_values(self, net: nn.Module) -> dict[str, Tensor]:
        """Where hyper-sites and sample sites start, from the net's own weights, inside the supports."""
        made, parameters, values = self.made(net), dict(net.named_parameters()), {}
        with torch.no_grad():
            for name, prior in self.hierarchical.items():
                for own, start in prior.start(made.sites[name]).items():
                    if own in values:  # shared, with one start
                        continue
                    values[own] = moved_inside(self.starts.get(own, start).to(start), made.hypers[own].support)
            hypers = {**values, **self.learned}
            priors = self.distributions(made, hypers)
            for name, site in made.sites.items():
                own, value = self.drawn_as(name), parameters[name].detach().clone()
                if name in self.hierarchical:
                    value = self.hierarchical[name].undo(site, value, hypers)
                values[own] = moved_inside(value, priors[own].support)
        return values
