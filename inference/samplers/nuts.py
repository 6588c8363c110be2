"""The no-U-turn sampler with multinomial weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...priors.settings import check_count
from .kernel import (
    NOTHING,
    LogProbAndGrad,
    Memory,
    Moved,
    Position,
    Transition,
    Tuning,
    acceptance,
    is_divergent,
)
from .leapfrog import one_step
from .metropolis import MetropolisKernel
from .streams import Streams


@dataclass(slots=True)
class Point:
    """A point of a trajectory.

    Args:
        z, momentum, velocity, gradient: ``[D]`` each; the velocity is :math:`M^{-1} r`.
        log_prob: Of the density.
        energy: The Hamiltonian.
    """

    z: Tensor
    momentum: Tensor
    velocity: Tensor
    log_prob: Tensor
    gradient: Tensor
    energy: float


@dataclass(slots=True)
class Tree:
    """A stretch of a trajectory, in the order of time.

    Args:
        first, last: Its ends.
        momentum: The sum of the momenta of its points, ``[D]``.
        chosen: One of its points, drawn with their weights.
        log_weight: The logarithm of the sum of the weights :math:`e^{H_0 - H}`.
        going: Whether neither it nor a part of it has turned or diverged.
        points: How many, and the sum of their acceptance probabilities.
    """

    first: Point
    last: Point
    momentum: Tensor
    chosen: Point
    log_weight: float
    going: bool
    points: int
    accepted: float
    divergent: bool = False


@dataclass(slots=True)
class Walk:
    """One trajectory of one chain.

    Args:
        density: The log-density.
        step_size: In the direction of time.
        inverse_mass: ``[D]``.
        start: The energy where it begins.
        uniform: Draws a number in [0, 1).
    """

    density: LogProbAndGrad
    step_size: float
    inverse_mass: Tensor
    start: float
    uniform: Callable[[], float]

    def point(self, z: Tensor, momentum: Tensor, log_prob: Tensor, gradient: Tensor) -> Point:
        """A point with its energy."""
        velocity = self.inverse_mass * momentum
        found = 0.5 * torch.dot(velocity, momentum).item() - log_prob.item()
        return Point(z, momentum, velocity, log_prob, gradient, found)

    def leaf(self, point: Point) -> Tree:
        """A tree of one point."""
        divergent = is_divergent(point.energy, self.start)
        weight = self.start - point.energy if math.isfinite(point.energy) else -math.inf
        accepted = acceptance(point.energy, self.start)
        return Tree(point, point, point.momentum, point, weight, not divergent, 1, accepted, divergent)

    def moved(self, end: Point, forward: bool) -> Point:
        """The point one leapfrog step beyond an end."""
        size = self.step_size if forward else -self.step_size
        momentum = torch.add(end.momentum, end.gradient, alpha=0.5 * size)
        z = torch.addcmul(end.z, self.inverse_mass, momentum, value=size)
        log_prob, gradient = self.density(z)
        return self.point(z, torch.add(momentum, gradient, alpha=0.5 * size), log_prob, gradient)

    def grow(self, end: Point, forward: bool, depth: int) -> Tree:
        """A tree of ``2 ** depth`` points beyond an end; fewer where it stops."""
        if depth == 0:
            return self.leaf(self.moved(end, forward))
        near = self.grow(end, forward, depth - 1)
        if not near.going:
            return near
        far = self.grow(near.last if forward else near.first, forward, depth - 1)
        return self.joined(near, far, forward, biased=False)

    def joined(self, near: Tree, far: Tree, forward: bool, biased: bool) -> Tree:
        """Two neighbouring trees as one; far points are taken by their weight, or with preference when ``biased``.

        A far tree that stopped counts as work alone: points behind a turn cannot be reached from everywhere.
        """
        left, right = (near, far) if forward else (far, near)
        momentum = left.momentum + right.momentum if far.going else near.momentum
        tree = Tree(
            left.first,
            right.last,
            momentum,
            near.chosen,
            near.log_weight,
            False,
            near.points + far.points,
            near.accepted + far.accepted,
            far.divergent,
        )
        if not far.going:
            return tree
        tree.log_weight = _log_add(near.log_weight, far.log_weight)
        ratio = far.log_weight - (near.log_weight if biased else tree.log_weight)
        if self.uniform() < math.exp(min(0.0, ratio)):
            tree.chosen = far.chosen
        tree.going = apart(tree.first, tree.last, momentum) and (
            tree.points == 2  # no other seam
            or (
                apart(left.first, right.first, left.momentum + right.first.momentum)
                and apart(left.last, right.last, left.last.momentum + right.momentum)
            )
        )
        return tree


def apart(first: Point, last: Point, momentum: Tensor) -> bool:
    """Whether two points still move apart, by the sum of the momenta of those between."""
    return torch.dot(momentum, first.velocity).item() > 0 and torch.dot(momentum, last.velocity).item() > 0


def _log_add(one: float, other: float) -> float:
    most = max(one, other)
    return most if most == -math.inf else most + math.log(math.exp(one - most) + math.exp(other - most))


@dataclass(frozen=True, kw_only=True)
class NUTSKernel(MetropolisKernel):
    r"""Trajectories that double until they turn back; the next point is one of theirs, by its weight.

    .. math:: p(z' \mid \text{trajectory}) \propto e^{-H(z', r')}, \qquad
        \text{stop where } \rho^\top M^{-1} r_- \le 0 \text{ or } \rho^\top M^{-1} r_+ \le 0

    with the momenta :math:`r_\pm` at the ends and the sum :math:`\rho` of all between. The criterion is asked of every
    subtree, and across the seam of its halves: of the first half with the first point of the second, and of the last
    point of the first half with the second. Doublings prefer the new half (biased progressive sampling). Chains go one
    after another, each as far as it needs.

    Args:
        max_tree_depth: Doublings at most, default 10: trajectories of at most 1023 steps.
        target_accept: See `MetropolisKernel`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Hoffman and Gelman, 2014, "The no-U-turn sampler"; Betancourt, 2017, "A conceptual introduction to Hamiltonian
        Monte Carlo", App. A.3 (multinomial weights) and A.4.2 (the criterion); the seams: as Stan has them since 2.21.
    """

    max_tree_depth: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "max_tree_depth")

    def one_step(
        self, density: LogProbAndGrad, position: Position, streams: Streams, inverse_mass: Tensor
    ) -> Callable[[float], float]:
        return one_step(density, position, streams, inverse_mass)

    def step(
        self,
        density: LogProbAndGrad,
        position: Position,
        streams: Streams,
        tuning: Tuning,
        memory: Memory = NOTHING,
    ) -> Moved:
        momenta = streams.normal(position.z) * tuning.inverse_mass.rsqrt()
        ends = []
        for chain, generator in enumerate(streams.own):
            z, log_prob, gradient = (part[chain] for part in position)

            def uniform(generator: torch.Generator = generator) -> float:
                return torch.rand((), generator=generator, dtype=torch.float64).item()

            walk = Walk(density, tuning.step_size, tuning.inverse_mass, 0.0, uniform)
            start = walk.point(z, momenta[chain], log_prob, gradient)
            walk.start = start.energy
            ends.append(self._walk(walk, start))
        trees, depths = zip(*ends, strict=True)
        chosen = [tree.chosen for tree in trees]
        moved = Position(
            torch.stack([point.z for point in chosen]),
            torch.stack([point.log_prob for point in chosen]),
            torch.stack([point.gradient for point in chosen]),
        )
        steps = [tree.points - 1 for tree in trees]
        return Moved(
            moved,
            Transition(
                # the start itself is no point that was tried
                acceptance=torch.tensor(
                    [(t.accepted - 1) / n for t, n in zip(trees, steps, strict=True)], dtype=torch.float64
                ),
                energy=torch.tensor([point.energy for point in chosen], dtype=torch.float64),
                divergent=torch.tensor([tree.divergent for tree in trees]),
                steps=torch.tensor(steps),
                depth=torch.tensor(depths),
            ),
        )

    def _walk(self, walk: Walk, start: Point) -> tuple[Tree, int]:
        """The whole trajectory, and how often it was doubled."""
        tree, depth = walk.leaf(start), 0
        while tree.going and depth < self.max_tree_depth:
            forward = walk.uniform() < 0.5
            far = walk.grow(tree.last if forward else tree.first, forward, depth)
            tree = walk.joined(tree, far, forward, biased=True)
            depth += 1
        return tree, depth
