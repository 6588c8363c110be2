"""From a net to a Pyro model: its parameters become sample sites."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import pyro
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution
from pyro.nn import PyroModule
from pyro.poutine.runtime import am_i_wrapped
from torch import Tensor, nn

from ..priors import PointEstimate, Prior, RowPrior, RowPriorModule, SettingError, Site, assign, choice_name
from .attention import Attention
from .calling import call
from .embeddings import FeatureEmbedding, TokenEmbedding
from .layers import LayerNorm
from .likelihoods import Categorical, Likelihood
from .transformer import Transformer

AnyPrior = Prior | RowPrior | PointEstimate | Callable[[str, Tensor], Distribution]
Data = Tensor | tuple[Tensor, ...]

NORMS = (LayerNorm, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)

TABLES = (nn.Embedding, TokenEmbedding, FeatureEmbedding, Transformer)
"""Modules whose own parameters (a transformer's: its positions) are tables: a token meets one row."""


def weight_sites(net: nn.Module) -> dict[str, Site]:
    """Every parameter of a net as a `Site`, keyed by name; a tied parameter appears once, under its first owner.

    Parameters of row priors are left out: they are hyperparameters.
    """
    owners = dict(net.named_modules())
    sites = {}
    for name, value in net.named_parameters():
        path, _, own = name.rpartition(".")
        owner = owners[path]
        if isinstance(owner, RowPriorModule):
            continue
        weight = value if value.dim() > 1 else getattr(owner, own.replace("bias", "weight"), None)
        if isinstance(weight, Tensor) and weight.dim() > 1 and not isinstance(owner, TABLES + NORMS):
            fan_in = weight[0].numel()
        else:
            fan_in = 1
        center = 1.0 if isinstance(owner, NORMS) and own == "weight" else 0.0
        # a copy: priors may be made around these values, and the net's own will move
        sites[name] = Site(name, value.detach().clone(), fan_in, center)
    return sites


def row_sites(net: nn.Module) -> dict[str, Attention]:
    """Every attention layer whose rows may be drawn, keyed by the name of its row site."""
    return {
        f"{name}.rows" if name else "rows": layer for name, layer in net.named_modules() if isinstance(layer, Attention)
    }


def assign_priors(
    prior: AnyPrior | Mapping[str, AnyPrior], weights: Iterable[str], rows: Iterable[str]
) -> tuple[dict[str, AnyPrior], dict[str, RowPrior]]:
    """Resolve a prior, or a map of globs to priors, for the weights and the attention rows of a net.

    Row priors cover attention rows and other priors cover weights, each by the first of its own patterns that matches.
    Rows that no row prior covers are computed by softmax; every weight must be covered.

    Returns:
        The prior of every weight, and that of every layer with random rows.

    Raises:
        SettingError: A pattern matches nothing, a weight is covered by none, or a choice is no prior.
    """
    weights, rows = list(weights), list(rows)
    choices = prior if isinstance(prior, Mapping) else {"*": prior}
    for pattern, choice in choices.items():
        if isinstance(choice, type) or not (isinstance(choice, RowPrior | PointEstimate) or callable(choice)):
            raise SettingError(
                pattern, choice, "a prior such as Normal(), a point estimate such as Fixed(), or a function"
            )
    of_rows = {pattern: p for pattern, p in choices.items() if isinstance(p, RowPrior)}
    of_weights = {pattern: p for pattern, p in choices.items() if not isinstance(p, RowPrior)}
    if of_rows and not of_weights:
        lone = next(iter(of_rows.values()))
        hint = f"{{'*.rows': {choice_name(type(lone))}, '*': learned}}"
        raise SettingError("", choice_name(type(lone)), f"a prior over the weights as well, such as {hint}")
    found_rows = assign({**of_rows, "*": None}, rows, kind="attention layer's rows") if of_rows else {}
    return (
        assign(of_weights, weights, kind="weight"),
        {name: p for name, p in found_rows.items() if p is not None},
    )


class _Scope:
    """A prefix for parameters in Pyro's store that no other object shares, not even a deep copy of its owner."""

    count = itertools.count()

    def __init__(self) -> None:
        self.name = f"pyroformer_{next(self.count)}"

    def __deepcopy__(self, memo: dict[int, object]) -> _Scope:
        return type(self)()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()


class BayesianModel(PyroModule):
    r"""The Pyro model of a net with random parameters: ``model(x, y=None, num_data=None)``.

    .. math:: w \sim p(w), \qquad y_n \sim p(y_n \mid f_w(x_n)), \; n = 1 \dots N

    Weight sites are drawn first, outside the plate ``data``; the net then runs once inside the plate, whose size is
    ``num_data`` with the batch as its subsample, so that likelihood and attention rows count ``num_data / B`` times.

    Args:
        net: Any `torch.nn.Module`; it is copied, never changed.
        prior: A `Prior`, a `PointEstimate`, a function ``(name, parameter) -> Distribution``, or a map from globs over
            site names to these and to `RowPrior` s; first match wins. See `assign_priors`.
        likelihood: A `Likelihood`, default ``Categorical()``.

    Attributes:
        sites: The weight sites that are drawn, in the order of the net's parameters.
        rows: The names of the attention-row sites.

    Raises:
        SettingError: A pattern matches nothing, or a weight is covered by none.

    Returns:
        When called, the net's output: ``[B, ...]``, or ``[S, B, ...]`` under an outer plate of size ``S``.
    """

    def __init__(self, net: nn.Module, prior: AnyPrior | Mapping[str, AnyPrior], likelihood: Likelihood | None = None):
        super().__init__()
        net = copy.deepcopy(net)
        layers, weights = row_sites(net), weight_sites(net)
        chosen, rows = assign_priors(prior, weights, layers)
        for name, layer in layers.items():
            layer.row_site = name
            if name in rows:
                layer.set_row_prior(rows[name], name)
        self.net = net
        self.likelihood = Categorical() if likelihood is None else copy.deepcopy(likelihood)
        self.rows = tuple(name for name, layer in layers.items() if layer.row_prior is not None)
        self.sites = {name: weights[name] for name, p in chosen.items() if not isinstance(p, PointEstimate)}
        for name, value in net.named_parameters():
            choice = chosen.get(name)  # None: the parameter of a row prior, which is learned
            value.requires_grad_(choice.trained if isinstance(choice, PointEstimate) else choice is None)
        self.chosen = {name: p for name, p in chosen.items() if name in self.sites}
        self._priors: tuple[object, dict[str, Distribution]] | None = None
        self._scope = _Scope()
        self._shapes = {name: value.shape for name, value in net.named_parameters()}
        self._any_learned = bool(self.learned)

    @property
    def learned(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained as numbers, keyed by name: of the net, row priors and likelihood."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def initial_values(self) -> dict[str, Tensor]:
        """The value in the net of every latent site but the rows: where guides and samplers start."""
        values = dict(self._modules["net"].named_parameters())
        return {
            **{name: values[name].detach().clone() for name in self.sites},
            **self._modules["likelihood"].initial_values(),
        }

    def set_initial_values(self, values: Mapping[str, Tensor]) -> None:
        """Put ``values`` in the place of the net's own values of these sites."""
        parameters = dict(self._modules["net"].named_parameters())
        with torch.no_grad():
            for name, value in values.items():
                if name in parameters:
                    parameters[name].copy_(value)

    def reinitialized(self, seed: int) -> BayesianModel:
        """A copy whose net starts afresh, by every module's ``reset_parameters``, from this seed.

        Fixed parameters keep their values.

        Raises:
            ValueError: A module owns parameters and cannot start them.
        """
        model = copy.deepcopy(self)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for name, module in model._modules["net"].named_modules():
                reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
                if reset is not None:
                    reset()
                elif next(module.parameters(recurse=False), None) is not None:
                    raise ValueError(f"{type(module).__name__} at {name!r} has parameters but no reset_parameters()")
        own = dict(self._modules["net"].named_parameters())
        model.set_initial_values({n: p for n, p in own.items() if n not in self.sites and not p.requires_grad})
        return model

    def distributions(self) -> dict[str, Distribution]:
        """The prior of every weight site, on the net's device and in its dtype."""
        anchor = next(self._modules["net"].parameters(), torch.empty(0))
        key = (anchor.device, anchor.dtype)
        if self._priors is None or self._priors[0] != key:
            made, values = {}, dict(self._modules["net"].named_parameters())
            with poutine.block(), poutine.trace() as tracer:
                for name, site in self.sites.items():
                    choice, value = self.chosen[name], site.value.to(values[name])
                    if isinstance(choice, Prior):
                        made[name] = choice.distribution(replace(site, value=value))
                    elif callable(choice):
                        made[name] = self._event(name, choice(name, value), value.shape)
            if tracer.trace.nodes:  # the result is kept, so that what is drawn here would be drawn once and never again
                found = next(iter(tracer.trace.nodes))
                raise ValueError(
                    f"a prior states the site {found!r}: expected distributions without sites of their own"
                )
            self._priors = key, made
        return self._priors[1]

    @staticmethod
    def _event(name: str, prior: Distribution, shape: torch.Size) -> Distribution:
        """A user's prior, widened to one event of the parameter's shape."""
        lead = shape[: len(shape) - len(prior.event_shape)]
        fits = prior.event_shape == shape[len(lead) :] and len(prior.batch_shape) <= len(lead)
        sizes = zip(reversed(prior.batch_shape), reversed(lead), strict=False)
        if not fits or any(own not in (1, size) for own, size in sizes):
            own = tuple(prior.batch_shape + prior.event_shape)
            raise ValueError(
                f"the prior of {name} has shape {own}: expected {tuple(shape)}, or one that broadcasts to it"
            )
        return prior.expand(lead).to_event(len(lead)) if lead else prior

    def forward(self, x: Data, y: Tensor | None = None, num_data: int | None = None) -> Tensor:
        net, likelihood = self._modules["net"], self._modules["likelihood"]
        assert net is not None and likelihood is not None
        self._tell_pyro()
        # every weight before the plate: one first read inside it would become one weight per example
        weights = {name: pyro.sample(name, prior) for name, prior in self.distributions().items()}
        drawn = likelihood.sites()
        inputs = x if isinstance(x, tuple) else (x,)
        batch = len(inputs[0])
        subsample = torch.arange(batch, device=inputs[0].device)
        with pyro.plate("data", batch if num_data is None else num_data, subsample=subsample, dim=-1):
            outputs = call(net, weights, inputs, self._shapes)
            likelihood(outputs, y, drawn)
        return outputs

    def _tell_pyro(self) -> None:
        """Show the learned parameters to Pyro's store, for stock inference; ours optimises them directly."""
        if self._any_learned and am_i_wrapped():
            for name, parameter in self.named_parameters():
                if parameter.requires_grad:
                    pyro.param(f"{self._scope.name}.{name}", parameter)
