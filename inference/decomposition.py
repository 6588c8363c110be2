"""What a prediction is unsure of: the data, the attention rows, the weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
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
from .mixture_posterior import leaves
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
        rows_shortfall: About how much ``rows`` is too small by, and ``weights`` too large, for few draws of the rows.
        weights_shortfall: About how much ``weights`` is too small by for few draws of the weights.
        measure: ``entropy`` or ``variance``.
        num_weights, num_rows: How many draws of the weights there were, and of the rows for each of them.
    """

    data: Tensor
    rows: Tensor
    weights: Tensor
    rows_shortfall: Tensor
    weights_shortfall: Tensor
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

    The entropy of an average over few draws is too small. To first order, with :math:`b_R = E_w \sum_c
    \mathrm{Var}_A(p_c) / (2 R\, E_A p_c)` for :math:`R` draws of the rows and :math:`b_S = \sum_c \mathrm{Var}_w(E_A
    p_c) / (2 S \bar p_c)` for :math:`S` draws of the weights,

    .. math:: E[\widehat{\text{rows}}] = \text{rows} - b_R, \qquad
              E[\widehat{\text{weights}}] = \text{weights} + b_R - (b_S + b_R / S),

    each :math:`b` at most :math:`C - 1` over twice its number of draws, in nats. ``rows_shortfall`` measures
    :math:`b_R` and ``weights_shortfall`` :math:`b_S + b_R / S`: the entropy of the average of all draws less that of
    the averages of two halves of them. Of a variance both are known: ``rows / (R - 1)`` and ``weights / (S - 1)``.
    However large the parts are, so many draws show no more than :math:`\ln R` and :math:`\ln S` nats of them.

    A part is told by draws alone: where `Posterior.predict` is in closed form (a Laplace approximation with
    ``link="probit"``), the draws are those of the linearised functions that it stands for, and the total is near the
    entropy of that prediction, not equal to it.

    Args:
        posterior: Of any kind; draws of a mixture are spread over its members, which weigh the same.
        x: Inputs ``[N, ...]``, a tensor or a tuple of tensors.
        weights: Draws :math:`S` of the weights, default 16, or as many as there are; at least 2 where there are.
        rows: Draws :math:`R` of the rows for each of them, default 16, at least 2 where rows are random; the net runs
            ``S * R`` times.
        seed: Of the draws.
        batch_size: Examples that the net sees at once.
        calibrated: Whether a fitted calibration is applied, where there is one; default True.

    Raises:
        SettingError: ``weights`` or ``rows`` is below 1, or 1 where what it draws is random: one draw shows no spread.
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
    members = list(leaves(posterior, weights))
    if rows < 2 and any(leaf.random_rows for leaf, *_ in members):
        raise SettingError("rows", rows, "a whole number of at least 2, as rows are random")
    if weights < 2 and sum(_available(leaf, 2) for leaf, *_ in members) > 1 == len(members):
        raise SettingError("weights", weights, "a whole number of at least 2, as weights are random")
    parts = sums(posterior.model.likelihood, len(first(x)), posterior.calibrated if calibrated else None)
    count = 0
    with torch.random.fork_rng(devices=[]), torch.no_grad(), pyro.validation_enabled(False), store_as_it_was():
        torch.manual_seed(seed)
        for leaf, draws, share in members:
            count += _run(leaf, share, x, draws, rows, batch_size, parts, count)
    return parts.result(count, rows if posterior.random_rows else 1)


def _available(leaf: Posterior, weights: int) -> int:
    """How many of these draws of the weights there are: one where only rows are random."""
    with leaf.rows_as("mean" if leaf.random_rows else "sample"):
        return leaf._available(weights)


def _run(
    leaf: Posterior, share: float, x: Inputs, weights: int, rows: int, batch_size: int, parts: Sums, before: int
) -> int:
    """Add the nested draws of one posterior, behind those before it; returns how many there were of its weights."""
    rows = rows if leaf.random_rows else 1
    count, place = _available(leaf, weights), before
    anchor = next(leaf.model.parameters())
    x = move(x, anchor.device, anchor.dtype)
    most = leaf.most_draws(x, batch_size)
    with eval_mode(leaf.model):
        for size, drawn in leaf.chunks(count, max(1, most // rows)):
            for where in slices(len(first(x)), batch_size):
                kept: dict[str, Tensor] = {}
                for piece in slices(rows, max(1, most // size)):
                    each = piece.stop - piece.start
                    repeated = {name: value.repeat_interleave(each, 0) for name, value in drawn.items()}
                    found = parts.read(*leaf.run(repeated, take(x, where), size * each))
                    parts.see(kept, piece, rows, [v.double().cpu().unflatten(0, (size, each)) for v in found])
                parts.add(where, kept, rows, share / count, place)
            place += size
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
    def see(self, kept: dict[str, Tensor], piece: slice, rows: int, found: list[Tensor]) -> None:
        """Keep what is needed of some of the draws of the rows, ``[S, r, B, ...]``, as ``[S, B, ...]``.

        Args:
            kept: Of the pieces before; it is added to, so that no draws are held.
            piece, rows: Which draws of the rows these are, and of how many.
            found: What was read.
        """

    @abstractmethod
    def add(self, where: slice, kept: dict[str, Tensor], rows: int, share: float, place: int) -> None:
        """Add what was kept of all draws of the rows, ``[S, B, ...]``.

        Args:
            where: The examples.
            kept, rows: From `see`.
            share: Of each draw of the weights.
            place: Of the first of them among all.
        """

    @abstractmethod
    def result(self, num_weights: int, num_rows: int) -> Decomposition:
        """The parts, when everything was added."""

    def _sum(self, name: str, where: slice, values: Tensor) -> None:
        if name not in self.sums:
            self.sums[name] = values.new_zeros((self.size, *values.shape[1:]))
        self.sums[name][where] += values


def _plus(kept: dict[str, Tensor], name: str, values: Tensor) -> None:
    kept[name] = kept[name] + values if name in kept else values


def _entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p).sum(-1)


class _Entropies(Sums):
    def read(self, outputs: Tensor, drawn: dict[str, Tensor]) -> tuple[Tensor, ...]:
        if self.calibrated is not None:
            outputs = self.calibrated.calibration.apply(outputs, self.calibrated.fitted)
        return (outputs,)

    def see(self, kept: dict[str, Tensor], piece: slice, rows: int, found: list[Tensor]) -> None:
        p = found[0].softmax(-1)  # [S, r, B, ..., C]
        _plus(kept, "entropy", _entropy(p).sum(1))
        half = rows // 2
        for name, (start, stop) in {"first": (0, half), "second": (half, 2 * half), "rest": (2 * half, rows)}.items():
            inside = p[:, max(start - piece.start, 0) : max(stop - piece.start, 0)]
            _plus(kept, name, inside.sum(1))

    def add(self, where: slice, kept: dict[str, Tensor], rows: int, share: float, place: int) -> None:
        both, half = kept["first"] + kept["second"], rows // 2
        averaged = (both + kept["rest"]) / rows
        self._sum("given both", where, share * kept["entropy"].sum(0) / rows)
        self._sum("given weights", where, share * _entropy(averaged).sum(0))
        if half:
            apart = (_entropy(kept["first"] / half) + _entropy(kept["second"] / half)) / 2
            self._sum("rows shortfall", where, share * (_entropy(both / (2 * half)) - apart).sum(0))
        odd = (place + torch.arange(len(averaged))) % 2 == 1
        for name, chosen in (("even", ~odd), ("odd", odd)):  # halves of the draws of the weights
            self._sum(f"p {name}", where, share * averaged[chosen].sum(0))
            self._sum(f"share {name}", where, averaged.new_full(averaged.shape[1:], share * int(chosen.sum())))

    def result(self, num_weights: int, num_rows: int) -> Decomposition:
        data, inner = self.sums["given both"], self.sums["given weights"]
        zero = torch.zeros_like(data)  # differences would leave rounding errors where a part is zero
        rows = (inner - data).clamp(min=0) if num_rows > 1 else zero
        rows_short, weights, weights_short = self.sums.get("rows shortfall", zero), zero, zero
        if num_weights > 1:
            halves = [(self.sums[f"p {half}"], self.sums[f"share {half}"]) for half in ("even", "odd")]
            total = _entropy(halves[0][0] + halves[1][0])
            weights = (total - inner).clamp(min=0)
            weights_short = total - sum(share[..., 0] * _entropy(p / share) for p, share in halves)
        return Decomposition(data, rows, weights, rows_short, weights_short, "entropy", num_weights, num_rows)


class _Variances(Sums):
    def read(self, outputs: Tensor, drawn: dict[str, Tensor]) -> tuple[Tensor, ...]:
        if self.calibrated is not None:
            outputs = self.calibrated.calibration.apply(outputs, self.calibrated.fitted)
        scale = self.likelihood.distribution(outputs, drawn).base_dist.scale
        return outputs, scale.expand(outputs.shape)

    def see(self, kept: dict[str, Tensor], piece: slice, rows: int, found: list[Tensor]) -> None:
        loc, scale = found  # [S, r, B, D]
        mean, square, each = loc.mean(1), loc.var(1, correction=0) * loc.shape[1], loc.shape[1]
        if piece.start:  # squares about the mean of what was seen so far: those of large numbers would cancel
            apart, seen = mean - kept["mean"], piece.start
            square = kept["square"] + square + apart.square() * seen * each / (seen + each)
            mean = kept["mean"] + apart * each / (seen + each)
        kept["mean"], kept["square"] = mean, square
        _plus(kept, "variance", scale.square().sum(1))

    def add(self, where: slice, kept: dict[str, Tensor], rows: int, share: float, place: int) -> None:
        averaged = kept["mean"]
        if "origin" not in self.sums:
            self.sums["origin"] = averaged.new_full((self.size, *averaged.shape[2:]), torch.nan)
        origin = self.sums["origin"]
        if origin[where].isnan().any():  # near the mean, for the same reason
            origin[where] = averaged[0]
        away = averaged - origin[where]
        self._sum("data", where, share * kept["variance"].sum(0) / rows)
        self._sum("rows", where, share * kept["square"].sum(0) / rows)
        self._sum("mean", where, share * away.sum(0))
        self._sum("square", where, share * away.square().sum(0))

    def result(self, num_weights: int, num_rows: int) -> Decomposition:
        data, rows = self.sums["data"], self.sums["rows"]
        weights = (self.sums["square"] - self.sums["mean"].square()).clamp(min=0)
        rows = rows if num_rows > 1 else torch.zeros_like(rows)
        weights = weights if num_weights > 1 else torch.zeros_like(weights)
        short = rows / max(num_rows - 1, 1), weights / max(num_weights - 1, 1)
        return Decomposition(data, rows, weights, *short, "variance", num_weights, num_rows)


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
