"""The horseshoe prior, and the regularised one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor

from .base import Distribution, Site
from .hierarchy import Hypers
from .hyperpriors import HalfCauchy
from .random_scale import RandomScale
from .settings import check, check_option, check_positive
from .sharing import scales_like, spread


@dataclass(frozen=True, kw_only=True)
class Horseshoe(RandomScale):
    r"""A horseshoe: most entries next to nothing, some hardly shrunk, by local scales under a global one.

    .. math:: \tau \sim C^+(0, \tau_0), \qquad \lambda_i \sim C^+(0, 1), \qquad
        w_i \sim \mathcal N\big(c, (\tau \lambda_i s)^2\big)

    with the centre :math:`c` and the scale :math:`s` that ``prior`` has for the site, one :math:`\tau` for each site.
    With a slab of width :math:`b` (the regularised or "Finnish" horseshoe) :math:`\kappa_i` takes the place of
    :math:`\lambda_i`,

    .. math:: \kappa_i^2 = \frac{b^2 \lambda_i^2}{b^2 + \tau^2 \lambda_i^2}, \qquad
        b = b_0 \quad\text{or}\quad b^2 \sim \mathrm{InvGamma}\big(\tfrac\nu2, \tfrac{\nu b_0^2}2\big)

    so that no entry has a scale above :math:`b s`. Hyper-sites are ``<weight>_global`` (:math:`\tau`),
    ``<weight>_local`` (:math:`\lambda`) and, with ``slab_df``, ``<weight>_slab`` (:math:`b^2`). In the non-centred form
    the sample site is ``<weight>_standard``.

    Args:
        prior: See `RandomScale`. Here: any but the normal makes a relative of the horseshoe.
        centered: See `RandomScale`.
        global_scale: The median :math:`\tau_0` of the global scale, above 0, default 1. For :math:`p_0` of :math:`D`
            entries that matter Piironen and Vehtari would have it near
            :math:`p_0 \sigma / ((D - p_0) \sqrt n)`, with noise :math:`\sigma` and :math:`n` examples.
        per: What has a local scale: every ``entry`` (default); every ``input``, that is column of a matrix or row of a
            table; every output ``unit``, that is row of a matrix or entry of a vector.
        slab: The width :math:`b_0` of the slab as a multiple of the scale of ``prior``, above 0; default None: no slab.
        slab_df: Degrees of freedom :math:`\nu` of the slab, above 0, with which large entries follow a Student-t of
            scale :math:`b_0`; default None: :math:`b = b_0`.

    Raises:
        SettingError: A setting is out of range, or there is ``slab_df`` without ``slab``.

    Reference:
        Carvalho, Polson and Scott, 2010, "The horseshoe estimator for sparse signals"; Piironen and Vehtari, 2017,
        "Sparsity information and regularization in the horseshoe and other shrinkage priors", Sec. 2.3; scales by
        unit in networks: Ghosh, Yao and Doshi-Velez, 2018, "Structured variational learning of Bayesian neural networks
        with horseshoe priors". The defaults for networks are ours.
    """

    global_scale: float = 1.0
    per: Literal["entry", "input", "unit"] = "entry"
    slab: float | None = None
    slab_df: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "global_scale")
        check_option(self, "per", ("entry", "input", "unit"))
        for key in ("slab", "slab_df"):
            if getattr(self, key) is not None:
                check_positive(self, key)
        check(self, "slab_df", self.slab_df is None or self.slab is not None, "null without a slab")

    def hyper_sites(self, site: Site) -> dict[str, Distribution]:
        one, local = site.value.new_zeros(()), scales_like(site, self.per)
        sites: dict[str, Distribution] = {
            f"{site.name}_global": HalfCauchy(scale=self.global_scale).distribution(one),
            f"{site.name}_local": HalfCauchy().distribution(local),
        }
        if self.slab is not None and self.slab_df is not None:
            shape = torch.full_like(one, self.slab_df / 2)
            sites[f"{site.name}_slab"] = dist.InverseGamma(shape, shape * self.slab**2)
        return sites

    def start(self, site: Site) -> dict[str, Tensor]:
        starts = {
            f"{site.name}_global": site.value.new_tensor(self.global_scale),
            f"{site.name}_local": torch.ones_like(scales_like(site, self.per)),
        }
        if self.slab is not None and self.slab_df is not None:
            starts[f"{site.name}_slab"] = site.value.new_tensor(self.slab**2)
        return starts

    def factor(self, site: Site, hypers: Hypers) -> Tensor:
        scale = spread(hypers[f"{site.name}_global"], site, "site") * spread(
            hypers[f"{site.name}_local"], site, self.per
        )
        if self.slab is None:
            return scale
        if self.slab_df is None:
            return scale / (1 + (scale / self.slab).square()).sqrt()
        return scale / (1 + scale.square() / spread(hypers[f"{site.name}_slab"], site, "site")).sqrt()
