"""What a prior is: over one weight of a net, or over the rows of an attention layer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution
from torch import Tensor, nn

from .settings import SettingError, check, check_option


@dataclass(frozen=True, eq=False)
class Site:
    """A parameter of a net, as a prior sees it.

    Args:
        name: The parameter's name in the net, which is also the name of the sample site.
        value: Its value in the net, any shape.
        fan_in: How many inputs its layer sums over; a bias has its layer's fan-in.
        center: Where shrinkage should lead: 1 for the gain of a normalisation layer, else 0. Gains shrunk to 0 leave
            a net that can learn nothing. A prior around values has one number for each entry.
        residual_writes: How many layers of the net write into the residual stream, when this parameter's layer is one
            of them; 1 (default) for the others.
        scale: A factor on the scale of every entry, default 1: a number, or the draw of a hierarchical prior,
            broadcastable to ``[..., *value.shape]``. A `ScaleFamily` multiplies its scale by it.
        input_axis: The axis that counts the inputs of a weight with several axes: 1 (default), but 0 for tables, where
            a token meets one row.
        heads: How many attention heads own a part of the weight each, default 1: consecutive blocks of one length.
        head_axis: The axis along which the blocks lie: 0 (default) for queries, keys and values, 1 for what comes back
            from the heads.
    """

    name: str
    value: Tensor
    fan_in: int = 1
    center: Tensor | float = 0.0
    residual_writes: int = 1
    scale: Tensor | float = 1.0
    input_axis: int = 1
    heads: int = 1
    head_axis: int = 0

    @property
    def loc(self) -> Tensor:
        """The centre, in the parameter's shape."""
        return torch.zeros_like(self.value) + self.center


class Prior(ABC):
    """A prior over one parameter of a net; it has the shape of that parameter as its event."""

    looks_at_values: ClassVar[bool] = False
    """Whether it depends on ``site.value``, which models then keep in their state."""

    @abstractmethod
    def distribution(self, site: Site) -> Distribution:
        """The prior of ``site``: batch shape (), event shape ``site.value.shape``."""

    def check_site(self, site: Site) -> None:
        """Raise a `SettingError` about ``site`` if it is none for this prior; models ask when they are made."""
        return None

    def __call__(self, name: str, parameter: Tensor) -> Distribution:
        """The prior of a bare tensor: fan-in from its last axis, centre 0."""
        fan_in = parameter.shape[-1] if parameter.dim() > 1 else 1
        return self.distribution(Site(name, parameter.detach(), fan_in))


class PointEstimate(ABC):
    """No prior: the parameter stays a number and is no sample site."""

    @property
    @abstractmethod
    def trained(self) -> bool:
        """Whether a driver that optimises may change it."""


class ScaleFamily(Prior):
    r"""A prior that comes in every scale: it obeys the factor ``site.scale``.

    .. math:: p(w) = \prod_i \frac1{\tau_i}\; f\!\left(\frac{w - c}{\tau}\right), \qquad \tau = \text{site.scale}

    Hierarchical priors are built on such priors, and mixtures on those of independent entries.
    """

    independent: ClassVar[bool] = True
    """Whether the entries are independent."""


def check_scale_family(key: str, prior: object, independent: bool = False) -> None:
    """Raise a `SettingError` about the setting ``key`` unless ``prior`` is a `ScaleFamily`, of entries if asked."""
    if not isinstance(prior, ScaleFamily):
        raise SettingError(key, prior, "a prior with a scale, such as Normal()")
    if independent and not prior.independent:
        raise SettingError(key, prior, "a prior with a scale under which entries are independent, such as Normal()")


@dataclass(frozen=True, kw_only=True)
class ScaledPrior(ScaleFamily):
    r"""A prior with a scale, absolute or relative to the size of the net.

    .. math:: s = \text{scale}, \qquad s = \text{scale}\,(2 / \text{fan\_in})^{1/2}, \qquad
        s = \text{scale}\,(2 / \text{fan\_in})^{1/2} R^{-1/2}

    for ``absolute``, ``fan_in`` and ``depth``: with ``fan_in`` the sum over a unit's inputs keeps its size whatever
    their number, and with ``depth`` so does the sum over the :math:`R` layers that write into the residual stream
    (attention output projections and second MLP layers; :math:`R = 1` for all other layers). A family whose sums grow
    faster than with the root of their length has an exponent of its own.

    Args:
        scale: Above 0, default 1.
        scaling: ``absolute`` (default), ``fan_in`` or ``depth``.

    Raises:
        SettingError: ``scale`` is not above 0, or ``scaling`` is unknown.

    Reference:
        He et al., 2015, "Delving deep into rectifiers", Eq. 10; Radford et al., 2019, "Language models are unsupervised
        multitask learners", Sec. 2.3.
    """

    gain: ClassVar[float] = 2.0
    """The numerator over the fan-in: 2, for units of which about half are active."""
    exponent: ClassVar[float] = 0.5
    """A sum of n entries is about n to this power as large as one of them."""

    scale: float = 1.0
    scaling: Literal["absolute", "fan_in", "depth"] = "absolute"

    def __post_init__(self) -> None:
        check(self, "scale", 0 < self.scale < math.inf, "a number above 0")
        check_option(self, "scaling", ("absolute", "fan_in", "depth"))

    def scale_of(self, site: Site) -> Tensor:
        """The scale of every entry of ``site``, in its shape; with leading dimensions where ``site.scale`` has some."""
        factor = 1.0 if self.scaling == "absolute" else (self.gain / site.fan_in) ** self.exponent
        if self.scaling == "depth":
            factor *= site.residual_writes**-self.exponent
        return torch.full_like(site.value, self.scale * factor) * site.scale


@dataclass(frozen=True, kw_only=True)
class RowPrior(ABC):
    r"""A prior over the rows of an attention layer, given the layer's activations.

    Args:
        kl_weight: The weight :math:`\lambda \ge 0` of the rows' log-density and KL, default 1 (the evidence lower
            bound). It scales the sample site inside the model, so that every objective respects it; 0 masks the site.
        kl_normalization: ``none`` (default): the KL of an example is a sum over layers, heads and rows. ``entries``:
            it is divided by the number of layers with this prior times that of the valid entries of the layer's rows,
            all heads together. Without masks that is the weight :math:`\lambda / (L H T^2)` for ``L`` layers, ``H``
            heads and ``T`` tokens, and the result is no posterior.

    Raises:
        SettingError: ``kl_weight`` is negative, or ``kl_normalization`` is unknown.

    Reference:
        ``entries``: Fan et al., 2020, "Bayesian attention modules", and its code.
    """

    space: ClassVar[Literal["simplex", "positive"]] = "simplex"
    """What the sample site holds: rows, or positive entries that the module of the prior normalises to rows."""

    kl_weight: float = 1.0
    kl_normalization: Literal["none", "entries"] = "none"

    def __post_init__(self) -> None:
        check(self, "kl_weight", 0 <= self.kl_weight < math.inf, "a number of at least 0")
        check_option(self, "kl_normalization", ("none", "entries"))

    def refusal_across(self) -> str | None:
        """Why it is no prior of rows whose keys are of another sequence than their queries, or None when it is one."""
        return None

    @abstractmethod
    def build(self, head_dim: int, heads: int) -> RowPriorModule:
        """The prior as a module of one attention layer with so many heads of width ``head_dim``."""

    def weight(self, scores: Tensor, mask: Tensor | None, layers: int) -> Tensor | float:
        """The effective weight of the KL of one layer's rows.

        Args:
            scores: ``[..., B, H, T, S]``.
            mask: Valid entries of the rows, broadcastable to the scores, or None when all are.
            layers: How many layers have this prior.

        Returns:
            A number, or one for each example, ``[..., B]``.
        """
        if self.kl_normalization == "none":
            return self.kl_weight
        if mask is None:
            return self.kl_weight / (layers * math.prod(scores.shape[-3:]))
        entries = mask.expand(scores.shape).sum((-1, -2, -3)).clamp(min=1)
        return self.kl_weight / (layers * entries.to(scores.dtype))


class RowPriorModule(nn.Module):
    """Turns the activations of one attention layer into the prior of its rows, and values of the site into rows."""

    def rows(self, value: Tensor, mask: Tensor | None) -> Tensor:
        """The attention rows that a value of the sample site stands for; here itself."""
        return value

    def share(self, first: RowPriorModule) -> None:
        """Take over those parameters of another layer's module that all layers of one prior share; here none."""
        return None

    def forward(self, scores: Tensor, keys: Tensor, mask: Tensor | None) -> Distribution:
        """The prior over rows.

        Args:
            scores: ``[..., B, H, T, S]``, the scaled products of ``T`` queries and ``S`` keys.
            keys: ``[..., B, H, S, d]``.
            mask: Valid entries of the rows, broadcastable to the scores, or None when all are.

        Returns:
            A distribution with event shape ``[S]`` and batch shape ``[..., B, H, T]``.
        """
        raise NotImplementedError
