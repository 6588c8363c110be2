"""Mean-field normal posterior, stored and drawn as one vector."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..models.layers import affine
from ..priors.settings import check_positive
from .family import Contribution, Distribution, LatentSite, Message
from .flat import FlatFamily, counts_once
from .normal_priors import HALF_LOG_2PI


class MeanField(FlatFamily):
    r"""Independent normal entries for all sites.

    .. math:: q(w) = \prod_i \mathcal N(w_i \mid m_i, s_i^2)

    on the unconstrained space of each site. All entries are one vector: a run costs one draw, and the KL to normal and
    flat priors is one closed-form sum; other priors, and the change of variables of constrained sites, are counted at
    the draw.

    .. math:: \mathrm{KL} = \sum_i \ln\frac{\sigma_i}{s_i} + \frac{s_i^2 + (m_i - \mu_i)^2}{2\sigma_i^2} - \frac12

    Args:
        init_scale: Every :math:`s_i` at the start, above 0, default 1e-2; :math:`m_i` starts at the model's own values.

    Raises:
        SettingError: ``init_scale`` is not above 0.

    Reference:
        Graves, 2011; Blundell et al., 2015, "Weight uncertainty in neural networks", Eq. 1.
    """

    _run = ("_outer", "_pieces", "_noise", "_signs", "_together", "_mapped")

    def __init__(self, *, init_scale: float = 1e-2):
        super().__init__()
        self.init_scale = init_scale
        check_positive(self, "init_scale")

    def setup(self, sites: dict[str, LatentSite]) -> None:
        super().setup(sites)
        self.log_scale = nn.Parameter(torch.full_like(self.loc, math.log(self.init_scale)))
        self.starts = dict(zip(self.shapes, itertools.accumulate([0, *self.sizes]), strict=False))

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
        self._mapped: dict[str, Tensor] = {}
        self._signs: dict[str, tuple[Tensor, Tensor]] = {}

    def posterior(self, name: str, prior: Distribution, msg: Message) -> tuple[Distribution | Tensor, Tensor | None]:
        loc, scale, value = self._pieces[name]
        shape, transform = self.shapes[name], self.transforms[name]
        q = dist.Normal(loc.view(shape), scale.view(shape), validate_args=False)
        value = value.view(self.lead(name, self._outer) + shape)
        if name in self.real:
            if not msg["cond_indep_stack"]:
                self._together.add(name)
            return q.to_event(prior.event_dim), value
        if not msg["cond_indep_stack"]:
            self._mapped[name] = value
        free_dim = len(shape) - self.inner[name]
        return dist.TransformedDistribution(q.to_event(free_dim), transform.with_cache()), transform(value)

    def log_prob(self, values: Mapping[str, Tensor]) -> Tensor:
        flat, jacobian = self.flatten(values)
        return dist.Normal(self.loc, self.scale, validate_args=False).log_prob(flat).sum(-1) - jacobian

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
        covered = frozenset(n for n in (*self._together, *self._mapped) if n in sites and counts_once(sites[n]))
        if not covered:
            return Contribution()
        normal = self.normal_priors(covered, priors, covered - self._mapped.keys())
        log_prior = normal.expected(self.loc, (2 * self.log_scale).exp())
        for name in normal.others:
            log_prior = log_prior + priors[name].log_prob(sites[name]["value"]).sum() / self._outer.numel()
        logs = self.log_scale if normal.weight is None else self.log_scale * normal.weight
        entropy = logs.sum() + normal.count * (HALF_LOG_2PI + 0.5)
        for name in covered & self._mapped.keys():  # the change of variables, by the draw
            jacobian = self.transforms[name].log_abs_det_jacobian(self._mapped[name], sites[name]["value"])
            entropy = entropy + jacobian.sum() / self._outer.numel()
        return Contribution(log_prior, entropy, covered)

    def summary(self) -> dict[str, Any]:
        scale = self.scale.detach()
        return {"scale": {"median": float(scale.median()), "min": float(scale.min()), "max": float(scale.max())}}


def _signs(x: Tensor, lead: tuple[int, ...], width: int) -> Tensor:
    """Random signs for every sequence, which its tokens share: ``[*lead, 1, width]``."""
    return torch.randint(0, 2, (*lead, 1, width), device=x.device).to(x.dtype) * 2 - 1
