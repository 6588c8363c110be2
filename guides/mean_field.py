"""Mean-field normal posterior, stored and drawn as one vector."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..priors.settings import check_positive
from .family import Contribution, Distribution, LatentSite, Message
from .flat import FlatFamily, counts_once
from .normal_priors import HALF_LOG_2PI


class MeanField(FlatFamily):
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

    _run = ("_outer", "_pieces", "_together")

    def __init__(self, *, init_scale: float = 1e-2):
        super().__init__()
        self.init_scale = init_scale
        check_positive(self, "init_scale")

    def setup(self, sites: dict[str, LatentSite]) -> None:
        super().setup(sites)
        self.log_scale = nn.Parameter(torch.full_like(self.loc, math.log(self.init_scale)))

    @property
    def scale(self) -> Tensor:
        """The standard deviations, one vector in the order of the sites."""
        return self.log_scale.exp()

    def draw(self, outer: torch.Size) -> None:
        scale = self.scale
        noise = torch.randn(outer.numel() if outer else 1, len(self.loc), dtype=self.loc.dtype, device=self.loc.device)
        values = self.loc + scale * noise
        pieces = zip(self.loc.split(self.sizes), scale.split(self.sizes), values.split(self.sizes, -1), strict=True)
        self._outer, self._pieces = outer, dict(zip(self.shapes, pieces, strict=True))
        self._together: set[str] = set()

    def posterior(self, name: str, prior: Distribution, msg: Message) -> tuple[Distribution | Tensor, Tensor | None]:
        loc, scale, value = self._pieces[name]
        shape, transform = self.shapes[name], self.transforms[name]
        q = dist.Normal(loc.view(shape), scale.view(shape), validate_args=False)
        value = value.view(self.lead(name, self._outer) + shape)
        if name in self.real:
            if not msg["cond_indep_stack"]:
                self._together.add(name)
            return q.to_event(prior.event_dim), value
        free_dim = len(shape) - self.inner[name]
        return dist.TransformedDistribution(q.to_event(free_dim), transform.with_cache()), transform(value)

    def log_prob(self, values: Mapping[str, Tensor]) -> Tensor:
        flat, jacobian = self.flatten(values)
        return dist.Normal(self.loc, self.scale, validate_args=False).log_prob(flat).sum(-1) - jacobian

    def contribution(self, sites: dict[str, Message], priors: dict[str, Distribution]) -> Contribution:
        covered = frozenset(n for n in self._together if n in sites and counts_once(sites[n]))
        if not covered:
            return Contribution()
        normal = self.normal_priors(covered, priors)
        log_prior = normal.expected(self.loc, (2 * self.log_scale).exp())
        for name in normal.others:
            log_prior = log_prior + priors[name].log_prob(sites[name]["value"]).sum() / self._outer.numel()
        logs = self.log_scale if normal.weight is None else self.log_scale * normal.weight
        return Contribution(log_prior, logs.sum() + normal.count * (HALF_LOG_2PI + 0.5), covered)

    def summary(self) -> dict[str, Any]:
        scale = self.scale.detach()
        return {"scale": {"median": float(scale.median()), "min": float(scale.min()), "max": float(scale.max())}}
