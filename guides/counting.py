"""Which of a guide's parameters belong to which site, found from the guide's own run."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..models.likelihoods import Undrawn
from .family import Message
from .guide import Guide, as_evaluated


@dataclass(frozen=True)
class Shared:
    """Parameters of one family that more than one site depends on.

    Args:
        sites: The sites.
        count: How many numbers.
    """

    sites: tuple[str, ...]
    count: int


@dataclass(frozen=True)
class ParameterCounts:
    """How many numbers a guide has, by what depends on them; every number is counted once.

    Args:
        own: Numbers that one site alone depends on, by site.
        shared: All the others.
    """

    own: dict[str, int]
    shared: tuple[Shared, ...]

    @property
    def total(self) -> int:
        """All numbers of the guide."""
        return sum(self.own.values()) + sum(shared.count for shared in self.shared)


class _Watch(Messenger):
    """Keeps what the guide said of each site, and hands later sites a value that does not lead back to it."""

    def __init__(self, sites: tuple[str, ...]):
        super().__init__()
        self.sites = sites
        self.seen: dict[str, Tensor] = {}

    def _pyro_post_sample(self, msg: Message) -> None:
        name, value = msg["name"], msg["value"]
        if name not in self.sites:
            return
        msg["value"] = value.detach()
        if isinstance(msg["fn"], dist.Delta):  # a mask may hide numbers from a draw, though not from the mean
            value = value + msg["fn"].mean
        said = (value * torch.randn_like(value)).sum()
        log_q = msg["fn"].log_prob(msg["value"])
        self.seen[name] = said + torch.where(log_q.isfinite(), log_q, 0.0).sum() if log_q.requires_grad else said


def count_parameters(guide: Guide, *example: Any) -> ParameterCounts:
    """Count a guide's parameters by the sites that depend on them.

    A number belongs to the sites whose value or density moves with it, as the gradients of one run show; so a family
    needs to say nothing, and what it shares between sites is found. Numbers that move no site as the guide stands are
    told as shared by all sites of their family.

    Args:
        guide: The guide; it is left as it was.
        example: Arguments for one run of the model, as at construction.
    """
    watch = _Watch(guide.sites)
    quiet = (torch.random.fork_rng(devices=[]), as_evaluated(guide.model), poutine.block())
    with torch.enable_grad(), ExitStack() as stack:
        for context in (*quiet, watch, guide, Undrawn()):
            stack.enter_context(context)
        guide.model(*example)
    own, shared = dict.fromkeys(guide.sites, 0), []
    for family in guide.families:
        parameters = list(family.parameters())
        sites = [name for name in guide.sites if guide.family_of(name) is family]
        index, idle, several = _owners([watch.seen[name] for name in sites], parameters)
        for at, none, many in zip(index, idle, several, strict=True):
            counts = torch.bincount(at[~none & ~many], minlength=len(sites)).tolist()
            own |= {name: own[name] + count for name, count in zip(sites, counts, strict=True)}
        users: list[list[str]] = [[] for _ in parameters]
        for name in sites if any(bool(many.any()) for many in several) else ():
            for which, moved in enumerate(_moved(watch.seen[name], parameters)):
                if bool((moved & several[which]).any()):
                    users[which].append(name)
        groups: dict[tuple[str, ...], int] = {}
        for which, (none, many) in enumerate(zip(idle, several, strict=True)):
            for who, numbers in ((users[which], many), (sites, none)):
                groups[tuple(who)] = groups.get(tuple(who), 0) + int(numbers.sum())
        shared += [Shared(who, count) for who, count in groups.items() if count]
    return ParameterCounts(own, tuple(shared))


def _owners(
    said: list[Tensor], parameters: list[torch.nn.Parameter]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """For each entry of each parameter the place of its one site; whether it has none; and whether it has several.

    Sites are told apart by the binary digits of their places, two gradients a digit: that of all sites with the digit 1
    and that of all with 0. Both move an entry only if several sites do.
    """
    index = [torch.zeros(p.shape, dtype=torch.int64, device=p.device) for p in parameters]
    idle = [torch.ones(p.shape, dtype=torch.bool, device=p.device) for p in parameters]
    several = [torch.zeros(p.shape, dtype=torch.bool, device=p.device) for p in parameters]
    for digit in range(max(1, (len(said) - 1).bit_length())):
        halves: tuple[list[Tensor], list[Tensor]] = ([], [])
        for place, one in enumerate(said):
            halves[place >> digit & 1].append(one)
        zeros, ones = (_moved(torch.stack(half).sum(), parameters) if half else None for half in halves)
        for which in range(len(parameters)):
            moved = [half[which] for half in (zeros, ones) if half is not None]
            if ones is not None:
                index[which] += ones[which].long() << digit
            idle[which] &= ~torch.stack(moved).any(0)
            several[which] |= torch.stack(moved).all(0) if len(moved) == 2 else False
    return index, idle, several


def _moved(said: Tensor, parameters: list[torch.nn.Parameter]) -> list[Tensor]:
    """Which entries of each parameter something depends on."""
    if not said.requires_grad or not parameters:
        return [torch.zeros_like(p, dtype=torch.bool) for p in parameters]
    slopes = torch.autograd.grad(said, parameters, retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(p, dtype=torch.bool) if slope is None else slope != 0
        for p, slope in zip(parameters, slopes, strict=True)
    ]
