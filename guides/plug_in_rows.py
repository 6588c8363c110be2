"""Attention rows at their plug-in value, in the place of draws."""

from __future__ import annotations

from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Independent

from .family import Distribution, Message


def law_of(site: Distribution) -> Any:
    """The distribution of single rows, without the dimensions that were declared a part of the event."""
    while isinstance(site, Independent):
        site = site.base_dist
    return site


def plug_in(site: Distribution) -> Tensor:
    """The value of a row site that stands for its draws: the law's ``plug_in`` where it has one, else its mean."""
    law = law_of(site)
    found: Tensor = law.plug_in if hasattr(law, "plug_in") else law.mean
    return found


class PlugInRows(Messenger):
    r"""Gives every attention row its plug-in value, layer after layer, so that one pass predicts without row noise.

    .. math:: \bar A_{l,ij} = \frac{\alpha P_{ij} + \epsilon}{\alpha + n_i \epsilon} \;\text{(Dirichlet)}, \qquad
              \bar A_{l,ij} = P_{ij} \;\text{(all other families)}, \qquad P = \mathrm{softmax}(Z_l(\bar A_{<l}))

    Of a Dirichlet row that is its mean :math:`E_q[A_l \mid x, \bar A_{<l}]`. Logistic-normal and Gumbel-softmax rows
    stand at the row without noise, Weibull and log-normal ones at the means of their positive entries, normalised:
    softmax attention in all four, and no mean of rows, because rows are normalised after the noise.

    The net's output at these rows is no average over rows: it differs from it by the curvature of the net. Entered
    around a guide it sees the guide's posterior, without a guide the prior; rows that are conditioned on stay.

    Reference:
        Fan et al., 2020, "Bayesian attention modules", who predict in this way.
    """

    def _pyro_sample(self, msg: Message) -> None:
        if "scores" in msg["infer"] and not msg["is_observed"] and msg["value"] is None:
            msg["value"] = plug_in(msg["fn"])
