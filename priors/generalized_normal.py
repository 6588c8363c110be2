"""Independent generalised normal prior."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Distribution, ScaledPrior, Site
from .exponential_power import ExponentialPower
from .settings import check_positive


@dataclass(frozen=True, kw_only=True)
class GeneralizedNormal(ScaledPrior):
    r"""Independent entries of a generalised normal (exponential power) distribution.

    .. math:: p(w_i) = \frac{\beta}{2 s\,\Gamma(1/\beta)} \exp\!\left(-\left|\frac{w_i - c}{s}\right|^\beta\right)

    with the centre :math:`c` of the site (1 for normalisation gains, else 0).

    Args:
        scale: The scale parameter :math:`s`, above 0, default 1; the standard deviation is
            :math:`s\,(\Gamma(3/\beta) / \Gamma(1/\beta))^{1/2}`, which is :math:`s/\sqrt2` at power 2.
        scaling: ``absolute`` (default), ``fan_in`` or ``depth``. See `ScaledPrior`.
        power: :math:`\beta > 0`, default 1.5: 1 is the Laplace, 2 the normal distribution; below 1 the density has a
            cusp at the centre, which samplers and optimisers that follow gradients find hard.

    Raises:
        SettingError: ``scale`` or ``power`` is not above 0, or ``scaling`` is unknown.

    Reference:
        Nadarajah, 2005, "A generalized normal distribution".
    """

    power: float = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "power")

    def distribution(self, site: Site) -> Distribution:
        return ExponentialPower(site.loc, self.scale_of(site), self.power).to_event(site.value.dim())
