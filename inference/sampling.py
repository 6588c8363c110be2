"""A run of Markov chains: what it tells while it goes on, and how it goes on after a stop."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro.ops.stats import effective_sample_size
from torch import Tensor

from .checkpoint import Checkpoint
from .monitor import Monitor
from .samplers import Chains, Draw
from .samplers.kernel import LogProbAndGrad
from .stored_draws import DrawStream

RECORDS = 200
"""About how many records the history of a run has."""
FEWEST = 4
"""Draws of each chain from which diagnostics can be computed; an interrupted run with fewer is not kept."""
TOLD = ("log_density", "energy", "acceptance", "divergent", "steps", "depth", "step_size")
"""What is kept of every step of every chain, as numbers."""


class Counted:
    """A density that counts how often its gradient was evaluated.

    Args:
        density: The log-density with its gradient.
    """

    def __init__(self, density: LogProbAndGrad):
        self.density, self.gradients = density, 0

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        self.gradients += 1 if z.dim() == 1 else len(z)
        return self.density(z)


def effective(values: Tensor) -> float | None:
    """The effective sample size of ``[K, S]``, or None where there are too few draws or all are the same."""
    if values.shape[1] < FEWEST:
        return None
    found = float(effective_sample_size(values))
    return found if math.isfinite(found) else None


class Sampling:
    """Chains that run to their end, or until they are interrupted, and can go on from a checkpoint bit for bit.

    Args:
        chains: The chains, at their start.
        stream: Takes the draws.
        num_samples: ``S'``: draws to keep of each chain.
        thinning: Steps for each of them.
        temperature: Of the density, so that the joint density can be told.
        monitor: Receives progress and history; where it has a checkpoint, the state is kept there when it is due.
        seconds: Of all steps together, after which the chains end as soon as there are a few draws; default no limit.

    Attributes:
        rows: What was told of each step after warm-up: `TOLD`, ``[K]`` each, as one tensor.
        divergences: Steps after warm-up that diverged, of all chains.
        interrupted: Whether the interrupt key ended the run.
    """

    def __init__(
        self,
        chains: Chains,
        stream: DrawStream,
        num_samples: int,
        thinning: int,
        temperature: float,
        monitor: Monitor,
        seconds: float = math.inf,
    ):
        self.chains, self.stream, self.monitor = chains, stream, monitor
        self.num_samples, self.thinning, self.temperature = num_samples, thinning, temperature
        self.total = chains.warmup_steps + num_samples * thinning
        self.every = math.ceil(self.total / RECORDS)
        self.rows: list[Tensor] = []
        self.records: list[dict[str, Any]] = []
        self.accepted: list[float] = []  # since the last record
        self.divergences, self.interrupted = 0, False
        self.seconds = self.warmup_seconds = self.told_at = 0.0
        self.limit = seconds
        self.text = ""

    @property
    def draws(self) -> int:
        """How many draws of each chain are kept so far."""
        return len(self.rows) // self.thinning

    @property
    def late(self) -> bool:
        """Whether the time is over, and there are a few draws."""
        return self.seconds >= self.limit and self.draws >= FEWEST

    @property
    def ended(self) -> bool:
        """Whether no step is left, or no time."""
        return self.chains.index >= self.total or self.late

    def run(self) -> None:
        """Run what is left.

        Raises:
            KeyboardInterrupt: The interrupt key was pressed before there were a few draws.
        """
        started, checkpoint = time.perf_counter() - self.seconds, self.monitor.checkpoint
        with self.monitor.stage("sampling", self.total), pyro.validation_enabled(False):
            self.monitor.step(self.text, advance=self.chains.index)
            while not self.ended:
                try:
                    draw = self.chains.step()
                    with later_interrupts():
                        self._take(draw)
                        self.seconds = time.perf_counter() - started
                        if self.chains.index <= self.chains.warmup_steps:
                            self.warmup_seconds = self.seconds
                        if checkpoint is not None and (checkpoint.due or self.ended):
                            self.save(checkpoint)
                except KeyboardInterrupt:
                    if self.draws < FEWEST:
                        raise
                    self.interrupted = True  # no state is kept: a step may have been left half done
                    return

    def _take(self, draw: Draw) -> None:
        """Keep a step, and tell of it."""
        self.accepted.append(float(draw.transition.acceptance.mean()))
        if not draw.warming:
            self.rows.append(told(draw))
            self.divergences += int(draw.transition.divergent.sum())
            if len(self.rows) % self.thinning == 0:
                self.stream.add(draw.z)
        number = draw.index + 1 if draw.warming else len(self.rows)
        last = draw.index + 1 in (self.chains.warmup_steps, self.total)
        if number % self.every == 0 or last or self.seconds - self.told_at > self.limit / RECORDS:
            self._record(draw, number)
            self.told_at = self.seconds
        self.monitor.step(self.text)

    def _record(self, draw: Draw, number: int) -> None:
        stage = "warmup" if draw.warming else "sample"
        acceptance, self.accepted = sum(self.accepted) / len(self.accepted), []
        kept = [row[0] for row in self.rows[self.thinning - 1 :: self.thinning]]
        ess = effective(torch.stack(kept, 1)) if kept else None
        record = {
            "draw": number,
            "stage": stage,
            "log_joint": self.temperature * float(draw.log_prob.double().mean()),
            "step_size": draw.step_size,
            "acceptance": acceptance,
            "divergences": self.divergences,
            "ess": ess,
        }
        shown = "" if ess is None else f"  ESS {ess:.0f}"
        state = f"{stage}  step {draw.step_size:.2e}  accept {acceptance:.2f}"
        self.text = f"{state}  divergences {self.divergences}{shown}"
        self.records.append(record)
        self.monitor.record(record)

    def statistics(self) -> dict[str, Tensor]:
        """What was told of each draw so far, ``[K, S']`` each.

        Between two draws that are kept steps are added up, acceptances averaged, and one divergence counts.
        """
        whole = self.rows[: self.draws * self.thinning]
        if not whole:
            return {name: torch.zeros(len(self.chains.position.z), 0, dtype=torch.float64) for name in TOLD}
        values = torch.stack(whole, -1).unflatten(-1, (-1, self.thinning))  # [7, K, S', thinning]
        found = {name: values[index, ..., -1] for index, name in enumerate(TOLD)}
        return {
            **found,
            "acceptance": values[TOLD.index("acceptance")].mean(-1),
            "divergent": values[TOLD.index("divergent")].amax(-1).bool(),
            "steps": values[TOLD.index("steps")].sum(-1).long(),
            "depth": found["depth"].long(),
        }

    def every_step(self, name: str) -> Tensor:
        """One of `TOLD` of each step after warm-up, whether a draw of it is kept or not, ``[K, S]``."""
        chains = len(self.chains.position.z)
        found = [row[TOLD.index(name)] for row in self.rows]
        return torch.stack(found, 1) if found else torch.zeros(chains, 0, dtype=torch.float64)

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep everything that the next step depends on, and what was told before it."""
        pending, parts = self.stream.state()
        tensors = {f"chains.{name}": value for name, value in self.chains.state().items()} | pending
        if self.rows:
            tensors["rows"] = torch.stack(self.rows)
        content = {
            "records": self.records,
            "accepted": self.accepted,
            "divergences": self.divergences,
            "seconds": self.seconds,
            "warmup_seconds": self.warmup_seconds,
            "gradients": getattr(self.chains.density, "gradients", 0),
            "parts": parts,
            "text": self.text,
        }
        checkpoint.save(tensors, content)

    def restore(self, tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> None:
        """Go on from what `save` kept; the records so far are told again.

        Raises:
            FileNotFoundError, ValueError: A file of draws is missing or damaged.
        """
        self.stream.restore(content["parts"], tensors.get("pending"))
        self.chains.restore({n.removeprefix("chains."): t for n, t in tensors.items() if n.startswith("chains.")})
        self.rows = list(tensors["rows"].unbind(0)) if "rows" in tensors else []
        self.records, self.accepted = list(content["records"]), list(content["accepted"])
        self.divergences, self.text = content["divergences"], content["text"]
        self.seconds, self.warmup_seconds = content["seconds"], content["warmup_seconds"]
        self.told_at = self.seconds
        if isinstance(self.chains.density, Counted):
            self.chains.density.gradients = content["gradients"]
        for record in self.records:
            self.monitor.record(record)


@contextmanager
def later_interrupts() -> Iterator[None]:
    """What is done in the block is done whole: the interrupt key is heard at its end."""
    main, usual = threading.current_thread() is threading.main_thread(), signal.default_int_handler
    if not main or signal.getsignal(signal.SIGINT) is not usual:  # it is not heard here, or otherwise
        yield
        return
    pressed: list[Any] = []
    signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if pressed:
        raise KeyboardInterrupt


def told(draw: Draw) -> Tensor:
    """`TOLD` of one step, ``[7, K]`` in float64."""
    happened = draw.transition
    count = len(draw.z)
    parts = {
        "log_density": draw.log_prob,
        "energy": happened.energy,
        "acceptance": happened.acceptance,
        "divergent": happened.divergent,
        "steps": happened.steps,
        "depth": happened.depth,
        "step_size": torch.full((count,), draw.step_size, dtype=torch.float64),
    }
    return torch.stack([parts[name].detach().double().cpu() for name in TOLD])
