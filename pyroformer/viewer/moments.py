"""Moments of attention rows over draws, gathered while a net runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..guides import Guide
from ..guides.plug_in_rows import law_of


@dataclass(frozen=True, eq=False)
class Layer:
    """The attention of one layer over draws, for ``N`` inputs, ``H`` heads, ``Q`` queries and ``K`` keys.

    Args:
        name: Of the layer.
        mean, sd: Of every row, ``[N, H, Q, K]``; the sd is over all draws, of rows and of weights.
        entropy: Mean entropy of drawn rows, ``[N, H, Q]``, in nats.
        keys: How many keys a query may see, ``[N, Q]``; 0 where it is padding.
        random: Whether its rows are random, given the weights.
        learned: What the guide learned of its rows, by name: one number a head, or one.
    """

    name: str
    mean: Tensor
    sd: Tensor
    entropy: Tensor
    keys: Tensor
    random: bool = False
    learned: dict[str, tuple[float, ...]] | None = None

    @property
    def mean_entropy(self) -> Tensor:
        """The entropy of the mean row, ``[N, H, Q]``: never below ``entropy``, but for the noise of draws."""
        return torch.special.entr(self.mean).sum(-1)

    @property
    def relative(self) -> Tensor:
        """By head, the mean entropy of drawn rows over the largest they could have; NaN without a row of two keys."""
        most = self.keys.to(self.entropy.dtype).log().unsqueeze(1).expand(self.entropy.shape)
        seen = most > 0
        share = torch.where(seen, self.entropy / most.where(seen, 1.0), 0.0)
        return share.sum((0, 2)) / seen.sum((0, 2))


class RowMoments:
    r"""Adds up rows over draws; of a Dirichlet row, its mean and variance take the place of the draw.

    .. math:: E[A] = E_w E_q[A], \qquad \mathrm{Var}[A] = E_w \mathrm{Var}_q[A] + \mathrm{Var}_w E_q[A]
    """

    def __init__(self) -> None:
        self.sums: dict[str, dict[str, Tensor]] = {}
        self.guide: Guide | None = None
        self.share = 1.0

    def of(self, guide: Guide | None, share: float) -> None:
        """Say whose the next rows are: of which guide, and how much all draws of one run weigh together."""
        self.guide, self.share = guide, share

    def __call__(self, name: str, rows: Tensor, mask: Tensor | None) -> None:
        """Add rows ``[..., B, H, Q, K]``, of draws or the same for all draws."""
        rows = _by_draw(rows.detach())
        keys = torch.full(rows.shape[-2:-1], rows.shape[-1]).expand(rows.shape[1], -1)
        if mask is not None:
            keys = mask.expand(rows.shape)[0].sum(-1)[:, 0]
        mean, square = self._moments(name, rows)
        found = {
            "mean": mean.mean(0),
            "square": square.mean(0),
            "entropy": torch.special.entr(rows).sum(-1).mean(0),
            "keys": keys,
        }
        kept = self.sums.setdefault(name, {})
        for key, values in found.items():
            values = values.double().cpu() * (1.0 if key == "keys" else self.share)
            kept[key] = values if key == "keys" or key not in kept else kept[key] + values

    def _moments(self, name: str, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The first two moments of rows, given what was drawn below them."""
        site = None if self.guide is None or name not in self.guide.trace.nodes else self.guide.trace.nodes[name]
        law = None if site is None or site["is_observed"] else law_of(site["fn"])
        # a law with a plug-in value is one whose rows have no known moments: they are normalised after the noise
        if law is not None and not hasattr(law, "plug_in"):
            try:
                mean, variance = _by_draw(law.mean.double()), _by_draw(law.variance.double())
                return mean, variance + mean.square()
            except (AttributeError, NotImplementedError):
                pass
        return rows.double(), rows.double().square()

    def layers(self, random: tuple[str, ...], learned: dict[str, dict[str, tuple[float, ...]]]) -> tuple[Layer, ...]:
        """The layers, in the order in which they ran."""
        found = []
        for name, sums in self.sums.items():
            variance = (sums["square"] - sums["mean"].square()).clamp(min=0)
            # below the rounding errors of float32 rows there is nothing: rows that no draw changes have an sd of 0
            variance = torch.where(variance < 1e-12, 0.0, variance)
            layer = Layer(
                name.removesuffix(".rows"),
                sums["mean"].float(),
                variance.sqrt().float(),
                sums["entropy"].float(),
                sums["keys"].long(),
                name in random,
                learned.get(name) or None,
            )
            found.append(layer)
        return tuple(found)


def _by_draw(rows: Tensor) -> Tensor:
    """Rows ``[S, B, H, Q, K]``, whatever number of sample dimensions they have."""
    return rows.unsqueeze(0) if rows.dim() == 4 else rows.flatten(0, rows.dim() - 5)
