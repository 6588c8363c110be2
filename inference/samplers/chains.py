"""Markov chains that run side by side in one process, and can be saved between any two steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...priors.settings import SettingError
from ..errors import InferenceError
from .adaptation import below, part
from .dual_averaging import reasonable_step_size
from .kernel import Kernel, LogProbAndGrad, Position, Transition, Tuning
from .streams import Streams


@dataclass(frozen=True, eq=False)
class Draw:
    """Where ``K`` chains are after a step.

    Args:
        index: The number of the step, from 0, warm-up included.
        warming: Whether it is one of warm-up.
        z: ``[K, D]``.
        log_prob: ``[K]``.
        transition: What happened.
        step_size: The one that the step was made with.
    """

    index: int
    warming: bool
    z: Tensor
    log_prob: Tensor
    transition: Transition
    step_size: float


class Chains:
    r"""``K`` chains over a density, with one step size and one diagonal mass matrix for all.

    During warm-up the kernel's adaptation finds a step size, and the inverse masses are the variances of all chains in
    windows that double their length. Everything that changes is in `state`, from which chains go on bit for bit.

    Args:
        density: The log-density with its gradient, such as ``FlatDensity(...).log_prob_and_grad``; it is called
            with ``[K, D]``, and by `NUTSKernel` with ``[D]``.
        kernel: How chains move.
        start: Where they start, ``[K, D]``.
        seed: Of their random numbers, default 0.
        warmup_steps: Steps of adaptation, default 200; 0 for none.
        step_size: Default None: found at the start. Without warm-up it is kept as it is.
        inverse_mass: ``[D]``, about the variances of the density; default 1 each.

    Attributes:
        tuning: Step size, inverse masses and length at present.
        adaptation: What finds them.
        memory: What the kernel carries from step to step.

    Raises:
        SettingError: ``start`` is not ``[K, D]``, a setting is out of range, or the kernel cannot move such chains.
        InferenceError: The density is not finite where a chain starts.

    Reference:
        Carpenter et al., 2017, "Stan: a probabilistic programming language", Sec. 2.8 (the windows of warm-up); pooled
        over chains here.
    """

    def __init__(
        self,
        density: LogProbAndGrad,
        kernel: Kernel,
        start: Tensor,
        *,
        seed: int = 0,
        warmup_steps: int = 200,
        step_size: float | None = None,
        inverse_mass: Tensor | None = None,
    ):
        if start.dim() != 2 or not start.is_floating_point():
            raise SettingError("start", tuple(start.shape), "real numbers [K, D]: a row for each chain")
        if warmup_steps < 0:
            raise SettingError("warmup_steps", warmup_steps, "a whole number of at least 0")
        if step_size is not None and not 0 < step_size < float("inf"):
            raise SettingError("step_size", step_size, "a number above 0, or None")
        mass = torch.ones_like(start[0]) if inverse_mass is None else inverse_mass.to(start)
        if mass.shape != start.shape[1:] or not bool(((mass > 0) & mass.isfinite()).all()):
            raise SettingError("inverse_mass", tuple(mass.shape), f"{start.shape[1]} numbers above 0")
        self.density, self.kernel, self.warmup_steps = density, kernel, warmup_steps
        self.streams = Streams(seed, len(start))
        self.position = Position(start, *density(start))
        finite = self.position.log_prob.isfinite() & self.position.gradient.isfinite().all(-1)
        if not finite.all():
            chain = int((~finite).nonzero()[0])
            raise InferenceError(f"chain {chain}: the log-density or its gradient is not finite where sampling starts")
        self.index = 0
        self.memory = kernel.memory(self.position, self.streams)
        if step_size is None:
            step_size = self._first_step_size(mass, 0.1)
        self.adaptation = kernel.adaptation(Tuning(step_size, mass), warmup_steps)
        self.tuning = self.adaptation.tuning

    def _first_step_size(self, inverse_mass: Tensor, near: float) -> float:
        return reasonable_step_size(self.kernel.one_step(self.density, self.position, self.streams, inverse_mass), near)

    def step(self) -> Draw:
        """Move every chain once, and adapt if this is warm-up."""
        index, used = self.index, self.tuning.step_size
        moved = self.kernel.step(self.density, self.position, self.streams, self.tuning, self.memory)
        self.position, self.memory = moved.position, moved.memory
        self.index += 1
        warming = index < self.warmup_steps
        if warming:
            self.adaptation.update(moved, self._first_step_size)
            self.tuning = self.adaptation.tuning
        return Draw(index, warming, self.position.z, self.position.log_prob, moved.transition, used)

    def state(self) -> dict[str, Tensor]:
        """Everything that changes, as tensors, to be written to a file."""
        return {
            **self.position._asdict(),
            "index": torch.tensor(self.index),
            "streams": self.streams.state(),
            **below("memory", self.memory),
            **below("adaptation", self.adaptation.state()),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where `state` was taken, of chains with the same settings.

        Raises:
            ValueError: The state is that of other chains.
        """
        found, expected = state["z"], self.position.z
        if found.shape != expected.shape or found.dtype != expected.dtype:
            raise ValueError(f"a state of {tuple(found.shape)} {found.dtype}: expected {tuple(expected.shape)}")
        memory = part("memory", state)
        if memory.keys() != self.memory.keys():
            raise ValueError(f"a state of another kernel: it carries {sorted(memory)}, not {sorted(self.memory)}")
        self.position = Position(*(state[name].to(expected.device) for name in Position._fields))
        self.memory = {name: value.to(expected.device) for name, value in memory.items()}
        self.index = int(state["index"])
        self.streams.restore(state["streams"])
        self.adaptation.restore(part("adaptation", state))
        self.tuning = self.adaptation.tuning


@dataclass(frozen=True, eq=False)
class Samples:
    """What chains gave after warm-up.

    Args:
        z: ``[K, S, D]``.
        log_prob: ``[K, S]``.
        transitions: What happened, ``[K, S]`` each.
    """

    z: Tensor
    log_prob: Tensor
    transitions: Transition


def collect(chains: Chains, num_samples: int, progress: Callable[[Draw], None] | None = None) -> Samples:
    """Run what is left of warm-up, and keep ``num_samples`` draws of each chain.

    Args:
        chains: The chains.
        num_samples: ``S``.
        progress: Called after every step.
    """
    kept: list[Draw] = []
    while len(kept) < num_samples:
        draw = chains.step()
        if progress is not None:
            progress(draw)
        if not draw.warming:
            kept.append(draw)
    parts = zip(*(draw.transition for draw in kept), strict=True)
    return Samples(
        z=torch.stack([draw.z for draw in kept], 1),
        log_prob=torch.stack([draw.log_prob for draw in kept], 1),
        transitions=Transition(*(torch.stack(values, -1) for values in parts)),
    )
