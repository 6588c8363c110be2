"""Bounds on the evidence from the weights of several draws."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from ..guides import Delta, Family, Guide
from ..priors.settings import check
from .objective import Message, OnePassELBO, Terms


def without_density(family: Family) -> bool:
    """Whether nothing says how dense a family's draws of global sites are, and it is no point mass either."""
    return not family.local and type(family).log_prob is Family.log_prob and not isinstance(family, Delta)


class ParticleBound(OnePassELBO):
    r"""The Rényi bound from the log-weights of ``K`` draws of all global sites.

    .. math:: \mathcal L_\alpha = \frac1{1 - \alpha} \log \frac1K \sum_k e^{(1 - \alpha) \ell_k}, \qquad
              \ell_k = \tfrac NB \sum_n \log p(y_n \mid w_k) + \log p(w_k) - \log q(w_k)

    With one draw it is an estimate of the ELBO. Its expectation over draws rises with ``K`` where :math:`\alpha < 1`;
    for finite ``K`` the bound is therefore nearer to the ELBO than its limit is.

    With minibatches, :math:`\ell_k` is itself an estimate. For :math:`\alpha < 1` the bound is a convex function of the
    log-weights, so its average over batches is at least that of all the data, and may lie above the evidence; it is
    exact on all of the data at once, and at :math:`\alpha \to 1`.

    The sites of point masses count with their log prior alone, the same in every draw. Attention rows are drawn for
    every example, so that one weight for a whole draw would say nothing of them: they are refused.

    Args:
        alpha: Any number but 1; 0 is the importance-weighted bound.
        num_particles: ``K``, run together under one plate.

    Raises:
        SettingError: ``alpha`` is 1 or not finite, or ``num_particles`` no whole number of at least 1.

    Reference:
        Li and Turner, 2016, Eq. 10 and Sec. 4.3 (minibatches); Burda et al., 2016, Eq. 8.
    """

    def __init__(self, *, alpha: float, num_particles: int):
        super().__init__(num_particles=num_particles)
        self.alpha = alpha
        check(self, "alpha", math.isfinite(alpha) and alpha != 1, "a finite number other than 1, where it is the ELBO")

    def log_weights(self, guide: Guide, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Log-likelihood and log prior less log q of every draw, ``[K]`` each.

        Raises:
            ValueError: A family has no density, or a site is drawn for every example.
        """
        sites = self.sites(guide, *args, **kwargs)
        likelihood = weight = next(guide.parameters()).new_zeros(())
        for name, site in sites.items():
            if site["is_observed"]:
                likelihood = likelihood + self._by_draw(guide, site, site["fn"].log_prob(site["value"]))
            elif "prior" in site["infer"]:
                if guide.family_of(name).local:
                    raise ValueError(f"site {name!r} is drawn for every example: expected global sites alone")
                weight = weight + self._by_draw(guide, site, site["infer"]["prior"].log_prob(site["value"]))
        drawn = guide.drawn(self.num_particles)
        for family in guide.families:
            assert isinstance(family, Family)
            if isinstance(family, Delta):
                continue
            if without_density(family):
                raise ValueError(f"{type(family).__name__} has no density: expected families that have one")
            own = {name: value for name, value in drawn.items() if guide.family_of(name) is family}
            weight = weight - family.log_prob(own)
        return likelihood.expand(self.num_particles), weight.expand(self.num_particles)

    @staticmethod
    def _by_draw(guide: Guide, site: Message, values: Tensor) -> Tensor:
        """Log-densities summed over all but the draws: ``[K]``, or ``[]`` where they are the same for all."""
        values = scale_and_mask(values, site["scale"], site["mask"])
        if values.dim() <= guide.plate_nesting:
            return values.sum()
        return values.reshape(len(values), -1).sum(1).squeeze(0 if len(values) == 1 else ())

    def terms(self, guide: Guide, *args: Any, **kwargs: Any) -> Terms:
        likelihood, weight = self.log_weights(guide, *args, **kwargs)
        order = 1 - self.alpha
        sums = torch.logsumexp(order * (likelihood + weight), 0) - math.log(self.num_particles)
        return Terms(likelihood.mean(), -weight.mean(), weight.new_zeros(()), bound=sums / order)

    def loss_of(self, terms: Terms, beta: float = 1.0, row_beta: float = 1.0) -> Tensor:
        assert terms.bound is not None
        return -terms.bound
