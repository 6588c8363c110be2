"""What joint families share: one draw for all sites, handed out in slices."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints, register_kl

from .family import Contribution, Distribution, LatentSite, Message
from .flat import FlatFamily, counts_once
from .normal_priors import normal_parameters


class Slice(dist.Delta):
    """A site's piece of a joint draw; what it counts of the density is the change of variables alone."""

    def entropy(self) -> Tensor:
        """Its share of the entropy."""
        return -self.log_density


@register_kl(Slice, dist.Distribution)
def _kl_of_slice(q: Slice, prior: Distribution) -> Tensor:
    # torch would take the rule for any point mass, which forgets the change of variables
    return q.log_density - prior.log_prob(q.v)


class Vector(TorchDistribution):
    """The distribution of a joint family's vector, as Pyro's traces want it: draws and densities are the family's.

    Args:
        family: The family.
        outer: The shape of the plates around the guide.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, family: JointFamily, outer: torch.Size):
        self.family = family
        super().__init__(outer, family.loc.shape, validate_args=False)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        shape = self.shape(sample_shape)
        return self.family.sample(shape[:-1].numel()).view(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.family.log_density(value)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> Vector:
        return Vector(self.family, torch.Size(batch_shape))


class JointFamily(FlatFamily):
    """A posterior under which the sites depend on each other: one density over the vector of all of them.

    A run draws the vector once, at an auxiliary site, and every site is a slice of it.
    """

    _run = ("_outer", "_flat", "_pieces", "_jacobians", "_seen")

    def setup(self, sites: dict[str, LatentSite]) -> None:
        super().setup(sites)
        self.joint = f"_{next(iter(self.shapes))}_joint"
        # as they are for one value of the other sites: a prior that differs later depends on them
        found = {name: normal_parameters(site.prior) for name, site in sites.items()}
        self.first = {name: tuple(each.detach() for each in pair) for name, pair in found.items() if pair is not None}

    @abstractmethod
    def sample(self, num_samples: int) -> Tensor:
        """Draws of the vector, ``[S, D]``."""

    @abstractmethod
    def log_density(self, flat: Tensor) -> Tensor:
        """The log-density of vectors ``[..., D]``."""

    def moments(self) -> tuple[Tensor, Tensor] | None:
        """The means and the variances ``[D]``; None where only draws can tell."""
        return None

    def entropy(self) -> Tensor | None:
        """The entropy of the vector; None where only draws can tell."""
        return None

    def check(self, name: str, site: Message, shape: torch.Size) -> None:
        super().check(name, site, shape)
        if not counts_once(site):
            raise ValueError(
                f"site {name!r} is under a scale or a mask, but {type(self).__name__} has one density for all its "
                "sites, of which a part cannot be scaled: expected a family of independent sites, such as MeanField"
            )

    def draw(self, outer: torch.Size) -> None:
        self._outer, self._seen = outer, set[str]()
        self._jacobians: list[Tensor] = []
        self._flat = pyro.sample(self.joint, Vector(self, outer), infer={"is_auxiliary": True})
        pieces = self._flat.reshape(-1, len(self.loc)).split(self.sizes, -1)
        self._pieces = dict(zip(self.shapes, pieces, strict=True))

    def posterior(self, name: str, prior: Distribution, msg: Message) -> tuple[Distribution | Tensor, Tensor | None]:
        self._seen.add(name)
        free = self._pieces[name].view(self.lead(name, self._outer) + self.shapes[name])
        if name in self.real:
            return Slice(free, event_dim=prior.event_dim, validate_args=False), free
        value = self.transforms[name](free)
        batch = value.shape[: value.dim() - prior.event_dim]
        jacobian = self.transforms[name].log_abs_det_jacobian(free, value).reshape(*batch, -1).sum(-1)
        self._jacobians.append(jacobian)
        return Slice(value, -jacobian, event_dim=prior.event_dim, validate_args=False), value

    def log_prob(self, values: Mapping[str, Tensor]) -> Tensor:
        flat, jacobian = self.flatten(values)
        return self.log_density(flat) - jacobian

    def contribution(self, sites: dict[str, Message], priors: dict[str, Distribution]) -> Contribution:
        covered = frozenset(self.shapes)
        if missing := [name for name in self.shapes if name not in self._seen or name not in sites]:
            raise ValueError(
                f"site {missing[0]!r} was not drawn in this run, but {type(self).__name__} has one density for all its "
                "sites: expected a model that draws all of them in every run"
            )
        if not all(counts_once(sites[name]) for name in (*covered, self.joint)):
            return Contribution()  # all of a run is scaled: the sites say what they count
        normal = self.normal_priors(covered, priors, frozenset(n for n in covered if self._constant(n, priors[n])))
        moments, entropy = self.moments(), self.entropy()
        flat = self._flat.reshape(-1, len(self.loc))
        log_prior = normal.drawn(flat) if moments is None else normal.expected(*moments)
        for name in normal.others:
            log_prior = log_prior + priors[name].log_prob(sites[name]["value"]).sum() / len(flat)
        if entropy is None:
            entropy = -self.log_density(self._flat).mean()
        for jacobian in self._jacobians:
            entropy = entropy + jacobian.sum() / len(flat)
        return Contribution(log_prior, entropy, covered | {self.joint})

    def _constant(self, name: str, prior: Distribution) -> bool:
        """Whether a normal prior is the same in every run.

        Marginal means and variances say what is expected of it only then: given the value of another site of the
        family, on which the prior may depend, they are others.
        """
        now, first = normal_parameters(prior), self.first.get(name)
        return now is not None and first is not None and all(map(_same, now, first))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
