"""The loop of stochastic-gradient MCMC: steps, what is kept of them, and the state to go on from."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import Tensor

from ...models import BayesianModel
from ..chain_starts import jittered
from ..data import Data
from ..diagnostics.standard_errors import mcse_mean
from ..draws_posterior import DrawsPosterior
from ..driver import Families
from ..errors import InferenceError
from ..log_likelihood import convergence, guess_log_likelihood
from ..monitor import Monitor
from ..optimize import validation_nll
from ..samplers.streams import Streams
from ..sampling import FEWEST, later_interrupts
from ..stored_draws import DrawStream
from .minibatch_density import Estimate, MinibatchDensity
from .motion import Motion, Surroundings
from .statistics import densities

if TYPE_CHECKING:
    from .driver import StochasticGradientMCMC

WORTH_TRACING = 64
"""Gradients, of all chains together, from which on it is quicker to write the model's operations down first."""
REMEMBERED = 0.99
"""The decay of the average of the gradients' variance: about a hundred steps."""


class Sampling:
    """``K`` chains on minibatches, all steps that a driver asks for.

    Args:
        driver: The driver.
        model: The model that all chains share.
        guide: That of a start that fits one: where chains start depends on it.
        starts: Where each chain starts: values by site.
        data: The data, on the model's device.
        seed: Of the minibatches and of the noise.
        folder: Where whole parts of the draws are kept; None to keep them in memory.

    Attributes:
        interrupted: Whether the interrupt key ended the run.
    """

    def __init__(
        self,
        driver: StochasticGradientMCMC,
        model: BayesianModel,
        guide: Families | None,
        starts: Sequence[Mapping[str, Tensor]],
        data: Data,
        seed: int,
        folder: Path | None = None,
    ):
        self.driver, self.model, self.guide, self.data, self.seed = driver, model, guide, data, seed
        self.chains, self.size = len(starts), min(driver.batch_size, len(data))
        self.an_epoch = math.ceil(len(data) / self.size)
        self.steps = driver.epochs * self.an_epoch
        self.plan = driver.schedule.plan(self.steps)
        self.kept_after = driver.schedule.kept(self.steps, driver.num_samples)
        self.halved = driver.estimates_noise and self.size < len(data)
        pieces = 2 if self.halved else 1
        self.density = MinibatchDensity(
            model,
            data,
            batch_size=self.size // pieces,
            chains=self.chains * pieces,
            temperature=driver.temperature,
            trace=self.steps * self.chains >= WORTH_TRACING,
        )
        # other seeds than those of the nets, or noise would repeat what the first weights were made of
        self.streams = Streams(2 * seed + 1, self.chains)
        self.z = jittered(torch.stack([self.density.layout.flatten(start) for start in starts]), driver.jitter, seed)
        self.motion = Motion(torch.zeros_like(self.z), self.z.new_full((self.chains,), driver.first_friction))
        self.stream = DrawStream(self.density.layout.unflatten, self.chains, self.z.shape[1], folder)
        self.volumes: list[Tensor] = []
        self.variance = torch.zeros_like(self.z)
        self.records: list[dict[str, Any]] = []
        self.sums: dict[str, float] = {}  # of the epoch that is under way
        self.done, self.interrupted = 0, False
        self.seconds = self.started = 0.0
        self.good: Tensor | None = None
        self.guessing = guess_log_likelihood(data.y)

    @property
    def count(self) -> int:
        """Draws of each chain so far, but for one at which the density fails."""
        return len(self.volumes)

    def run(self, monitor: Monitor) -> DrawsPosterior:
        """Take all steps; return the posterior of the draws.

        Raises:
            KeyboardInterrupt: The interrupt key was pressed before there were a few draws.
        """
        self.resume(monitor)
        self.started = time.perf_counter() - self.seconds
        with monitor.stage("sampling", self.steps), pyro.validation_enabled(False):
            try:
                self.take_steps(monitor)
            except KeyboardInterrupt:
                if self.count < FEWEST:
                    raise
                self.interrupted = True
        posterior = self.finish()
        posterior.info["seconds"] = round(time.perf_counter() - self.started, 2)
        return posterior

    def resume(self, monitor: Monitor) -> None:
        """Go on from the monitor's checkpoint, where it has a state of this work; the records so far are told again."""
        kept = self.driver.resumed(self.model, self.guide, self.data, self.seed, monitor)
        if kept is not None:
            try:
                self.go_on(*kept)
            except (FileNotFoundError, ValueError):  # a file of draws is lost
                assert monitor.checkpoint is not None
                monitor.checkpoint.clear()
                kept = None
        if kept is None:
            self.stream.restore(0, None)  # files of other work go
        for record in self.records:
            monitor.record(record)

    def take_steps(self, monitor: Monitor) -> None:
        """Take the steps that are left; after each epoch there is a record of it."""
        text, checkpoint = self.text(self.records[-1]) if self.records else "", monitor.checkpoint
        monitor.step(text, advance=self.done)
        while self.done < self.steps:
            epoch = self.done // self.an_epoch + 1
            with later_interrupts():
                for name, value in self.step(self.done, f"epoch {epoch}, step {self.done + 1}").items():
                    self.sums[name] = self.sums.get(name, 0.0) + float(value.double().mean()) / self.an_epoch
                self.done += 1
            monitor.step(text)
            if self.done % self.an_epoch == 0:
                self.records.append(self.entry(epoch))
                self.sums = {}
                monitor.record(self.records[-1])
                text = self.text(self.records[-1])
            if checkpoint is not None and (checkpoint.due or self.done == self.steps):
                checkpoint.save(*self.everything())
        monitor.step(text, advance=0)

    def step(self, index: int, when: str) -> dict[str, Tensor]:
        """One step of every chain; returns what is averaged over an epoch, ``[K]`` each."""
        driver, plan, here = self.driver, self.plan, self.z
        estimate = self.estimate(index)
        self.check(estimate, index, when)
        self.good = here
        rate = driver.learning_rate * float(plan.factors[index]) / len(self.data)
        temperature = driver.temperature if plan.noisy[index] else 0.0
        force = driver.temperature * estimate.gradient
        # the average begins at 0 and is young at first (Kingma and Ba, 2015, Sec. 3)
        excess = self.variance / (1 - REMEMBERED ** (index + 1)) if self.halved else 0.0
        around = Surroundings(force, self.streams.normal(here), rate, temperature, excess)
        displacement, self.motion = driver.move(self.motion, around)
        self.z = here + displacement
        if self.count < len(self.kept_after) and self.kept_after[self.count] == index:
            self.stream.add(self.z)
            self.volumes.append(self.volume())
        return {
            "log_likelihood": estimate.log_likelihood,
            "log_joint": driver.temperature * estimate.log_prob,
            "kinetic_temperature": self.motion.momentum.square().mean(-1),
            "configurational_temperature": -(here * force).mean(-1),
            "friction": self.motion.friction,
        }

    def volume(self) -> Tensor:
        """How much the unconstrained numbers are stretched where the chains are: ``ln |det t'(z)|``, ``[K]``."""
        with torch.no_grad():
            placed = [self.density.layout.placed(each)[1] for each in self.z]
        return torch.stack([torch.as_tensor(found).double().cpu() for found in placed])

    def minibatches(self) -> Tensor:
        """The examples that each chain sees, ``[K, B]``, drawn from the chain's own stream."""
        if self.size == len(self.data):
            return torch.arange(self.size, device=self.z.device).expand(self.chains, -1)
        orders = [torch.randperm(len(self.data), generator=own)[: self.size] for own in self.streams.own]
        return torch.stack(orders).to(self.z.device)

    def estimate(self, index: int) -> Estimate:
        """The density where the chains are; by the halves of the minibatches where these tell their variance.

        The halves' difference has the variance of a mean over independent examples; of a minibatch drawn without
        replacement the mean has a share :math:`1 - B / N` of it.
        """
        batch = self.minibatches()
        if not self.halved:
            return self.density(self.z, batch)
        halves = self.density(self.z.repeat_interleave(2, 0), batch.reshape(2 * self.chains, -1))
        pairs = halves.gradient.view(self.chains, 2, -1) * self.driver.temperature
        found = (pairs[:, 0] - pairs[:, 1]).square() / 4 * (1 - self.size / len(self.data))
        self.variance = REMEMBERED * self.variance + (1 - REMEMBERED) * found
        return Estimate(*(part.unflatten(0, (self.chains, 2)).mean(1) for part in halves))

    def check(self, estimate: Estimate, index: int, when: str) -> None:
        """Raise an error where a chain has left the numbers."""
        sound = estimate.log_prob.isfinite() & estimate.gradient.isfinite().all(-1)
        if sound.all():
            return
        chain = int((~sound).nonzero()[0])
        what = f"the log-density of chain {chain} is {float(estimate.log_prob[chain]):.6g}"
        if estimate.log_prob[chain].isfinite():
            what += ", its gradient not finite"
        self.leave_out(index - 1)
        why = "where sampling starts" if index == 0 else "steps diverge at this learning rate, or the model fails"
        raise InferenceError(f"{when}: {what}; {why}", self.last_good())

    def leave_out(self, step: int) -> None:
        """Do not count the draw of this step, if there is one: the density may fail there."""
        if self.count and self.kept_after[self.count - 1] == step:
            self.volumes.pop()

    def entry(self, epoch: int) -> dict[str, Any]:
        """The record of an epoch that has just ended; log-densities are of all data, estimated."""
        found, last = dict(self.sums), self.done - 1
        if not self.motion.momentum.any():  # nothing but friction: there is no momentum to measure
            del found["kinetic_temperature"], found["friction"]
        entry: dict[str, Any] = {
            "epoch": epoch,
            "stage": "sampling" if self.plan.sampling[last] else "burn-in",
            "learning_rate": self.driver.learning_rate * float(self.plan.factors[last]),
            **found,
            "draws": self.count,
        }
        if epoch % self.driver.validate_every == 0 or epoch == self.driver.epochs:
            entry["validation_nll"] = self.validate(epoch)
        return {**entry, "seconds": round(time.perf_counter() - self.started, 3)}

    def text(self, entry: Mapping[str, Any]) -> str:
        """An epoch in one line, per example, for the progress bar."""
        text = (
            f"{entry['stage']}  rate {entry['learning_rate']:.2g}  lik {entry['log_likelihood'] / len(self.data):.3g}"
        )
        text += f" (guessing {self.guessing / len(self.data):.3g})"
        key = "kinetic_temperature" if "kinetic_temperature" in entry else "configurational_temperature"
        text += f"  T {entry[key]:.2f}  draws {entry['draws']}"
        nll = entry.get("validation_nll")
        return text if nll is None else f"{text}  val NLL {nll:.3f}"

    def validate(self, epoch: int) -> float | None:
        """Validation NLL of the draws so far; before the first one, of where the chains are."""
        data = self.data
        if data.x_validation is None or data.y_validation is None:
            return None
        try:
            prediction = self.so_far().predict(data.x_validation, self.driver.validation_samples)
        except InferenceError as error:
            self.leave_out(self.done - 1)
            raise InferenceError(f"epoch {epoch}, validation: {error}", self.last_good()) from None
        return validation_nll(prediction, data.y_validation)

    def places(self, z: Tensor) -> DrawsPosterior:
        """The posterior of one draw of each chain, ``[K, D]``."""
        return DrawsPosterior(self.model, self.density.layout.unflatten(z), chains=self.chains)

    def so_far(self, most: int | None = None) -> DrawsPosterior:
        """The posterior of the draws so far, or of the first of them; before there is one, of where the chains are."""
        if not self.count:
            return self.places(self.z)
        return DrawsPosterior(self.model, self.stream.draws(self.count if most is None else most), chains=self.chains)

    def last_good(self, most: int | None = None) -> DrawsPosterior | None:
        """The posterior after a failure: of the draws before it, else of the last places with a finite density.

        Args:
            most: Draws of each chain that are sound, default all.
        """
        count = self.count if most is None else most
        if not count and self.good is None:
            return None
        if count:
            posterior, kept = self.so_far(count), f"last good ({count} draws of each chain)"
        else:
            assert self.good is not None
            posterior, kept = self.places(self.good), "last good"
        posterior.model.eval()
        posterior.info.update(self.info(), draws=count, kept=kept)
        return posterior

    def everything(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the next step depends on, as tensors and plain data."""
        pending, parts = self.stream.state()
        tensors = {"z": self.z, "variance": self.variance, **pending}
        tensors |= {f"motion.{name}": value for name, value in self.motion._asdict().items()}
        if self.volumes:
            tensors["volumes"] = torch.stack(self.volumes)
        content = {
            "records": self.records,
            "sums": self.sums,
            "done": self.done,
            "seconds": time.perf_counter() - self.started,
            "parts": parts,
        }
        return {**tensors, "streams": self.streams.state()}, content

    def go_on(self, tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> None:
        """Take up what `everything` gave.

        Raises:
            FileNotFoundError, ValueError: A file of draws is missing or damaged.
        """
        self.stream.restore(content["parts"], tensors.get("pending"))
        self.volumes = list(tensors["volumes"].unbind(0)) if "volumes" in tensors else []
        self.z, self.variance = tensors["z"].to(self.z), tensors["variance"].to(self.z)
        self.motion = type(self.motion)(*(tensors[f"motion.{name}"].to(self.z) for name in self.motion._fields))
        self.streams.restore(tensors["streams"])
        self.records, self.sums = list(content["records"]), dict(content["sums"])
        self.done, self.seconds = content["done"], content["seconds"]

    def info(self) -> dict[str, Any]:
        """What a reader should know of how draws were made."""
        driver = self.driver
        return {
            "exact": False,
            "temperature": driver.temperature,
            "chains": self.chains,
            "draws": self.count,
            "steps": self.steps,
            "learning_rate": driver.learning_rate,
            "batched": self.density.traced,
            "guess_log_likelihood": self.guessing,
        }

    def finish(self) -> DrawsPosterior:
        """The posterior of all draws, with the densities of each on all data."""
        self.model.eval()
        statistics = self.statistics()
        finite = torch.stack([values.isfinite() for values in statistics.values()]).all(0)
        if not finite.all():
            count = int(finite.all(0).long().cumprod(0).sum())
            message = f"the log-density of draw {count + 1} of chain {int((~finite[:, count]).nonzero()[0])}"
            raise InferenceError(f"{message} is not finite on all data", self.last_good(count))
        posterior = self.so_far()
        posterior.statistics = statistics
        posterior.info.update(self.info(), log_likelihood=convergence(statistics["log_likelihood"]))
        told = [record["configurational_temperature"] for record in self.records if record["stage"] == "sampling"]
        if len(told) >= FEWEST:
            values = torch.tensor([told], dtype=torch.float64)
            error = float(mcse_mean(values))
            found = {"mean": float(values.mean()), "mcse": error if math.isfinite(error) else None}
            posterior.info["configurational_temperature"] = found
        if self.interrupted:
            posterior.info["interrupted"] = {"draws": self.count, "of": len(self.kept_after)}
        return posterior

    def statistics(self) -> dict[str, Tensor]:
        """Of each draw: log-likelihood and tempered log-density on all data, learning rate; ``[K, S]`` each."""
        driver = self.driver
        log_likelihood, log_density = densities(
            self.so_far(),
            torch.stack(self.volumes, 1).flatten(),
            self.data,
            temperature=driver.temperature,
            batch_size=self.size,
        )
        rates = driver.learning_rate * self.plan.factors[self.kept_after[: self.count]]
        return {
            "log_likelihood": log_likelihood.view(self.chains, -1),
            "log_density": log_density.view(self.chains, -1),
            "step_size": rates.repeat(self.chains, 1),
        }
