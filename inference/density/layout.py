"""Where each latent site of a model stands in one vector of unconstrained numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.transforms import ComposeTransform, IndependentTransform, Transform

from ...guides.guide import as_evaluated, is_latent
from ...priors import SettingError
from ...priors.carried import moved
from .row_coordinates import RowCoordinates, coordinates_of, refusal_of
from .unvalidated import Unvalidated

Message = dict[str, Any]


def sites_of(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    seed: int,
    given: Mapping[str, Tensor] | None = None,
) -> dict[str, Message]:
    """The sample sites of one run of a model, in its order, with some values given."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]), as_evaluated(model), Unvalidated(), poutine.block():
        torch.manual_seed(seed)
        with poutine.trace() as tracer, poutine.condition(data=dict(given or {})):
            model(*args, **kwargs)
    return {name: site for name, site in tracer.trace.nodes.items() if site["type"] == "sample"}


def refusal(site: Message) -> str | None:
    """Why the density of a model with such a site cannot be a function of its latent values with a gradient."""
    for frame in site["cond_indep_stack"]:
        if frame.full_size is not None and frame.full_size != frame.size:
            return f"plates without subsampling: {frame.name} holds {frame.size} of {frame.full_size}"
    if site_is_subsample(site):
        size, part = site["fn"].size, site["fn"].subsample_size
        return None if part in (None, size) else f"plates without subsampling: this one draws {part} of {size}"
    if site["is_observed"]:
        return None
    if not is_latent(site):
        return "observations, or a model without it: its values would be drawn anew in every evaluation"
    if "law" in site["infer"]:
        return refusal_of(site["infer"]["law"])
    try:
        if site["fn"].support.is_discrete:
            return "continuous sites: along a discrete one there is no gradient"
        biject_to(site["fn"].support)
    except NotImplementedError:
        return f"sites whose support can be mapped to the real numbers: {type(site['fn']).__name__} has none such"
    return None


def transform_of(site: Message) -> Transform:
    """The map from unconstrained numbers to the values of a site."""
    return coordinates_of(site) if "law" in site["infer"] else biject_to(site["fn"].support)


def same_map(one: Transform, other: Transform, somewhere: Tensor) -> bool:
    """Whether two transforms of one kind map the same numbers to the same values."""
    return one == other if isinstance(one, RowCoordinates) else torch.equal(one(somewhere), other(somewhere))


def is_identity(transform: Transform) -> bool:
    """Whether a transform leaves values as they are."""
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return isinstance(transform, ComposeTransform) and not transform.parts


class Layout:
    r"""The map between values of the latent sites of a Pyro model and one vector of unconstrained numbers.

    .. math:: z = \big(t_1^{-1}(w_1), t_2^{-1}(w_2), \dots\big)

    with the sites in the order in which the model draws them, each mapped from its support to the real numbers, and
    attention rows of every example among them, see `RowCoordinates`. The model runs twice, to see what it draws.

    Args:
        model: A `BayesianModel`, or any function with Pyro's primitives.
        args: Its positional arguments, data included.
        kwargs: Its keyword arguments, default none.

    Attributes:
        names: The latent sites, in order.
        shapes: The shape of each site's value.
        unconstrained: The shape of its part of the vector: one number fewer than its value has for a simplex.
        rows: The sites of attention rows, in order.
        transforms: From its part of the vector to its value.
        offsets: Where its part begins and ends.
        size: The length ``D`` of the vector.
        dtype, device: Those of the vector.

    Raises:
        SettingError: A latent site is discrete, or holds attention rows that do not count in full, a plate is
            subsampled, observations are missing, or another run of the model draws other sites, or on other supports.
    """

    def __init__(self, model: Callable[..., Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None):
        self._run = partial(sites_of, model, args, kwargs or {})
        runs = [self._run(seed) for seed in (0, 1)]
        for name, site in runs[0].items():
            if reason := refusal(site):
                raise SettingError("model", name, reason)
        latent = [{name: site for name, site in run.items() if is_latent(site)} for run in runs]
        first = latent[0]
        if not first:
            raise SettingError("model", getattr(model, "__name__", type(model).__name__), "at least one latent site")
        shapes = [{name: site["value"].shape for name, site in run.items()} for run in latent]
        if shapes[0] != shapes[1]:
            changed = next(n for n in {**shapes[0], **shapes[1]} if shapes[0].get(n) != shapes[1].get(n))
            raise SettingError("model", changed, "the same sites with the same shapes in every run")
        self.names, self.shapes = tuple(first), shapes[0]
        self.rows = tuple(name for name, site in first.items() if "law" in site["infer"])
        self.transforms = {name: transform_of(site) for name, site in first.items()}
        self.unconstrained = {n: t.inv(first[n]["value"]).shape for n, t in self.transforms.items()}
        self._check_supports(latent[1])
        self.sizes = [shape.numel() for shape in self.unconstrained.values()]
        self.size = sum(self.sizes)
        ends = torch.tensor(self.sizes).cumsum(0).tolist()
        self.offsets = {n: (end - size, end) for n, size, end in zip(self.names, self.sizes, ends, strict=True)}
        values = [site["value"] for site in first.values()]
        self.device = values[0].device
        self.dtypes = {name: site["value"].dtype for name, site in first.items()}
        self.dtype = next((v.dtype for v in values if v.dtype == torch.float64), values[0].dtype)
        given = getattr(model, "initial_values", None)
        drawn = {name: site["value"] for name, site in first.items()}
        self._start = {**drawn, **given()} if callable(given) else drawn

    def _check_supports(self, other: dict[str, Message]) -> None:
        """Refuse a support that depends on what was drawn before: one transform would not fit all values."""
        for name, transform in self.transforms.items():
            somewhere = torch.linspace(-1, 1, self.unconstrained[name].numel()).reshape(self.unconstrained[name])
            if not same_map(transform, transform_of(other[name]), somewhere.to(other[name]["value"])):
                raise SettingError("model", name, "supports that are the same in every run: this one moves")

    def start(self) -> Tensor:
        """A vector ``[D]`` to start from: the model's ``initial_values()`` if it has them, else a draw of the prior.

        Attention rows are drawn from their prior given the others, see `with_rows`.
        """
        return self.flatten(self.with_rows({n: v for n, v in self._start.items() if n not in self.rows}))

    def with_rows(self, values: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
        """Values by site, and attention rows drawn from their prior given these: where chains may start.

        Args:
            values: Of every site but the attention rows, ``[...]`` each; rows that are among them stay.
            seed: Of the draws.
        """
        if not set(self.rows) - set(values):
            return dict(values)
        sites = self._run(seed, given={name: value for name, value in values.items() if name in self.names})
        return {**values, **{name: sites[name]["value"] for name in self.rows}}

    def flatten(self, values: Mapping[str, Tensor]) -> Tensor:
        """The vector ``[D]``, or ``[K, D]`` for values ``[K, ...]``, that stands for values by site.

        Raises:
            SettingError: A site is missing, or a value has another shape.
        """
        found = []
        for name, shape in self.shapes.items():
            value = values.get(name)
            if value is None or value.shape[value.dim() - len(shape) :] != shape or value.dim() > len(shape) + 1:
                had = None if value is None else tuple(value.shape)
                raise SettingError(f"values.{name}", had, f"a value of shape {tuple(shape)}, or K of them")
            lead = value.shape[: value.dim() - len(shape)]
            with torch.no_grad():
                part = self.transforms[name].inv(moved(value, self.device, self.dtype))
                found.append(part.reshape(*lead, -1))
        return torch.cat(found, -1)

    def unflatten(self, z: Tensor) -> dict[str, Tensor]:
        """The values by site, ``[...]`` or ``[K, ...]``, that a vector ``[D]`` or ``[K, D]`` stands for."""
        return {
            name: moved(self.transforms[name](part), self.device, self.dtypes[name])
            for name, part in self.parts(z).items()
        }

    def parts(self, z: Tensor) -> dict[str, Tensor]:
        """The unconstrained numbers of each site, in its shape."""
        pieces = zip(self.unconstrained.items(), z.split(self.sizes, -1), strict=True)
        return {name: piece.reshape(z.shape[:-1] + shape) for (name, shape), piece in pieces}

    def placed(self, z: Tensor) -> tuple[dict[str, Tensor], Tensor | float]:
        r"""The values that one vector ``[D]`` stands for, and :math:`\ln |\det \partial w / \partial z|` there."""
        values, volume = {}, 0.0
        for name, part in self.parts(z).items():
            transform = self.transforms[name]
            value = part if is_identity(transform) else transform(part)
            if value is not part:
                volume = volume + transform.log_abs_det_jacobian(part, value).sum()
            values[name] = value if value.dtype == self.dtypes[name] else moved(value, value.device, self.dtypes[name])
        return values, volume
