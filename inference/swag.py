"""Stochastic weight averaging - Gaussian: the moments of the iterates of SGD as a posterior."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from ..guides import Delta, Guide
from ..models import BayesianModel
from ..models.likelihoods import Undrawn
from ..priors.settings import check, check_count, check_positive
from .data import Data, take
from .driver import Families
from .errors import InferenceError
from .iterates import Iterates
from .low_rank_posterior import LowRankPosterior
from .monitor import Monitor
from .objective import OnePassELBO
from .optimize import Fit
from .point import MAP
from .posterior import Posterior
from .prediction import slices
from .starting import PostHoc, trained
from .unconstrained import Unconstrained


@dataclass(frozen=True, kw_only=True)
class SWAG(PostHoc):
    r"""Takes the moments of the iterates of SGD, after a net is trained, as those of a normal posterior.

    .. math:: \theta = m + \sqrt c\, \Big(S^{1/2} z_1 + \frac1{\sqrt{K - 1}} D z_2\Big), \qquad
              m = \tfrac1n \sum_i \theta_i, \qquad
              S = \mathrm{diag}\big(\tfrac1n \sum_i \theta_i^2 - m^2\big), \qquad z_1, z_2 \sim \mathcal N(0, I)

    SGD goes on from the trained net with a constant learning rate, on the loss that the net was trained with: the
    likelihood alone after ``ml``, with the prior after ``map``. The columns of :math:`D` are the last :math:`K`
    iterates less the mean of all iterates up to each; where fewer than ``rank`` were collected, :math:`K` is their
    number. The moments are those of SGD, whatever the posterior: they grow with the learning rate.

    Sites with a bounded support are treated on their unconstrained space. Learned parameters end at the mean of their
    iterates. Running statistics of batch normalisation are those of the mean, taken over the training data at the end
    (the paper takes them anew for every draw). An ensemble of these, ``deep_ensemble`` with this driver as its
    ``member``, is MultiSWAG (Wilson and Izmailov, 2020).

    Args:
        learning_rate: The constant rate, above 0, default 1e-2.
        momentum: At least 0 and below 1, default 0.9.
        epochs: Passes over the data after the start, default 20.
        collect_every: Epochs between two iterates that are collected, default 1 (a reconstruction); at least two have
            to come of it.
        rank: The largest number :math:`K` of columns of :math:`D`, at least 2, default 20 (a reconstruction).
        scale: The factor :math:`c > 0` on the covariance, default 0.5, a reconstruction: both parts estimate the same
            covariance, and half of each is taken. Twice the factor is a temperature.
        start: How the net is trained: ``map`` (default) or ``ml``, with their settings. Its ``batch_size``,
            ``clip_norm``, ``validate_every``, ``device`` and ``dtype`` are used after the start too; validation is
            of the iterate.
        device, dtype: Those of ``start`` are used; these must be left at their defaults.

    Raises:
        SettingError: A setting is out of range, or ``start`` is no point estimate.

    Reference:
        Maddox et al., 2019, "A simple baseline for Bayesian uncertainty in deep learning", Algorithm 1 and Eq. 1 (the
        start itself is not counted among the iterates here); Wilson and Izmailov, 2020, "Bayesian deep learning and a
        probabilistic perspective of generalization", Sec. 3.
    """

    learning_rate: float = 1e-2
    momentum: float = 0.9
    epochs: int = 20
    collect_every: int = 1
    rank: int = 20
    scale: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "learning_rate", "scale")
        check_count(self, "epochs", "collect_every", "rank")
        check(self, "momentum", 0 <= self.momentum < 1, "a number of at least 0 and below 1")
        check(self, "rank", self.rank >= 2, "at least 2 columns, which a covariance needs")
        enough = self.epochs >= 2 * self.collect_every
        check(
            self, "epochs", enough, f"at least {2 * self.collect_every}: two iterates, one every {self.collect_every}"
        )

    @property
    def treatment(self) -> str:
        return "low_rank"

    def refusal(self, model: BayesianModel) -> str | None:
        if reason := super().refusal(model):
            return reason
        if not model.initial_values():
            return "a model with at least one random site; all parameters are fixed or learned (ml trains them)"
        return None

    def _run(self, model: BayesianModel, guide: Families | None, data: Data, seed: int, monitor: Monitor) -> Posterior:
        model, found = trained(self.start, model, data, seed, monitor)
        posterior = Collecting(self, model, data).run(seed, monitor)
        posterior.info["start"] = found
        return posterior


class Collecting(Fit):
    """SGD from where a net is, with the moments of its iterates.

    Args:
        swag: The driver.
        model: The model, at the start's end.
        data: The data.
    """

    def __init__(self, swag: SWAG, model: BayesianModel, data: Data):
        assert isinstance(swag.start, MAP)
        constant: dict[str, Any] = {"schedule": "constant", "warmup": 0.0, "keep": "last"}
        start = replace(swag.start, epochs=swag.epochs, learning_rate=swag.learning_rate, **constant)
        guide = Guide(model, Delta(), data.example())
        super().__init__(
            start,
            guide,
            data,
            OnePassELBO(),
            lambda progress: start.prior_weight,
            driver=swag,
            optimizer=lambda p: torch.optim.SGD(p, lr=swag.learning_rate, momentum=swag.momentum),
        )
        self.swag, self.sites = swag, Unconstrained(model)
        self.iterates = Iterates(self.present(), swag.rank)

    def present(self) -> Tensor:
        """The sites' unconstrained numbers as they are now, and the learned parameters after them."""
        family = self.guide.families[0]
        assert isinstance(family, Delta)
        sites = self.sites.joined({name: family.values[own] for name, own in family.names.items()})
        learned = [value.detach().reshape(-1) for value in self.model.learned.values()]
        return torch.cat([sites.detach(), *learned])

    def epoch_ended(self, epoch: int) -> None:
        if epoch % self.swag.collect_every == 0:
            iterates = self.iterates.with_next(self.present())
            if not iterates.finite:
                message = (
                    f"epoch {epoch}: the moments of the iterates are not finite; SGD diverges at this learning rate"
                )
                raise InferenceError(message, self.last_good())
            self.iterates = iterates

    def everything(
        self, generator: torch.Generator, records: list[dict[str, Any]], seconds: float
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, content = super().everything(generator, records, seconds)
        own = {f"iterates.{name}": value for name, value in self.iterates.tensors().items()}
        return {**tensors, **own}, {**content, "iterates": self.iterates.count}

    def go_on(
        self, tensors: dict[str, Tensor], content: dict[str, Any], generator: torch.Generator
    ) -> tuple[list[dict[str, Any]], float]:
        own = {name: tensors[f"iterates.{name}"] for name in self.iterates.tensors()}
        self.iterates.put(own, content["iterates"])
        return super().go_on(tensors, content, generator)

    def last_good(self) -> Posterior | None:
        if self.iterates.count < 2:
            return super().last_good()
        posterior = self.finish()
        posterior.info["kept"] = f"last good ({self.iterates.count} iterates)"
        return posterior

    def finish(self, seconds: float | None = None) -> Posterior:
        """The normal posterior of the iterates; the point itself where there are fewer than two."""
        if self.iterates.count < 2:
            return super().finish(seconds)
        iterates, size, c = self.iterates, self.sites.size, self.swag.scale
        place = size
        with torch.no_grad():
            for value in self.model.learned.values():
                value.copy_(iterates.mean[place : place + value.numel()].view_as(value))
                place += value.numel()
        self.model.eval()
        renew_statistics(self.model, self.sites.values(iterates.mean[None, :size]), self.data, self.settings.batch_size)
        scale, factor = (c * iterates.variance[:size]).sqrt(), c**0.5 * iterates.factor[:, :size]
        info = {"kept": "last", "iterates": iterates.count, "rank": len(factor), "scale": c, "temperature": 2 * c}
        if seconds is not None:
            info["seconds"] = round(seconds, 2)
        return LowRankPosterior(self.model, iterates.mean[:size].clone(), scale, factor.clone(), info)


def renew_statistics(model: BayesianModel, values: dict[str, Tensor], data: Data, batch_size: int) -> None:
    """Take the running statistics of normalisation anew, over all data, with these values ``[1, ...]`` of the sites."""
    parts = [module for module in model.modules() if isinstance(module, _NormBase) and module.track_running_stats]
    if not parts:
        return
    one = {name: value[0] for name, value in values.items()}
    with _averaging(parts), torch.no_grad(), poutine.block(), Undrawn():
        for where in slices(len(data), max(batch_size, 2)):  # one example may have no variance, or one of its own
            if where.stop - where.start > 1 or len(data) == 1:
                poutine.condition(model, data=one)(take(data.x, where))


@contextmanager
def _averaging(parts: Sequence[_NormBase]) -> Iterator[None]:
    """Layers whose running statistics are the plain averages over batches that they meet inside."""
    before = [part.momentum for part in parts]
    for part in parts:
        part.reset_running_stats()
        part.momentum, part.training = None, True
    try:
        yield
    finally:
        for part, momentum in zip(parts, before, strict=True):
            part.momentum, part.training = momentum, False
