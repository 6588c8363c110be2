"""A guide that runs with the model, in one forward pass."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import broadcast_shape
from pyro.infer.autoguide import AutoMessenger
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.runtime import get_plates
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites, site_is_subsample
from torch import Tensor, nn

from ..models.calling import eval_mode
from ..models.likelihoods import Undrawn
from ..models.uses import AffineUses
from ..priors import SettingError, assign, choice_name
from ..priors.globs import near_misses
from .family import Contribution, Distribution, Family, LatentSite, Message
from .starting import told


def is_latent(site: Message) -> bool:
    """Whether a trace's node is a sample site that inference has to find."""
    return (
        site["type"] == "sample"
        and not site["is_observed"]
        and not site_is_subsample(site)
        and not site["infer"].get("is_auxiliary")
        and not site["infer"].get("is_observation")
    )


def vectorized(site: Message) -> list[CondIndepStackFrame]:
    """The plates that hold a site as axes of its value; a sequential plate, run as a loop, makes sites like others."""
    return [frame for frame in site["cond_indep_stack"] if frame.vectorized]


def outer_shape() -> torch.Size:
    """The axes of the plates around, as a guide that is entered now meets them: ``[S, 1]``, or ``[]`` without any."""
    outer = [frame for frame in get_plates() if frame.vectorized]
    shape = [1] * max((-frame.dim for frame in outer), default=0)
    for frame in outer:
        shape[frame.dim] = frame.size
    return torch.Size(shape)


def as_evaluated(model: Callable[..., Any]) -> AbstractContextManager[None]:
    """Run a net in evaluation mode, so that a look at its sites leaves the statistics of its normalisation alone."""
    return eval_mode(model) if isinstance(model, nn.Module) else nullcontext()


def run_once(
    model: Callable[..., Any], example: tuple[Any, ...], watch: AbstractContextManager[Any] | None = None
) -> dict[str, Message]:
    """The sample sites of one run of a model on an example batch; ``watch`` is there for the model's part alone."""
    with torch.no_grad(), as_evaluated(model), poutine.block(), poutine.trace() as tracer, watch or nullcontext():
        model(*example)
    return {name: site for name, site in tracer.trace.nodes.items() if site["type"] == "sample"}


def assign_families(families: Family | Mapping[str, Family], sites: Mapping[str, bool]) -> dict[str, Family]:
    """Give each site to one family: local families cover the sites in plates, the others the global ones.

    Args:
        families: A family, or a map from globs to families; first match of its own kind wins.
        sites: Names, and whether the site is inside a plate.

    Raises:
        SettingError: A pattern matches no site of its kind, or no pattern covers a site.
    """
    choices = families if isinstance(families, Mapping) else {"*": families}
    for pattern, family in choices.items():
        if not isinstance(family, Family):
            raise SettingError(pattern, family, "a guide family, such as MeanField()")
    found: dict[str, Family] = {}
    local = {p: f for p, f in choices.items() if f.local}
    anywhere = {p: f for p, f in choices.items() if not f.local}
    in_plates = [name for name, inside in sites.items() if inside]
    if in_plates and local:
        found.update(assign(local, in_plates, kind="site in a plate"))
    elif local:
        raise SettingError(
            "", choice_name(type(next(iter(local.values())))), "no family for rows: the model draws none"
        )
    rest = [name for name in sites if name not in found]
    if rest or anywhere:
        found.update(assign(anywhere, rest, kind="site of the model"))
    return {name: found[name] for name in sites}


class Guide(AutoMessenger):
    r"""An approximate posterior made of families, each over some sites of a Pyro model.

    .. math:: q(w, A \mid x) = \prod_f q_f(w_f) \prod_l q_l(A_l \mid x, A_{<l})

    It is a messenger: run with the model it replaces each latent site's prior by its posterior, so that one forward
        pass
    serves both, and posteriors over attention rows see the activations that their layer offers. Every parameter exists
    from construction. It works with our drivers and with stock `pyro.infer.SVI`, where it is called like any guide.

    Args:
        model: A Pyro model, ours or not.
        families: A `Family`, or a map from globs over site names to families.
        example: Arguments for one run of the model, a row or two of data: ``(x,)`` for a `BayesianModel`, ``(x, y)``
            for a model that would otherwise draw its observations.
        init: Where posteriors start, by site; default the model's ``initial_values()`` if it has them, else a draw from
            the prior.

    Attributes:
        matrices: The sites that are weights of affine maps and nothing else.
        affine_calls: How many calls of `linear` use a site in one run, for sites that nothing else uses.

    Raises:
        SettingError: A pattern matches no site, no pattern covers a site, or ``init`` names no site or holds a value
            that its prior cannot draw.

    Reference:
        `pyro.infer.autoguide.AutoMessenger`.
    """

    _count = itertools.count()
    matrices: frozenset[str]
    affine_calls: dict[str, int]

    def __init__(
        self,
        model: Callable[..., Any],
        families: Family | Mapping[str, Family],
        example: tuple[Any, ...],
        init: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(model)
        if not isinstance(example, tuple):
            raise SettingError("example", type(example).__name__, "a tuple of arguments for the model, such as (x,)")
        uses = AffineUses()
        everything = run_once(model, example, uses)
        sites = {name: site for name, site in everything.items() if is_latent(site)}
        start = dict(model.initial_values()) if hasattr(model, "initial_values") else {}
        start.update(init or {})
        for name in set(init or {}) - set(sites):
            raise SettingError("init", name, f"a site of the model among {', '.join(sites)}{near_misses(name, sites)}")
        plates = {name: tuple(frame.name for frame in vectorized(site)) for name, site in sites.items()}
        families = copy.deepcopy(families)  # what is passed is a recipe: two guides never share parameters
        assigned = assign_families(families, {name: bool(plates[name]) for name in sites})
        shapes = {name: site["fn"].batch_shape + site["fn"].event_shape for name, site in sites.items()}
        for name, family in assigned.items():
            family.check(name, sites[name], shapes[name])
        distinct = list(dict.fromkeys(assigned.values()))
        for family in distinct:
            own = {}
            for name in (name for name in sites if assigned[name] is family):
                value = sites[name]["value"].detach().clone()
                site = LatentSite(sites[name]["fn"], value, plates[name], name in uses.matrices)
                own[name] = told(name, site, start[name]) if name in start else site
            family.setup(own)
        self.families = nn.ModuleList(distinct)
        # Plain handles: a module read through a Pyro module restates every one of its parameters, at each access.
        self.__dict__["_assigned"] = assigned
        self.__dict__["_distinct"] = tuple(distinct)
        self.__dict__["_shapes"] = shapes
        self.__dict__["affine_calls"] = {name: n for name, n in uses.calls.items() if name in sites}
        self.__dict__["matrices"] = uses.matrices.intersection(sites)
        self.__dict__["_priors"] = {}
        self.__dict__["_local_only"] = False
        self.__dict__["_stating"] = False
        self.__dict__["_prefix"] = self._new_prefix()
        frames = [frame for site in everything.values() for frame in vectorized(site)]
        self.__dict__["plate_nesting"] = max((-frame.dim for frame in frames), default=0)

    @classmethod
    def _new_prefix(cls) -> str:
        """A prefix for parameters in Pyro's store: no two guides share them, copies included."""
        return f"pyroformer_guide_{next(Guide._count)}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "trace": Trace(), "_priors": {}}  # without the last run

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__["_prefix"] = self._new_prefix()

    @property
    def sites(self) -> tuple[str, ...]:
        """The latent sites, in the order in which the model draws them."""
        return tuple(self._assigned)

    def family_of(self, site: str) -> Family:
        """The family that a site was given to."""
        return self._assigned[site]

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Run the model under the guide, for stock inference: every parameter is stated to Pyro."""
        with self.stated():
            return super().__call__(*args, **kwargs)

    @contextmanager
    def stated(self) -> Iterator[None]:
        """State every parameter to Pyro in the runs inside; our drivers optimise them without its store."""
        self.__dict__["_stating"] = True
        try:
            yield
        finally:
            self.__dict__["_stating"] = False

    def __enter__(self) -> Any:
        outer = outer_shape()
        entered = super().__enter__()
        if self._stating:  # now that the trace is open: objectives look there for something to train
            pyro.module(self._prefix, self.__dict__["_modules"]["families"])
        self._priors.clear()
        for family in self._distinct:
            if family.local or not self._local_only:
                family.draw(outer)
        return entered

    @contextmanager
    def local_only(self) -> Iterator[None]:
        """Run the model under the posterior of sites in plates alone; the global sites must be conditioned on."""
        self.__dict__["_local_only"] = True
        try:
            with self:
                yield
        finally:
            self.__dict__["_local_only"] = False

    def get_posterior(self, name: str, prior: Distribution) -> Distribution | Tensor:
        """Unused: `_pyro_sample` hands families the whole message."""
        raise NotImplementedError

    def _pyro_sample(self, msg: Message) -> None:
        name = msg["name"]
        # Sites that no family owns keep their prior: subsamples, auxiliary sites, and observations that are predicted.
        if msg["is_observed"] or name not in self._assigned:
            return
        prior = msg["fn"]
        msg["infer"] = {**msg["infer"], "prior": prior}
        self._priors[name] = prior
        family = self._assigned[name]
        family.check(name, msg, self._shapes[name])
        q, value = family.posterior(name, prior, msg)
        if isinstance(q, Tensor):
            q = dist.Delta(q, event_dim=prior.event_dim, validate_args=False)
        shape = broadcast_shape(q.batch_shape, prior.batch_shape)
        msg["fn"] = q if q.batch_shape == shape else q.expand(shape)
        if value is not None:
            msg["value"] = value

    def get_traces(self) -> tuple[Trace, Trace]:
        """The traces of model and guide after a run, as stock objectives want them."""
        guide = prune_subsample_sites(self.trace)
        model = guide.copy()
        for name, site in list(guide.nodes.items()):
            if site["type"] != "sample" or site["is_observed"]:
                del guide.nodes[name]
            elif site["infer"].get("is_auxiliary"):
                del model.nodes[name]
            elif "prior" in site["infer"]:
                model.nodes[name] = {**site, "fn": site["infer"]["prior"]}
            else:  # an observation without data is the model's own draw
                del guide.nodes[name]
        return model, guide

    def contributions(self, sites: dict[str, Message]) -> list[Contribution]:
        """What the families say of the sites of the finished run; see `Family.contribution`."""
        return [family.contribution(sites, self._priors) for family in self._distinct]

    def draw(self, num_samples: int, *example: Any) -> dict[str, Tensor]:
        """Draw the global sites.

        Args:
            num_samples: ``S``.
            example: Arguments for one run of the model, as at construction.

        Returns:
            ``[S, ...]`` by site.
        """
        dim, evaluated = -self.plate_nesting - 1, as_evaluated(self.model)
        with torch.no_grad(), evaluated, poutine.block(), pyro.plate("draws", num_samples, dim=dim), self, Undrawn():
            self.model(*example)
        # a point mass would hand out its parameter
        return {name: value.detach().clone() for name, value in self.drawn(num_samples).items()}

    def drawn(self, num_samples: int) -> dict[str, Tensor]:
        """The values of the global sites in the last run, which was inside one plate of draws or, with 1, inside none.

        Args:
            num_samples: ``S``.

        Returns:
            ``[S, ...]`` by site, each of the shape that it has without the plate.
        """
        values = {}
        for name in (name for name, family in self._assigned.items() if not family.local):
            site = self.trace.nodes[name]
            value, fn = site["value"], site["fn"]
            full = value.expand(fn.batch_shape + value.shape[value.dim() - fn.event_dim :])
            values[name] = full.reshape(num_samples, *self._shapes[name])
        return values

    def log_prob(self, draws: Mapping[str, Tensor]) -> Tensor:
        """The log-density of values of the global sites.

        Args:
            draws: ``[S, ...]`` by site, as `draw` gives them.

        Returns:
            ``[S]``.

        Raises:
            NotImplementedError: A family of global sites has no density: it is a point mass.
        """
        families = [family for family in self._distinct if not family.local]
        own = [{name: draws[name] for name in self._assigned if self._assigned[name] is f} for f in families]
        parts = [family.log_prob(values) for family, values in zip(families, own, strict=True)]
        return torch.stack(parts).sum(0)

    def summary(self) -> dict[str, Any]:
        """Numbers about the fitted posterior, by kind of family."""
        found: dict[str, Any] = {}
        for family in self._distinct:
            for key, value in family.summary().items():
                own = found.setdefault(choice_name(type(family)), {})
                # what two families of a kind say by site is put together
                own[key] = {**own[key], **value} if isinstance(value, dict) and key in own else value
        return found
