"""A guide family: the posterior over the sites it is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution
from torch import Tensor, nn
from torch.distributions import Transform, biject_to

from ..priors import SettingError

Message = dict[str, Any]


@dataclass(frozen=True, eq=False)
class LatentSite:
    """A latent site of the model as a family meets it before the first run.

    Args:
        prior: The site's prior in the model, on an example batch.
        value: Where the posterior starts; it has the shape of the site's value, without outer plates.
        plates: The names of the plates inside the model that hold the site; empty for global sites.
        matrix: Whether the model uses the site as the weight ``[E, D]`` of affine maps and for nothing else.
    """

    prior: Distribution
    value: Tensor
    plates: tuple[str, ...] = ()
    matrix: bool = False


def unconstrained(name: str, site: LatentSite) -> Transform:
    """The map from unconstrained numbers to the site's support.

    Raises:
        SettingError: There is none: the site is discrete.
    """
    try:
        return biject_to(site.prior.support)
    except NotImplementedError:
        raise SettingError("", name, f"a continuous site, not {type(site.prior).__name__}") from None


@dataclass
class Contribution:
    """What a family says of its sites at once, in the place of the site-by-site sums.

    Args:
        log_prior: :math:`E_q[\\log p(w)]`.
        entropy: :math:`H[q]`.
        sites: The sites that both numbers cover.
    """

    log_prior: Tensor | float = 0.0
    entropy: Tensor | float = 0.0
    sites: frozenset[str] = field(default_factory=frozenset)


class Family(nn.Module, ABC):
    """The posterior over some sites of a model; a `Guide` gives each site to one family.

    A family is built in two steps, so that it can be chosen before there is a model: the constructor takes settings
    (keyword-only, kept as attributes of the same name), and `setup` makes the parameters.
    """

    local = False
    """Whether the family is for sites inside the data plate (attention rows); others are for global sites."""

    own_estimator = ""
    """A name for what `linear` does, in a family that does the same whatever the estimator."""

    def check(self, name: str, site: Message, shape: torch.Size) -> None:
        """Raise a ValueError about a site that the family cannot own as it is in the present run.

        Args:
            name: The site.
            site: Pyro's message, or the node of a trace.
            shape: The shape that the site's value had when the guide was made.
        """
        prior, frames = site["fn"], site["cond_indep_stack"]
        now = prior.batch_shape + prior.event_shape
        cut = [f.name for f in frames if f.full_size is not None and f.full_size != f.size]
        rows = "scores" in site["infer"]
        if not self.local and (rows or cut or now[len(now) - len(shape) :] != shape):
            where = f"is in the subsampled plate {cut[0]!r}" if cut else f"has shape {tuple(now)}"
            where = "holds attention rows" if rows else where
            raise ValueError(
                f"site {name!r} {where}, but {type(self).__name__} holds one value of shape {tuple(shape)}: expected a "
                "family that is amortised over the data, such as DirichletRows for attention rows"
            )

    @abstractmethod
    def setup(self, sites: dict[str, LatentSite]) -> None:
        """Create every parameter of the posterior over ``sites``."""

    def draw(self, outer: torch.Size) -> None:
        """Called at the start of every run, with the shape of the plates around the guide: ``[S, 1]`` or ``[]``."""
        return None

    @abstractmethod
    def posterior(self, name: str, prior: Distribution, msg: Message) -> tuple[Distribution | Tensor, Tensor | None]:
        """The posterior of one site, and its value when `draw` has drawn it (else None).

        Args:
            name: The site.
            prior: Its prior, given the values drawn so far.
            msg: Pyro's message, with the activations of attention rows in ``msg["infer"]``.
        """

    def linear(self, name: str, x: Tensor, drawn: Tensor, estimator: str) -> Tensor | None:
        """An affine map with a weight of its own for every sequence, or None: all share the value that was drawn.

        Args:
            name: The site of the weight.
            x: The input, ``[B, T, D]`` or ``[S, B, T, D]``.
            drawn: The site's value, ``[E, D]`` or ``[S, 1, E, D]``; for a bias, whose input is 1, D is 1.
            estimator: ``flipout``, or ``local_reparameterization`` where that is one weight a sequence.

        Returns:
            ``[B, T, E]`` or ``[S, B, T, E]``, distributed for each sequence as with the value that was drawn.
        """
        return None

    def log_prob(self, values: Mapping[str, Tensor]) -> Tensor:
        """The log-density of values of all sites of the family together.

        Args:
            values: ``[..., *shape]`` by site, inside the supports, with the same leading dimensions.

        Returns:
            ``[...]``.

        Raises:
            NotImplementedError: There is no density over the sites: they are point masses, or rows, which depend on
                the data.
        """
        raise NotImplementedError(f"{type(self).__name__} has no density over its sites")

    def contribution(self, sites: dict[str, Message], priors: dict[str, Distribution]) -> Contribution:
        """The expected log-prior and the entropy of as many sites of the finished run as can be had together."""
        return Contribution()

    def summary(self) -> dict[str, Any]:
        """A few numbers about the fitted posterior that a reader would ask for, as plain data."""
        return {}
