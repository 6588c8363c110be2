"""Monte Carlo standard errors of what chains estimate."""

from __future__ import annotations

from torch import Tensor

from .chunks import over_quantities
from .effective_size import effective_size
from .ranks import split_chains


@over_quantities
def mcse_mean(values: Tensor) -> Tensor:
    r"""The Monte Carlo standard error of the mean of a quantity.

    .. math:: \mathrm{sd} / \sqrt{S_{\mathrm{eff}}}

    Args:
        values: ``[K, S, ...]``, from 4 draws a chain.

    Returns:
        ``[...]`` in float64, in the units of the quantity; NaN where it is constant or not finite.

    Raises:
        SettingError: There are fewer than 4 draws a chain.

    Reference:
        Vehtari et al., 2021, Sec. 4.4.
    """
    return values.flatten(0, 1).std(0) / effective_size(split_chains(values)).sqrt()


@over_quantities
def mcse_sd(values: Tensor) -> Tensor:
    r"""The Monte Carlo standard error of the standard deviation of a quantity.

    .. math:: \frac{\mathrm{sd}(d)}{2\, \mathrm{sd}(x) \sqrt{S_{\mathrm{eff}}(d)}}, \qquad d = (x - \bar x)^2

    by the delta method, which needs no normal distribution.

    Args:
        values: ``[K, S, ...]``, from 4 draws a chain.

    Returns:
        ``[...]`` in float64, in the units of the quantity; NaN where it is constant or not finite.

    Raises:
        SettingError: There are fewer than 4 draws a chain.

    Reference:
        Vehtari et al., 2021, Sec. 4.4; Kenney and Keeping, 1951, "Mathematics of statistics", for the delta method.
    """
    squares = (values - values.mean((0, 1))).square()
    variance = squares.mean((0, 1))
    spread = squares.square().mean((0, 1)) - variance.square()
    return (spread / effective_size(split_chains(squares)) / variance / 4).sqrt()
