"""Mixtures of weight priors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .base import Distribution, ScaleFamily, Site, check_scale_family
from .entrywise_mixture import EntrywiseMixture, entries
from .normal import Normal
from .settings import check, check_numbers, keep_tuple


def check_weights(owner: object, key: str, count: int) -> None:
    """The setting is None, or holds as many numbers above 0 as there are components."""
    if getattr(owner, key) is not None:
        check_numbers(owner, key)
        check(owner, key, len(getattr(owner, key)) == count, f"{count} numbers above 0, one a component, or null")


def mixed(site: Site, priors: list[Distribution], weights: tuple[float, ...] | None) -> Distribution:
    """The entrywise mixture of priors over one site."""
    given = site.value.new_tensor([1.0] * len(priors) if weights is None else weights)
    return EntrywiseMixture(given / given.sum(), [entries(prior) for prior in priors]).to_event(site.value.dim())


@dataclass(frozen=True, kw_only=True)
class Mixture(ScaleFamily):
    r"""Independent entries, each from one of several priors.

    .. math:: p(w) = \prod_i \sum_k \pi_k\, p_k(w_i)

    The two normal components of different scale that are the default relax a spike and a slab.

    Args:
        components: At least one prior with a scale of its own (``normal``, ``laplace``, ...; mixtures too), default
            normal ones with scales 1 and 0.1.
        weights: :math:`\pi`, above 0, one number a component; they are divided by their sum. Default (None) equal.

    Raises:
        SettingError: A component is no such prior, or the weights are not above 0, one a component.

    Reference:
        Blundell et al., 2015, "Weight uncertainty in neural networks", Eq. 7, for the two normal components; their
        scales and weights are ours.
    """

    components: tuple[ScaleFamily, ...] = (Normal(scale=1.0), Normal(scale=0.1))
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        keep_tuple(self, "components")
        check(self, "components", isinstance(self.components, tuple) and len(self.components) > 0, "a list of priors")
        for index, component in enumerate(self.components):
            check_scale_family(f"components.{index}", component, independent=True)
        check_weights(self, "weights", len(self.components))

    def distribution(self, site: Site) -> Distribution:
        return mixed(site, [component.distribution(site) for component in self.components], self.weights)


@dataclass(frozen=True, kw_only=True)
class ScaleMixture(ScaleFamily):
    r"""Independent entries of one prior at several scales.

    .. math:: p(w) = \prod_i \sum_k \pi_k\, \frac{1}{f_k}\, p\!\left(c + \frac{w_i - c}{f_k}\right)

    Args:
        prior: A prior with a scale (``normal``, the default, ``laplace``, ...).
        factors: :math:`f_k > 0`, by which its scale is multiplied, default 1/9, 1/3, 1, 3 and 9.
        weights: :math:`\pi`, above 0, one number a factor; they are divided by their sum. Default (None) equal.

    Raises:
        SettingError: ``prior`` is no such prior, or the numbers are not above 0, one weight a factor.
    """

    prior: ScaleFamily = field(default_factory=Normal)
    factors: tuple[float, ...] = (1 / 9, 1 / 3, 1.0, 3.0, 9.0)
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_scale_family("prior", self.prior, independent=True)
        check_numbers(self, "factors")
        check_weights(self, "weights", len(self.factors))

    def distribution(self, site: Site) -> Distribution:
        scaled = [self.prior.distribution(replace(site, scale=site.scale * factor)) for factor in self.factors]
        return mixed(site, scaled, self.weights)
