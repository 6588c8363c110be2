"""Mean-field normal posterior, stored and drawn as one vector."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from ..models.layers import affine
from ..priors.settings import check_positive
from .family import Contribution, Distribution, Family, LatentSite, Message, unconstrained

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def is_real(support: constraints.Constraint) -> bool:
    """Whether a support is all real numbers, entry by entry."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real


def normal_parameters(prior: Distribution) -> tuple[Tensor, Tensor] | None:
    """Location and inverse scale of an independent normal prior (inverse scale 0 when flat), else None."""
    flat = False
    while True:
        if isinstance(prior, dist.Independent):
            prior = prior.base_dist
        elif isinstance(prior, dist.MaskedDistribution) and prior._mask is False:
            prior, flat = prior.base_dist, True
        else:
            break
    if type(prior) is not dist.Normal:
        return None
    return prior.loc, torch.zeros_like(prior.scale) if flat else prior.scale.reciprocal()


class MeanField(Family):
    r"""Independent normal entries for all sites.

    .. math:: q(w) = \prod_i \mathcal N(w_i \mid m_i, s_i^2)

    on the unconstrained space of each site. All entries are one vector: a run costs one draw, and the KL to normal and
    flat priors is one closed-form sum.

    .. math:: \mathrm{KL} = \sum_i \ln\frac{\sigma_i}{s_i} + \frac{s_i^2 + (m_i - \mu_i)^2}{2\sigma_i^2} - \frac12

    Args:
        init_scale: Every :math:`s_i` at the start, above 0, default 1e-2; :math:`m_i` starts at the model's own values.

    Raises:
        SettingError: ``init_scale`` is not above 0.

    Reference:
        Graves, 2011; Blundell et al., 2015, "Weight uncertainty in neural networks", Eq. 1.
    """

    def __init__(self, *, init_scale: float = 1e-2):
        super().__init__()
        self.init_scale = init_scale
        check_positive(self, "init_scale")

    def setup(self, sites: dict[str, LatentSite]) -> None:
        self.transforms = {name: unconstrained(name, site) for name, site in sites.items()}
        free = {name: self.transforms[name].inv(site.value) for name, site in sites.items()}
        self.shapes = {name: u.shape for name, u in free.items()}
        self.inner = {name: len(site.prior.batch_shape) for name, site in sites.items()}
        self.sizes = [u.numel() for u in free.values()]
        self.starts = dict(zip(free, itertools.accumulate([0, *self.sizes]), strict=False))
        self.real = frozenset(name for name, site in sites.items() if is_real(site.prior.support))
        self.loc = nn.Parameter(torch.cat([u.reshape(-1) for u in free.values()]))
        self.log_scale = nn.Parameter(torch.full_like(self.loc, math.log(self.init_scale)))
        self._normal: _NormalPriors | None = None

    def __getstate__(self) -> dict[str, Any]:
        # what the last run left is part of its graph: no copy takes it
        run = ("_outer", "_pieces", "_noise", "_signs", "_together")
        return {**{name: value for name, value in self.__dict__.items() if name not in run}, "_normal": None}

    @property
    def scale(self) -> Tensor:
        """The standard deviations, one vector in the order of the sites."""
        return self.log_scale.exp()

    def draw(self, outer: torch.Size) -> None:
        scale = self.scale
        noise = torch.randn(outer.numel() if outer else 1, len(self.loc), dtype=self.loc.dtype, device=self.loc.device)
        self._noise = scale * noise
        values = self.loc + self._noise
        pieces = zip(self.loc.split(self.sizes), scale.split(self.sizes), values.split(self.sizes, -1), strict=True)
        self._outer, self._pieces = outer, dict(zip(self.shapes, pieces, strict=True))
        self._together: set[str] = set()
        self._signs: dict[str, tuple[Tensor, Tensor]] = {}

    def posterior(self, name: str, prior: Distribution, msg: Message) -> tuple[Distribution | Tensor, Tensor | None]:
        loc, scale, value = self._pieces[name]
        shape, transform = self.shapes[name], self.transforms[name]
        q = dist.Normal(loc.view(shape), scale.view(shape), validate_args=False)
        # outer plates lie to the left of the plates inside the model, which are part of the site's own shape
        inner = self.inner[name]
        lead = self._outer[: len(self._outer) - inner]
        value = value.view(lead + shape)
        if name in self.real:
            if not msg["cond_indep_stack"]:
                self._together.add(name)
            return q.to_event(prior.event_dim), value
        free_dim = len(shape) - inner
        return dist.TransformedDistribution(q.to_event(free_dim), transform.with_cache()), transform(value)

    def linear(self, name: str, x: Tensor, drawn: Tensor, estimator: str) -> Tensor | None:
        r"""See `Family.linear`.

        .. math:: y = x M^\top + \big((x \odot r)\, (S \odot E)^\top\big) \odot s, \qquad
            y \sim \mathcal N\big(x M^\top,\; x^2 (S^2)^\top\big)

        by flipout, with the noise :math:`S \odot E` of the shared draw and random signs ``r`` and ``s`` for every
        sequence; and by local reparameterization.
        """
        if name not in self._together:
            return None
        loc, scale, _ = self._pieces[name]
        shape = drawn.shape[-2:]
        mean = affine(x, loc.view(shape))
        if estimator == "local_reparameterization":
            variance = affine(x.square(), scale.view(shape).square())
            shape = torch.Size((*self._outer[:-1], *mean.shape[-3:]))
            noise = torch.randn(shape, dtype=mean.dtype, device=mean.device)
            # the root has no slope at 0, where an input is 0
            return mean + variance.clamp(min=torch.finfo(mean.dtype).tiny).sqrt() * noise
        if name not in self._signs:  # kept for the run: all uses of a weight are uses of one weight
            lead = (*self._outer[:-1], x.shape[-3])
            self._signs[name] = (_signs(x, lead, shape[1]), _signs(x, lead, shape[0]))
        signs_in, signs_out = self._signs[name]
        start = self.starts[name]
        noise = self._noise[:, start : start + loc.numel()].view(*self._outer, *shape)
        return mean + affine(x * signs_in, noise) * signs_out

    def contribution(self, sites: dict[str, Message], priors: dict[str, Distribution]) -> Contribution:
        covered = frozenset(n for n in self._together if n in sites and _counts_once(sites[n]))
        if not covered:
            return Contribution()
        if self._normal is None or not self._normal.fits(covered, priors):
            self._normal = self._normal_priors(covered, priors)
        normal = self._normal
        squares = (2 * self.log_scale).exp() + (self.loc - normal.loc).square()
        log_prior = normal.constant - 0.5 * (normal.precision * squares).sum()
        for name in normal.others:
            log_prior = log_prior + priors[name].log_prob(sites[name]["value"]).sum() / self._outer.numel()
        logs = self.log_scale if normal.weight is None else self.log_scale * normal.weight
        return Contribution(log_prior, logs.sum() + normal.count * (HALF_LOG_2PI + 0.5), covered)

    @torch.enable_grad()
    def _normal_priors(self, covered: frozenset[str], priors: dict[str, Distribution]) -> _NormalPriors:
        locs, precisions, weights, others = [], [], [], []
        constant = self.loc.new_zeros(())
        for name, shape in self.shapes.items():
            loc, precision = self.loc.new_zeros(shape), self.loc.new_zeros(shape)
            found = normal_parameters(priors[name]) if name in covered else None
            if found is not None:
                loc, precision, logs = _averaged(*found, shape)
                constant = constant + logs
            elif name in covered:
                others.append(name)
            locs.append(loc.reshape(-1))
            precisions.append(precision.reshape(-1))
            weights.append(torch.full_like(locs[-1], float(name in covered)))
        weight = torch.cat(weights)
        return _NormalPriors(
            covered,
            {name: priors[name] for name in covered},
            tuple(others),
            torch.cat(locs),
            torch.cat(precisions),
            constant,
            None if len(covered) == len(self.shapes) else weight,
            float(weight.sum()),
        )

    def summary(self) -> dict[str, Any]:
        scale = self.scale.detach()
        return {"scale": {"median": float(scale.median()), "min": float(scale.min()), "max": float(scale.max())}}


def _averaged(loc: Tensor, inverse: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """The normal whose expected log-density is the average over particles, each with its own draws of hyper-sites.

    Args:
        loc, inverse: Location and inverse scale, broadcastable to ``[..., *shape]``.
        shape: That of the site.

    Returns:
        Its location and its precision, in ``shape``, and the sum of what else stands in the average.
    """
    full = torch.broadcast_shapes(loc.shape, inverse.shape, shape)
    loc, inverse = (value.expand(full).reshape(-1, *shape) for value in (loc, inverse))
    proper = inverse > 0
    logs = torch.where(proper, torch.where(proper, inverse, 1.0).log() - HALF_LOG_2PI, 0.0).sum() / len(loc)
    if len(loc) == 1:
        return loc[0], inverse[0].square(), logs
    precision = inverse.square().mean(0)
    weights = inverse.square() / torch.where(precision > 0, precision, 1.0)
    center = (weights * loc).mean(0)
    spread = (inverse.square() * (loc - center).square()).mean(0)
    return center, precision, logs - 0.5 * spread.sum()


def _signs(x: Tensor, lead: tuple[int, ...], width: int) -> Tensor:
    """Random signs for every sequence, which its tokens share: ``[*lead, 1, width]``."""
    return torch.randint(0, 2, (*lead, 1, width), device=x.device).to(x.dtype) * 2 - 1


def _counts_once(site: Message) -> bool:
    scale = site["scale"]
    return site["mask"] is None and not isinstance(scale, Tensor) and scale == 1


@dataclass(frozen=True, eq=False)
class _NormalPriors:
    """The normal priors of the covered sites, as vectors in the order of the family's own.

    Kept from run to run for as long as the model offers the same distribution objects with constant parameters.
    """

    covered: frozenset[str]
    priors: dict[str, Distribution]
    others: tuple[str, ...]
    loc: Tensor
    precision: Tensor
    constant: Tensor
    weight: Tensor | None
    count: float

    def fits(self, covered: frozenset[str], priors: dict[str, Distribution]) -> bool:
        constant = not (self.loc.requires_grad or self.precision.requires_grad)
        return constant and covered == self.covered and all(priors[name] is p for name, p in self.priors.items())
