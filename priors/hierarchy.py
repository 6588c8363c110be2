"""Priors that add sample sites of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from .base import Distribution, Site

Hypers = Mapping[str, Tensor]
"""Values by name, ``[*event]`` or with leading sample dimensions ``[S, 1, *event]``, where the 1 is the data plate."""


class HierarchicalPrior(ABC):
    r"""A prior over one parameter of a net, given hyperparameters that are drawn or learned with it.

    .. math:: \tau \sim p(\tau), \qquad w \sim p(w \mid \tau)

    A model draws the hyper-sites first, then the weight. A name that several weights give is one site, which they
    share. No name may begin with that of a weight and a dot, for stock autoguides keep sites as attributes. The weight
    itself may be drawn under another name and computed from there: a non-centred form.
    """

    looks_at_values: ClassVar[bool] = False
    """Whether it depends on ``site.value``, which models then keep in their state."""

    def check_site(self, site: Site) -> None:
        """Raise a `SettingError` about ``site`` if it is none for this prior; models ask when they are made."""
        return None

    @abstractmethod
    def hyper_sites(self, site: Site) -> dict[str, Distribution]:
        """The sample sites that belong to ``site``, by name, with batch shape (); none if all is learned."""

    @abstractmethod
    def start(self, site: Site) -> dict[str, Tensor]:
        """Where guides and samplers start each hyper-site, inside its support."""

    def learned(self, site: Site) -> dict[str, Tensor]:
        """Hyperparameters that are trained as numbers (empirical Bayes), by name, at their start; any real number."""
        return {}

    conditional = True
    """Whether `distribution` looks at the hyperparameters; if not, it is called once and kept."""

    @abstractmethod
    def distribution(self, site: Site, hypers: Hypers) -> Distribution:
        """The prior of what is drawn for ``site``: batch shape () or that of the leading dimensions of ``hypers``.

        Args:
            site: The weight.
            hypers: Every hyperparameter of the model; empty when the prior is not `conditional`.
        """

    def drawn_as(self, site: Site) -> str:
        """The name of the sample site that `distribution` belongs to; default the weight's own."""
        return site.name

    def weight(self, site: Site, drawn: Tensor, hypers: Hypers) -> Tensor:
        """The weight, from what was drawn."""
        return drawn

    def undo(self, site: Site, weight: Tensor, hypers: Hypers) -> Tensor:
        """What has to be drawn for this weight: the inverse of `weight`."""
        return weight
