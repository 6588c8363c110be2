"""From a net to a Pyro model: its parameters become sample sites."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution
from pyro.nn import PyroModule
from pyro.poutine.runtime import am_i_wrapped
from torch import Tensor, nn

from ..priors import Improper, PointEstimate, SettingError
from ..priors.globs import near_misses
from .calling import call
from .likelihoods import Categorical, Likelihood
from .sites import AnyPrior, assign_priors, row_sites, set_row_priors, weight_sites
from .weight_priors import WeightPriors

Data = Tensor | tuple[Tensor, ...]


class _Scope:
    """A prefix for parameters in Pyro's store that no other object shares, not even a deep copy of its owner."""

    count = itertools.count()

    def __init__(self) -> None:
        self.name = f"pyroformer_{next(self.count)}"

    def __deepcopy__(self, memo: dict[int, object]) -> _Scope:
        return type(self)()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()


def _reset_of(module: nn.Module) -> Callable[[], None] | None:
    """What starts a module's own parameters afresh, if it has that."""
    found: Callable[[], None] | None = getattr(module, "reset_parameters", None)
    return found or getattr(module, "_reset_parameters", None)


class BayesianModel(PyroModule):
    r"""The Pyro model of a net with random parameters: ``model(x, y=None, num_data=None)``.

    .. math:: w \sim p(w), \qquad y_n \sim p(y_n \mid f_w(x_n)), \; n = 1 \dots N

    Weight sites are drawn first, outside the plate ``data``, and the hyper-sites of hierarchical priors before them;
    the net then runs once inside the plate, whose size is ``num_data`` with the batch as its subsample, so that
    likelihood and attention rows count ``num_data / B`` times.

    Args:
        net: Any `torch.nn.Module`; it is copied, never changed.
        prior: A `Prior`, a `HierarchicalPrior`, a `PointEstimate`, a function ``(name, parameter) -> Distribution``, or
            a map from globs over weight names to these and to `RowPrior` s; first match wins. See `assign_priors`.
        likelihood: A `Likelihood`, default ``Categorical()``.

    Attributes:
        sites: The weights that are drawn, in the order of the net's parameters; in a non-centred form one is computed
            from a site of another name. `sample_sites` lists every sample site.
        chosen: The prior of each of them, as it was given.
        hyper_sites: The distributions of the hyper-sites, by name; empty without hierarchical priors.
        rows: The names of the attention-row sites.
        row_priors: The `RowPrior` of each of them.

    Raises:
        SettingError: A pattern matches nothing, a weight is covered by none, or its prior is none for it; or a prior
            states a name that is another's, or a hyperparameter that weights share and do not agree about.

    Returns:
        When called, the net's output: ``[B, ...]``, or ``[S, B, ...]`` under an outer plate of size ``S``.
    """

    def __init__(self, net: nn.Module, prior: AnyPrior | Mapping[str, AnyPrior], likelihood: Likelihood | None = None):
        super().__init__()
        net = copy.deepcopy(net)
        layers, weights = row_sites(net), weight_sites(net)
        chosen, rows = assign_priors(prior, weights, layers)
        set_row_priors(layers, rows)
        self.net = net
        self.likelihood = Categorical() if likelihood is None else copy.deepcopy(likelihood)
        self.row_priors = rows
        self.rows = tuple(name for name, layer in layers.items() if layer.row_prior is not None)
        self.sites = {name: weights[name] for name, p in chosen.items() if not isinstance(p, PointEstimate)}
        for name, value in net.named_parameters():
            choice = chosen.get(name)  # None: the parameter of a row prior, which is learned
            value.requires_grad_(choice.trained if isinstance(choice, PointEstimate) else choice is None)
        self.chosen = {name: p for name, p in chosen.items() if name in self.sites}
        self.weight_priors = WeightPriors(self.sites, self.chosen)
        self._check_names()
        self._scope = _Scope()
        self._shapes = {name: value.shape for name, value in net.named_parameters()}
        self._any_learned = bool(self.learned)

    def _check_names(self) -> None:
        """Refuse sites and hyperparameters of priors whose name something else has."""
        taken = {**dict.fromkeys(self.rows, "an attention layer"), **dict.fromkeys(("obs", "data"), "the observations")}
        taken |= dict.fromkeys(dict(self.net.named_parameters()), "a parameter of the net")
        taken |= dict.fromkeys(self.likelihood.initial_values(), "the likelihood")
        for own, name in self.weight_priors.names().items():
            if own in taken:
                expected = f"names that nothing else has: {taken[own]} has that of the prior of {name}"
                raise SettingError("prior", own, expected)

    @staticmethod
    def known_as(key: str) -> str:
        """The name by which users know a parameter of the model: that of the weight, or of the hyperparameter."""
        room, _, name = key.partition(".")
        return {"net": name, "weight_priors": name.replace("/", ".")}.get(room, key)

    @property
    def learned(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained as numbers, keyed by name: of the net, priors and likelihood."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    @property
    def hyper_sites(self) -> dict[str, Distribution]:
        """The distributions of the hyper-sites of hierarchical priors, by name."""
        return self._modules["weight_priors"].made(self._modules["net"]).hypers

    def initial_values(self) -> dict[str, Tensor]:
        """Where guides and samplers start every latent site but the rows: weights at their values in the net.

        A value outside the support of its prior is moved inside.
        """
        return {
            **self._modules["weight_priors"].initial_values(self._modules["net"]),
            **self._modules["likelihood"].initial_values(),
        }

    def set_initial_values(self, values: Mapping[str, Tensor]) -> None:
        """Start from ``values``, by site or by weight; those of weights are put in the place of the net's own."""
        priors, net = self._modules["weight_priors"], self._modules["net"]
        priors.starts |= {name: value.detach().clone() for name, value in values.items() if name in self.hyper_sites}
        hypers = {name: value for name, value in self.initial_values().items() if name in self.hyper_sites}
        weights = {**values, **priors.weights(net, {**hypers, **values})}
        parameters = dict(net.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                if name in parameters:
                    parameters[name].copy_(value)

    def centered_on(self, values: Mapping[str, Tensor]) -> BayesianModel:
        """A copy whose net starts at these weights, and whose priors that look at weights are made around them.

        Args:
            values: By the name of the net's parameter; parameters that are not named stay as they are.

        Raises:
            SettingError: A name is that of no parameter, or a value has another shape.
        """
        for name, value in values.items():
            if name not in self._shapes:
                raise SettingError("values", name, f"parameters of the net{near_misses(name, self._shapes)}")
            if value.shape != self._shapes[name]:
                expected = f"a value of shape {tuple(self._shapes[name])} for {name}"
                raise SettingError("values", tuple(value.shape), expected)
        model = copy.deepcopy(self)
        model.set_initial_values(values)
        model._modules["weight_priors"].center(values)
        return model

    def without_rows(self) -> BayesianModel:
        """A copy that computes all attention rows by softmax; the model itself where it draws none."""
        if not self.rows:
            return self
        model = copy.deepcopy(self)
        set_row_priors(row_sites(model._modules["net"]), {})
        model.rows, model.row_priors = (), {}
        model._shapes = {name: value.shape for name, value in model._modules["net"].named_parameters()}
        model._any_learned = bool(model.learned)
        return model

    def without_centers(self) -> BayesianModel:
        """A copy in which priors that look at weights are flat; the model itself where none does."""
        looking = self._modules["weight_priors"].kept
        if not looking:
            return self
        model = copy.deepcopy(self)
        model.chosen = {name: Improper() if name in looking else prior for name, prior in self.chosen.items()}
        model.weight_priors = WeightPriors(model.sites, model.chosen)
        return model

    def with_numbers_of(self, other: BayesianModel) -> BayesianModel:
        """A copy of this model with the numbers of another of the same net.

        Args:
            other: What `without_rows` and `without_centers` gave, trained meanwhile. What the priors that it lacks
                learn, or are made around, is that of this model.
        """
        model = copy.deepcopy(self)
        model.load_state_dict(other.state_dict(), strict=False)
        return model

    @property
    def no_fresh_start(self) -> str | None:
        """Why `reinitialized` cannot work, or None when it can."""
        for name, module in self._modules["net"].named_modules():
            if _reset_of(module) is None and next(module.parameters(recurse=False), None) is not None:
                return f"{type(module).__name__} at {name!r} has parameters but no reset_parameters()"
        return None

    def reinitialized(self, seed: int) -> BayesianModel:
        """A copy whose net starts afresh, by every module's ``reset_parameters``, from this seed.

        Hyper-sites and hyperparameters go back to the start that their prior gives. Fixed parameters keep their values,
        and priors that look at weights stay around the old ones.

        Raises:
            ValueError: A module owns parameters and cannot start them.
        """
        if reason := self.no_fresh_start:
            raise ValueError(reason)
        model = copy.deepcopy(self)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in model._modules["net"].modules():
                if (reset := _reset_of(module)) is not None:
                    reset()
        model._modules["weight_priors"].restart()
        own = dict(self._modules["net"].named_parameters())
        model.set_initial_values({n: p for n, p in own.items() if n not in self.sites and not p.requires_grad})
        return model

    def distributions(self, hypers: Mapping[str, Tensor] | None = None) -> dict[str, Distribution]:
        """The prior of every weight, by the name of its sample site, on the net's device and in its dtype.

        Args:
            hypers: Values of the hyper-sites, ``[*event]`` or ``[S, 1, *event]``; default where they start.
        """
        priors, net = self._modules["weight_priors"], self._modules["net"]
        given = priors.initial_values(net) if priors.conditional and hypers is None else hypers or {}
        return priors.distributions(priors.made(net), {**given, **priors.learned})

    def weights(self, draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights that draws of the global sites stand for; they are the draws but in non-centred forms.

        Args:
            draws: ``[S, ...]`` by site, as `Posterior.draw` gives them.

        Returns:
            ``[S, *W]`` by the name of the weight.
        """
        return self._modules["weight_priors"].weights(self._modules["net"], draws)

    def sample_globals(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """State every sample site outside the data plate; returns the weights, and the likelihood's sites, by name."""
        weights = self._modules["weight_priors"].draw(self._modules["net"])
        return weights, self._modules["likelihood"].sites()

    def forward(self, x: Data, y: Tensor | None = None, num_data: int | None = None) -> Tensor:
        net, likelihood = self._modules["net"], self._modules["likelihood"]
        assert net is not None and likelihood is not None
        self._tell_pyro()
        # every weight before the plate: one first read inside it would become one weight per example
        weights, drawn = self.sample_globals()
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
