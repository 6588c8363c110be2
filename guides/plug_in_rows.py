"""Attention rows at the middle of their law, in the place of draws."""

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
    """The value of a row site that stands for the mean row: the law's ``plug_in`` where it has one, else its mean."""
    law = law_of(site)
    found: Tensor = law.plug_in if hasattr(law, "plug_in") else law.mean
    return found


class PlugInRows(Messenger):
    r"""Gives every attention row the mean of its law, layer after layer, so that one pass predicts without row noise.

    .. math:: \bar A_l = E_q[A_l \mid x, \bar A_{<l}]

    The net's output at these rows is no average over rows: it differs from it by the curvature of the net. Entered
    around a guide it sees the guide's posterior, without a guide the prior; rows that are conditioned on stay.

    Reference:
        Fan et al., 2020, "Bayesian attention modules", who predict in this way.
    """

    def _pyro_sample(self, msg: Message) -> None:
        if "scores" in msg["infer"] and not msg["is_observed"] and msg["value"] is None:
            msg["value"] = plug_in(msg["fn"])
