"""Gradient descent on a guide's objective: the loop that SVI, MAP and ML share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyro
import torch
from torch import Tensor, nn

from ..guides import Guide
from ..guides.guide import is_latent
from ..priors.settings import check, check_option
from . import metrics
from .compiled_objective import CompiledObjective
from .data import Data, Inputs
from .driver import Driver
from .errors import InferenceError
from .guide_posterior import GuidePosterior
from .minibatched import Minibatched
from .monitor import Monitor
from .objective import OnePassELBO, Terms
from .posterior import Posterior
from .prediction import ClassPrediction, Prediction

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def validation_nll(prediction: Prediction, y: Tensor) -> float:
    """Mean negative log-likelihood of observations under a prediction, in nats an example (a token, a value vector)."""
    if isinstance(prediction, ClassPrediction):
        seen = y.cpu().flatten() >= 0
        flat = prediction.probabilities.flatten(0, -2)[seen]
        return float(metrics.negative_log_likelihood(flat, y.cpu().flatten()[seen]))
    return float(-prediction.log_density(y.cpu().double()).mean())


@dataclass(frozen=True, kw_only=True)
class Optimizing(Minibatched):
    """A driver that descends a gradient in minibatches.

    Args:
        epochs, batch_size, learning_rate, schedule, warmup, validate_every: See `Minibatched`.
        validation_samples, keep: See `Minibatched`.
        optimizer: ``adam`` (default), ``adamw`` or ``sgd``.
        clip_norm: Largest norm of the gradient of the loss per example, or None (default) for no clipping.
        weight_decay: For ``adamw``: the share of everything trained, scales of guides too, that is taken away at each
            step at a learning rate of 1; at least 0, default 0. Priors are the way to keep weights small.
        compile: Whether loss and gradients are compiled, default False: half a minute before the first step, minutes
            for deep nets, and faster steps after it, with the same numbers to rounding. A warning says where that
            cannot be done: for Dirichlet rows, whose rejected draws are drawn again, and without a compiler.
        device, dtype: See `Driver`.
    """

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    clip_norm: float | None = None
    weight_decay: float = 0.0
    compile: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option(self, "optimizer", OPTIMIZERS)
        decays = self.weight_decay == 0 or self.optimizer == "adamw"
        check(self, "weight_decay", 0 <= self.weight_decay < math.inf, "a number of at least 0")
        check(self, "weight_decay", decays, "0, or the optimizer adamw")
        check(self, "clip_norm", self.clip_norm is None or self.clip_norm > 0, "a number above 0, or null")

    def optimizer_of(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of these parameters."""
        decay = {"weight_decay": self.weight_decay} if self.optimizer == "adamw" else {}
        return OPTIMIZERS[self.optimizer](parameters, lr=self.learning_rate, **decay)


class Fit:
    """One optimisation of a guide and of the model's learned parameters.

    Args:
        settings: The driver.
        guide: The guide, with its model.
        data: The data, on the model's device.
        objective: The bound and its temperature.
        beta: The weight of the KL when a share of the steps is done.
        full_from: The share of the steps from which ``beta`` and ``row_beta`` are what they stay; only then can a state
            be the best, but for the last state, which always can.
        driver: Whose work it is, which a checkpoint belongs to; default ``settings``.
        optimizer: What makes the optimizer of the parameters, default ``settings``.
        row_beta: A factor on ``beta`` for the KL of the rows, default 1 throughout.
    """

    def __init__(
        self,
        settings: Minibatched,
        guide: Guide,
        data: Data,
        objective: OnePassELBO,
        beta: Callable[[float], float] = lambda progress: 1.0,
        full_from: float = 0.0,
        driver: Driver | None = None,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
        row_beta: Callable[[float], float] = lambda progress: 1.0,
    ):
        self.driver: Driver = settings if driver is None else driver
        self.settings, self.model, self.guide, self.data = settings, guide.model, guide, data
        self.objective, self.beta, self.row_beta, self.full_from = objective, beta, row_beta, full_from
        self.posterior = GuidePosterior(self.model, guide, data.example())
        self.parameters: dict[str, nn.Parameter] = {
            **{f"guide.{name}": p for name, p in guide.named_parameters()},
            **{f"model.{name}": p for name, p in self.model.learned.items()},
        }
        buffers = {f"buffer.{name}": b for name, b in self.model.named_buffers()}
        self.moving: dict[str, Tensor] = {**self.parameters, **buffers}
        if optimizer is None:
            assert isinstance(settings, Optimizing)
            optimizer = settings.optimizer_of
        self.optimizer = optimizer(self.parameters.values())
        self.clip_norm = settings.clip_norm if isinstance(settings, Optimizing) else None
        self.compiled: CompiledObjective | None = None
        if isinstance(settings, Optimizing) and settings.compile:
            self.compiled = CompiledObjective(objective, guide, self.parameters, len(data))
        self.best: dict[str, Tensor] | None = None
        self.good: dict[str, Tensor] | None = None  # the first state of the present epoch with a finite loss
        self.good_is_due = True
        self.best_nll, self.best_epoch = math.inf, 0

    def run(self, seed: int, monitor: Monitor) -> Posterior:
        """Optimise; return the posterior in the state that the settings ask to keep."""
        settings, started = self.settings, time.perf_counter()
        generator = torch.Generator().manual_seed(seed)
        steps = settings.epochs * math.ceil(len(self.data) / settings.batch_size)
        records: list[dict[str, Any]] = []
        text, before = "", 0.0
        kept = self.driver.resumed(self.model, self.guide, self.data, seed, monitor)
        if kept is not None:
            records, before = self.go_on(*kept, generator)
            text = self.text(records[-1])
            for record in records:
                monitor.record(record)
        done = len(records) * (steps // settings.epochs)
        started -= before
        self.model.train()
        with monitor.stage("training", steps), pyro.validation_enabled(False):
            if kept is not None:
                monitor.step(text, advance=done)
            for epoch in range(len(records) + 1, settings.epochs + 1):
                self.good_is_due = True
                sums: dict[str, float] = {}
                for index, x, y in self.data.batches(settings.batch_size, generator):
                    progress = done / steps
                    for group in self.optimizer.param_groups:
                        group["lr"] = settings.learning_rate * settings.rate((done + 1) / (steps + 1))
                    weights = self.beta(progress), self.row_beta(progress)
                    parts = self.step(index, x, y, weights, f"epoch {epoch}, step {done + 1}")
                    for name, value in parts.items():
                        sums[name] = sums.get(name, 0.0) + value * len(y) / len(self.data)
                    done += 1
                    monitor.step(text)
                self.epoch_ended(epoch)
                entry: dict[str, Any] = {"epoch": epoch, **sums, "beta": self.beta(progress)}
                if self.model.rows:
                    entry["row_beta"] = self.row_beta(progress)
                if epoch % settings.validate_every == 0 or epoch == settings.epochs:
                    # where the steps are few there is none with the full weight: the last state is nearest to it
                    eligible = progress >= self.full_from or epoch == settings.epochs
                    entry["validation_nll"] = self.validate(epoch, eligible)
                records.append({**entry, "seconds": round(time.perf_counter() - started, 3)})
                monitor.record(records[-1])
                text = self.text(entry)
                if monitor.checkpoint is not None and (monitor.checkpoint.due or epoch == settings.epochs):
                    monitor.checkpoint.save(*self.everything(generator, records, time.perf_counter() - started))
            monitor.step(text, advance=0)
        return self.finish(time.perf_counter() - started)

    def step(self, index: Tensor, x: Inputs, y: Tensor, weights: tuple[float, float], when: str) -> dict[str, float]:
        """One step on one minibatch, with these weights of the KL and of its rows; returns the parts of the bound."""
        self.optimizer.zero_grad(set_to_none=True)
        found = None if self.compiled is None else self.compiled(x, y, weights)
        terms = self.objective.terms(self.guide, x, y, len(self.data)) if found is None else found.terms
        loss = self.objective.loss_of(terms, *weights) / len(self.data) if found is None else found.loss
        if not math.isfinite(loss.item()):
            if found is not None and self.compiled is not None:
                self.compiled.explain(x, y)
            raise InferenceError(f"{when}: the loss is {loss.item()}; {self.where(terms, index)}", self.last_good())
        if self.good_is_due:
            self.good, self.good_is_due = self.state(), False
        if found is None:
            loss.backward()
        else:
            for name, gradient in found.gradients.items():
                self.parameters[name].grad = gradient
        gradients = {name: p.grad for name, p in self.parameters.items() if p.grad is not None}
        norm = nn.utils.get_total_norm(gradients.values())
        if not math.isfinite(norm.item()):
            bad = next((name for name, g in gradients.items() if not torch.isfinite(g).all()), "the norm of all")
            raise InferenceError(
                f"{when}: the gradient is not finite, first at {bad}, although the loss is {loss.item():.6g}",
                self.last_good(),
            )
        if self.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters.values(), self.clip_norm, norm)
        self.optimizer.step()
        return terms.item()

    def epoch_ended(self, epoch: int) -> None:
        """What else is to be done after the steps of an epoch; nothing here."""
        return None

    def where(self, terms: Terms, index: Tensor) -> str:
        """Which part of the bound is not finite, and where in the data or the parameters it starts."""
        parts = {
            "log-likelihood": terms.log_likelihood,
            "KL of the weights": terms.kl,
            "KL of the rows": terms.local_kl,
        }
        bad = [name for name, value in parts.items() if not torch.isfinite(value)]
        found = "not finite: " + ", ".join(bad) if bad else "every part of it is finite: their sum overflows"
        sick = [name for name, p in self.parameters.items() if not torch.isfinite(p).all()]
        if sick:
            return f"{found}; parameters that are not finite: {', '.join(sick[:4])}"
        for name, site in self.guide.trace.nodes.items():
            if site["type"] != "sample" or not isinstance(site["value"], Tensor) or name not in self._names():
                continue
            values = site["value"] if is_latent(site) else site["fn"].log_prob(site["value"])
            if torch.isfinite(values).all():
                continue
            if is_latent(site):
                return f"{found}; first at a draw of {name}"
            wrong = (~torch.isfinite(values)).reshape(-1, len(index)).any(0).nonzero().flatten()
            examples = ", ".join(str(int(index[i])) for i in wrong[:5])
            which = f"{len(wrong)} of {len(index)} examples (training rows {examples})"
            return f"{found}; first in the log-likelihood of {which}"
        return found

    def _names(self) -> set[str]:
        return {*self.guide.sites, "obs"}

    def validate(self, epoch: int, eligible: bool) -> float | None:
        """Validation NLL of the present state, which is kept when it is eligible and the best."""
        data = self.data
        if data.x_validation is None or data.y_validation is None:
            return None
        try:
            prediction = self.posterior.predict(data.x_validation, self.settings.validation_samples)
        except InferenceError as error:
            raise InferenceError(f"epoch {epoch}, validation: {error}", self.last_good()) from None
        nll = validation_nll(prediction, data.y_validation)
        self.model.train()
        if eligible and nll < self.best_nll:
            self.best_nll, self.best_epoch = nll, epoch
            if self.settings.keep == "best":
                self.best = self.state()
        return nll

    def state(self) -> dict[str, Tensor]:
        """A copy of everything that moves: what is optimised, and the net's running statistics."""
        return {name: value.detach().clone() for name, value in self.moving.items()}

    def everything(
        self, generator: torch.Generator, records: list[dict[str, Any]], seconds: float
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the next epoch depends on, as tensors and plain data."""
        tensors = {f"now.{name}": value for name, value in self.state().items()}
        tensors |= {f"best.{name}": value for name, value in (self.best or {}).items()}
        tensors |= {"random.batches": generator.get_state(), "random.global": torch.get_rng_state()}
        numbers: dict[str, Any] = {}
        for index, state in self.optimizer.state_dict()["state"].items():
            for name, value in state.items():
                (tensors if isinstance(value, Tensor) else numbers)[f"optimizer.{index}.{name}"] = value
        best = {"nll": None if math.isinf(self.best_nll) else self.best_nll, "epoch": self.best_epoch}
        return tensors, {"records": records, "seconds": seconds, "best": best, "optimizer": numbers}

    def go_on(
        self, tensors: dict[str, Tensor], content: dict[str, Any], generator: torch.Generator
    ) -> tuple[list[dict[str, Any]], float]:
        """Take up what `everything` gave; returns the records so far and the seconds they took."""

        def under(prefix: str, found: Mapping[str, Any]) -> dict[str, Any]:
            return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}

        self.put(under("now.", tensors))
        if best := under("best.", tensors):
            self.best = {name: value.to(self.moving[name]) for name, value in best.items()}
        found = content["best"]
        self.best_nll, self.best_epoch = math.inf if found["nll"] is None else found["nll"], found["epoch"]
        state: dict[int, dict[str, Any]] = {}
        for name, value in {**under("optimizer.", tensors), **under("optimizer.", content["optimizer"])}.items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        generator.set_state(tensors["random.batches"])
        torch.set_rng_state(tensors["random.global"])
        return content["records"], content["seconds"]

    def last_good(self) -> Posterior | None:
        """The posterior after a failure: in the best state, else in the last one known to have a finite loss."""
        if self.best is None and self.good is None:
            return None
        if self.best is None:
            self.put(self.good)
        posterior = self.finish()
        if self.best is None:
            posterior.info["kept"] = "last good"
        return posterior

    def put(self, state: dict[str, Tensor] | None) -> None:
        """Go back to a state."""
        with torch.no_grad():
            for name, value in (state or {}).items():
                self.moving[name].copy_(value)

    def text(self, entry: dict[str, Any]) -> str:
        """An epoch in one line, per example, for the progress bar."""
        per = {key: entry[key] / len(self.data) for key in ("elbo", "log_likelihood", "kl", "row_kl")}
        text = f"lik {per['log_likelihood']:.3g}"
        if entry["beta"]:  # without the prior there is no bound
            text = f"ELBO {per['elbo']:.3g}  {text}  KL {per['kl'] + per['row_kl']:.3g}"
        if "bound" in entry:
            text = f"bound {entry['bound'] / len(self.data):.3g}  {text}"
        nll = entry.get("validation_nll")
        return text if nll is None else f"{text}  val NLL {nll:.3f}"

    def finish(self, seconds: float | None = None) -> Posterior:
        """The posterior in the best state, or in the present one when no state was kept."""
        self.put(self.best)
        self.model.eval()
        info: dict[str, Any] = {"kept": "last" if self.best is None else f"best (epoch {self.best_epoch})"}
        if self.best_epoch:
            info["best_epoch"], info["best_validation_nll"] = self.best_epoch, self.best_nll
        if seconds is not None:
            info["seconds"] = round(seconds, 2)
        self.posterior.info.update(info, guide=self.guide.summary())
        return self.posterior
