"""Priors under which the heads of an attention layer differ."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from .base import Distribution, ScaleFamily, Site, check_scale_family
from .blocks import Blocks, cut
from .hierarchy import Hypers
from .hyperpriors import HalfCauchy, Hyperprior
from .matrix_normal import MatrixNormal
from .random_scale import RandomScale, check_hyperprior


@dataclass(frozen=True, kw_only=True)
class PerHead(RandomScale):
    r"""A weight prior whose scale is multiplied by a random factor, one for each attention head.

    .. math:: \tau_h \sim p(\tau), \qquad w_i \sim p(w_i \mid c, \tau_{h(i)} s)

    with the centre :math:`c` and the scale :math:`s` that ``prior`` has for the site, and the head :math:`h(i)` that
    owns the entry: heads are blocks of rows of query, key and value, and of entries of their biases, and blocks of
    columns of the output projection. A weight that no head owns a part of has one factor. The hyper-site
    ``<weight>_heads`` holds the factors. In the non-centred form the sample site is ``<weight>_standard``.

    Args:
        prior, centered: See `RandomScale`. Here: with `HeadBlocks` heads are independent in all but their scale's law.
        hyperprior: That of every :math:`\tau_h`, default ``half_cauchy``.

    Raises:
        SettingError: ``hyperprior`` is none, ``prior`` has no scale, or the centred form is asked of a bounded prior.

    Reference:
        A hierarchical prior as of Gelman, 2006, "Prior distributions for variance parameters in hierarchical models";
        by heads it is ours.
    """

    hyperprior: Hyperprior = field(default_factory=HalfCauchy)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_hyperprior("hyperprior", self.hyperprior)

    def hyper_sites(self, site: Site) -> dict[str, Distribution]:
        return {f"{site.name}_heads": self.hyperprior.distribution(site.value.new_zeros(site.heads))}

    def start(self, site: Site) -> dict[str, Tensor]:
        return {f"{site.name}_heads": self.hyperprior.start(site.value.new_zeros(site.heads))}

    def factor(self, site: Site, hypers: Hypers) -> Tensor:
        factors, shape = hypers[f"{site.name}_heads"], [1] * site.value.dim()
        if site.heads == 1:
            return factors.reshape(factors.shape[:-1] + torch.Size(shape))
        width = site.value.shape[site.head_axis]
        shape[site.head_axis] = width
        return factors.repeat_interleave(width // site.heads, -1).reshape(factors.shape[:-1] + torch.Size(shape))


@dataclass(frozen=True, kw_only=True)
class HeadBlocks(ScaleFamily):
    r"""A correlated prior for each attention head on its own: heads are independent.

    .. math:: p(W) = \prod_h p(W_h)

    with the blocks :math:`W_h` of rows of query, key and value (of entries of their biases), and of columns of the
    output projection. Other weights are one block. A prior of independent entries is as it was.

    Args:
        prior: A prior with a scale, default ``matrix_normal``.

    Raises:
        SettingError: ``prior`` has no scale.

    Reference:
        Ours; see `MatrixNormal` for the blocks.
    """

    independent: ClassVar[bool] = False

    prior: ScaleFamily = field(default_factory=MatrixNormal)

    def __post_init__(self) -> None:
        check_scale_family("prior", self.prior)

    def check_site(self, site: Site) -> None:
        self.prior.check_site(site)

    def distribution(self, site: Site) -> Distribution:
        if site.heads == 1 or self.prior.independent:
            return self.prior.distribution(site)
        block = replace(
            site,
            value=cut(site.value, site.heads, site.head_axis, site.value.dim())[0],
            center=self._cut(site, site.center),
            scale=self._cut(site, site.scale),
            heads=1,
        )
        made = self.prior.distribution(block)
        lead = made.batch_shape[:-1] if made.batch_shape else torch.Size()
        return Blocks(made.expand(torch.Size((*lead, site.heads))), site.head_axis)

    @staticmethod
    def _cut(site: Site, values: Tensor | float) -> Tensor | float:
        """Values for the entries of the weight, ``[..., *W]`` or what broadcasts to it, by head."""
        if not isinstance(values, Tensor):
            return values
        lead = values.shape[: max(values.dim() - site.value.dim(), 0)]
        return cut(values.expand(lead + site.value.shape), site.heads, site.head_axis, site.value.dim())
