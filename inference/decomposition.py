"""What a prediction is unsure of: the data, the attention rows, the weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import pyro
import torch
from torch import Tensor

from ..models import Categorical, Gaussian, Likelihood
from ..models.calling import eval_mode
from ..priors import SettingError
from .calibration import Calibrated
from .data import DataError, Inputs, check_finite, first, move, take
from .mixture_posterior import MixturePosterior
from .posterior import Posterior, store_as_it_was
from .prediction import slices

NUM_DRAWS = 16
"""Of the weights, and of the rows for each of them, where the caller does not say."""


@dataclass(frozen=True, eq=False)
class Decomposition:
    """The parts of a predictive entropy (nats) or variance (squared units of the observations), for each input.

    Args:
        data: What is left when weights and rows are known, ``[N]``, ``[N, T]`` per token, or ``[N, D]`` of reals.
        rows: What the attention rows add, given the weights.
        weights: What the weights add.
        rows_shortfall: About how much ``rows`` is too small by for having few draws of the rows.
        measure: ``entropy`` or ``variance``.
        num_weights, num_rows: How many draws of the weights there were, and of the rows for each of them.
    """

    data: Tensor
    rows: Tensor
    weights: Tensor
    rows_shortfall: Tensor
    measure: str
    num_weights: int
    num_rows: int

    @property
    def total(self) -> Tensor:
        """The sum of the parts: entropy or variance of the average over all draws."""
        return self.data + self.rows + self.weights

    @property
    def parts(self) -> dict[str, Tensor]:
        """The three parts by name."""
        return {"data": self.data, "rows": self.rows, "weights": self.weights}


def decompose(
    posterior: Posterior,
    x: Inputs,
    *,
    weights: int = NUM_DRAWS,
    rows: int = NUM_DRAWS,
    seed: int = 0,
    batch_size: int = 256,
    calibrated: bool = True,
) -> Decomposition:
    r"""Split the uncertainty of predictions, by draws of rows nested in draws of the weights.

    .. math:: \underbrace{H[E_{w,A}\, p]}_{\text{total}} = \underbrace{E_{w,A} H[p]}_{\text{data}}
              + \underbrace{E_w\big[H[E_A\, p] - E_A H[p]\big]}_{\text{rows}}
              + \underbrace{H[E_{w,A}\, p] - E_w H[E_A\, p]}_{\text{weights}}

    and of real observations the same by the law of total variance, :math:`E[\sigma^2] + E_w \mathrm{Var}_A f +
    \mathrm{Var}_w E_A f`. The parts sum to the total of the same draws. Where no row is random ``rows`` is exactly 0,
    and ``weights`` where no weight is.

    The entropy of an average of :math:`R` draws is too small by about :math:`\sum_c \mathrm{Var}_A(p_c) / (2 R
    \bar p_c)`, at most :math:`(C-1)/2R` nats, so ``rows`` is too small by as much and ``weights`` too large by nearly
    as much (less its own shortfall, of order :math:`1/S`). ``rows_shortfall`` measures it: the entropy of the average
    of all rows less the mean entropy of the averages of two halves. Of a variance it is known, ``rows / (R - 1)``.

    Args:
        posterior: Of any kind; draws of a mixture are spread over its members, which weigh the same.
        x: Inputs ``[N, ...]``, a tensor or a tuple of tensors.
        weights: Draws :math:`S` of the weights, default 16, or as many as there are.
        rows: Draws :math:`R` of the rows for each of them, default 16; the net runs ``S * R`` times.
        seed: Of the draws.
        batch_size: Examples that the net sees at once.
        calibrated: Whether a fitted calibration is applied, where there is one; default True.

    Raises:
        SettingError: ``weights`` or ``rows`` is below 1.
        DataError: ``x`` is empty, or holds NaN or infinity.
        TypeError: There is no decomposition for the likelihood.

    Reference:
        Depeweg et al., 2018 (arXiv 1710.07283), Eqs. 7 and 10, with the latent variables in the place of the rows.
    """
    for name, value in (("weights", weights), ("rows", rows)):
        if value < 1:
            raise SettingError(name, value, "a whole number of at least 1")
    if not len(first(x)):
        raise DataError("x: no examples")
    check_finite("x", x)
    parts = sums(posterior.model.likelihood, len(first(x)), posterior.calibrated if calibrated else None)
    members = list(leaves(posterior))
    count = 0
    with torch.random.fork_rng(devices=[]), torch.no_grad(), pyro.validation_enabled(False), store_as_it_was():
        torch.manual_seed(seed)
        for leaf, share in members:
            count += _run(leaf, share, x, max(1, weights // len(members)), rows, batch_size, parts)
    return parts.result(count, rows if posterior.random_rows else 1)


def leaves(posterior: Posterior, share: float = 1.0) -> Iterator[tuple[Posterior, float]]:
    """The posteriors that a mixture of mixtures comes down to, with their shares of it."""
    if isinstance(posterior, MixturePosterior):
        for member in posterior.members:
            yield from leaves(member, share / len(posterior.members))
    else:
        yield posterior, share


def _run(leaf: Posterior, share: float, x: Inputs, weights: int, rows: int, batch_size: int, parts: Sums) -> int:
    """Add the nested draws of one posterior; returns how many there were of its weights."""
    rows = rows if leaf.random_rows else 1
    with leaf.rows_as("mean" if leaf.random_rows else "sample"):
        count = leaf._available(weights)  # one where only rows are random
    anchor = next(leaf.model.parameters())
    x = move(x, anchor.device, anchor.dtype)
    most = leaf.most_draws(x, batch_size)
    with eval_mode(leaf.model):
        for size, drawn in leaf.chunks(count, max(1, most // rows)):
            for where in slices(len(first(x)), batch_size):
                pieces = []
                for piece in slices(rows, max(1, most // size)):
                    each = piece.stop - piece.start
                    repeated = {name: value.repeat_interleave(each, 0) for name, value in drawn.items()}
                    found = parts.read(*leaf.run(repeated, take(x, where), size * each))
                    pieces.append([values.double().cpu().unflatten(0, (size, each)) for values in found])
                parts.add(where, [torch.cat(values, 1) for values in zip(*pieces, strict=True)], share / count)
    return count


class Sums(ABC):
    """Adds up what the parts are made of, chunk by chunk, for ``N`` examples."""

    def __init__(self, likelihood: Likelihood, num_examples: int, calibrated: Calibrated | None):
        self.likelihood, self.size, self.calibrated = likelihood, num_examples, calibrated
        self.sums: dict[str, Tensor] = {}

    @abstractmethod
    def read(self, outputs: Tensor, drawn: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """What of each draw is looked at, ``[S, B, ...]``."""

    @abstractmethod
    def add(self, where: slice, found: list[Tensor], share: float) -> None:
        """Add what was read of draws of weights and rows, ``[S, R, B, ...]``; each draw of the weights has a share."""

    @abstractmethod
    def result(self, num_weights: int, num_rows: int) -> Decomposition:
        """The parts, when everything was added."""

    def _sum(self, name: str, where: slice, values: Tensor) -> None:
        if name not in self.sums:
            self.sums[name] = values.new_zeros((self.size, *values.shape[1:]))
        self.sums[name][where] += values


def _entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p).sum(-1)


class _Entropies(Sums):
    def read(self, outputs: Tensor, drawn: dict[str, Tensor]) -> tuple[Tensor, ...]:
        if self.calibrated is not None:
            outputs = self.calibrated.calibration.apply(outputs, self.calibrated.fitted)
        return (outputs,)

    def add(self, where: slice, found: list[Tensor], share: float) -> None:
        p = found[0].softmax(-1)  # [S, R, B, ..., C]
        averaged = p.mean(1)
        self._sum("p", where, share * averaged.sum(0))
        self._sum("given both", where, share * _entropy(p).mean(1).sum(0))
        self._sum("given weights", where, share * _entropy(averaged).sum(0))
        half = p.shape[1] // 2
        if half:
            halves = p[:, : 2 * half].unflatten(1, (2, half)).mean(2)
            short = _entropy(halves.mean(1)) - _entropy(halves).mean(1)
            self._sum("shortfall", where, share * short.sum(0))

    def result(self, num_weights: int, num_rows: int) -> Decomposition:
        data, inner = self.sums["given both"], self.sums["given weights"]
        zero = torch.zeros_like(data)  # differences would leave rounding errors where a part is zero
        rows = (inner - data).clamp(min=0) if num_rows > 1 else zero
        weights = (_entropy(self.sums["p"]) - inner).clamp(min=0) if num_weights > 1 else zero
        return Decomposition(data, rows, weights, self.sums.get("shortfall", zero), "entropy", num_weights, num_rows)


class _Variances(Sums):
    def read(self, outputs: Tensor, drawn: dict[str, Tensor]) -> tuple[Tensor, ...]:
        if self.calibrated is not None:
            outputs = self.calibrated.calibration.apply(outputs, self.calibrated.fitted)
        scale = self.likelihood.distribution(outputs, drawn).base_dist.scale
        return outputs, scale.expand(outputs.shape)

    def add(self, where: slice, found: list[Tensor], share: float) -> None:
        loc, scale = found  # [S, R, B, D]
        averaged = loc.mean(1)
        if "origin" not in self.sums:
            self.sums["origin"] = averaged.new_full((self.size, *averaged.shape[2:]), torch.nan)
        origin = self.sums["origin"]
        if origin[where].isnan().any():  # near the mean: squares of large numbers would cancel
            origin[where] = averaged[0]
        away = averaged - origin[where]
        self._sum("data", where, share * scale.square().mean(1).sum(0))
        self._sum("rows", where, share * loc.var(1, correction=0).sum(0))
        self._sum("mean", where, share * away.sum(0))
        self._sum("square", where, share * away.square().sum(0))

    def result(self, num_weights: int, num_rows: int) -> Decomposition:
        data, rows = self.sums["data"], self.sums["rows"]
        weights = (self.sums["square"] - self.sums["mean"].square()).clamp(min=0)
        rows = rows if num_rows > 1 else torch.zeros_like(rows)
        weights = weights if num_weights > 1 else torch.zeros_like(weights)
        return Decomposition(data, rows, weights, rows / max(num_rows - 1, 1), "variance", num_weights, num_rows)


@singledispatch
def sums(likelihood: Likelihood, num_examples: int, calibrated: Calibrated | None = None) -> Any:
    """The way to decompose predictions under a likelihood; a new likelihood registers its own.

    Raises:
        TypeError: There is none for it.
    """
    known = ", ".join(kind.__name__ for kind in sums.registry if kind is not object)
    raise TypeError(f"no decomposition is registered for a {type(likelihood).__name__} likelihood: expected {known}")


sums.register(Categorical, _Entropies)
sums.register(Gaussian, _Variances)
