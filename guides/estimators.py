"""Estimators of the bound's gradient that draw weights anew for every sequence of a batch."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import get_plates
from torch import Tensor

from ..models.layers import affine, per_token
from ..models.uses import arguments
from ..priors import SettingError
from .family import Family, Message
from .guide import Guide, outer_shape

Estimator = Literal["shared", "local_reparameterization", "flipout"]


class PerSequence(Messenger):
    r"""Replaces affine maps, so that each sequence of a batch meets weights of its own.

    .. math:: y_{nt} = W_n x_{nt} + b_n, \qquad W_n, b_n \sim q \text{ for every sequence } n

    where all tokens ``t`` of a sequence, and all uses of a weight within it, share :math:`W_n`: each sequence sees one
    function of the posterior, as it does when the whole batch shares one draw, so the bound has the same expectation.
    The draws of different sequences are uncorrelated, which takes the covariance between their gradients out of the
    gradient's variance. Noise of its own for every token would be another model: the mean over ``T`` tokens would have
    its standard deviation shrunk by up to :math:`\sqrt T`.

    The family that owns the weight computes the map (`Family.linear`). Local reparameterization draws :math:`y` itself
    from its normal distribution, which is one weight a sequence only in a layer that sees one token and meets its
    weight once; elsewhere flipout takes its place. Biases are drawn anew too: they are weights whose one input is 1.

    A weight keeps the shared draw if anything but `linear` uses it (an embedding, a gain, a tied table, the layers of
    torch), if it is computed from its site (a non-centred form), or if its family has no such estimator. So it does in
    a call whose input is not ``[B, T, D]`` or ``[S, B, T, D]`` with the ``B`` of the data plate (rows of a grid in the
    place of sequences, say); whether an axis of that size is the batch is not known, and taken to be so.

    Args:
        guide: The guide under which the model runs inside.
        estimator: ``local_reparameterization`` or ``flipout``.

    Attributes:
        used: What was used in the last runs, by site.

    Reference:
        Kingma, Salimans and Welling, 2015, "Variational dropout and the local reparameterization trick", Eq. 6; Wen et
        al., 2018, "Flipout", Eq. 4.
    """

    def __init__(self, guide: Guide, estimator: Estimator):
        super().__init__()
        self.guide, self.estimator = guide, estimator
        self.used: dict[str, str] = {}
        self._drawn: dict[int, tuple[str, Tensor]] = {}

    def __enter__(self) -> PerSequence:
        self._drawn.clear()
        self._samples, self._outside = outer_shape()[:-1], {frame.name for frame in get_plates()}
        super().__enter__()
        return self

    def _pyro_post_sample(self, msg: Message) -> None:
        if msg["name"] in self.guide.affine_calls:
            self._drawn[id(msg["value"])] = (msg["name"], msg["value"])

    def _pyro_linear(self, msg: Message) -> None:
        x, weight, bias = arguments(*msg["args"], **msg["kwargs"])
        if msg["done"] or not self._of_sequences(x):
            return
        mapped = self._mapped(x, weight)
        ones = x.new_ones(x.shape[-3], 1, 1)
        shift = None if bias is None else self._mapped(ones, bias, of_bias=True)
        if mapped is None and shift is None:
            return
        y = affine(x, weight) if mapped is None else mapped
        if bias is not None:
            y = y + (per_token(bias) if shift is None else shift)
        msg["value"], msg["done"] = y, True

    def _of_sequences(self, x: Tensor) -> bool:
        """Whether an input is ``[B, T, D]`` or ``[S, B, T, D]``: one plate of the model is around it, of size ``B``."""
        plates = [frame for frame in get_plates() if frame.vectorized and frame.name not in self._outside]
        if len(plates) != 1 or plates[0].dim != -1 or x.dim() < 3:
            return False
        return x.shape[-3] == plates[0].size and x.shape[:-3] in (torch.Size(), self._samples)

    def _mapped(self, x: Tensor, drawn: Tensor, of_bias: bool = False) -> Tensor | None:
        name, value = self._drawn.get(id(drawn), ("", None))
        if value is None:
            return None
        family: Family = self.guide.family_of(name)
        once = x.shape[-2] == 1 and self.guide.affine_calls[name] == 1
        chosen = "flipout" if not once else self.estimator
        found = family.linear(name, x, drawn.unsqueeze(-1) if of_bias else drawn, chosen)
        if found is not None:
            self.used[name] = family.own_estimator or chosen
        return found


def refuse_unused(estimator: Estimator, used: dict[str, str], matrices: Collection[str]) -> None:
    """Raise a `SettingError` when an estimator changes no weight matrix of a guide.

    Args:
        estimator: The setting.
        used: See `PerSequence`.
        matrices: The sites that count: a bias alone is not worth it.
    """
    kinds = {kind for name, kind in used.items() if name in matrices}
    if not kinds:
        raise SettingError(
            "estimator",
            estimator,
            "shared: no random weight belongs to a layer of pyroformer and to a family that could draw it for every "
            "sequence, such as mean_field with a centred prior on all real numbers",
        )
    if estimator == "local_reparameterization" and kinds == {"flipout"}:
        raise SettingError(
            "estimator", estimator, "flipout or shared: every layer with random weights sees several tokens a sequence"
        )
