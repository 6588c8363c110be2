"""How many independent draws chains are worth."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .autocovariance import autocovariance
from .chunks import over_quantities
from .ranks import normal_scores, split_chains

TAIL = (0.05, 0.95)


def effective_size(values: Tensor) -> Tensor:
    r"""The effective sample size ``[M]`` of chains ``[K, S, M]`` for the mean of what they hold.

    .. math:: \frac{K S}{1 + 2 \sum_{t \ge 1} \hat\rho_t}, \qquad
        \hat\rho_t = 1 - \frac{W - \bar\gamma_t}{\widehat{\mathrm{var}}^+}

    The sum ends where that of two neighbouring correlations is no longer positive, and these sums do not grow before
    it. A quantity that is constant is worth all its draws.

    Reference:
        Vehtari et al., 2021, Eq. 10 to 13; Geyer, 1992, Sec. 3.3.
    """
    chains, draws = values.shape[:2]
    count, pairs = chains * draws, max((draws - 3) // 2, 0) + 1
    covariance = autocovariance(values)
    within = covariance[0] * draws / (draws - 1)
    total = covariance[0] + (values.mean(1).var(0) if chains > 1 else 0.0)
    correlation = 1 - (within - covariance[: 2 * pairs]) / total
    correlation[0] = 1.0
    sums = correlation.unflatten(0, (pairs, 2)).sum(1)
    places = torch.arange(pairs).unsqueeze(1)
    last = torch.where(sums > 0, pairs - 1, places).amin(0, keepdim=True)  # the first pair that ends the sum
    even = correlation[::2].gather(0, last).squeeze(0)
    ended = sums.gather(0, last).squeeze(0) < 0
    end = torch.where(ended, even.clamp(min=0.0), even)
    before = torch.where(places < last, sums.cummin(0).values, 0.0).sum(0)
    tau = (2 * before + end - 1).clamp(min=1 / math.log10(count))
    constant = values.amax((0, 1)) - values.amin((0, 1)) < 1e-15
    return torch.where(constant, float(count), count / tau)


@over_quantities
def ess_mean(values: Tensor) -> Tensor:
    """The effective sample size for the mean of a quantity, by half chains.

    Args:
        values: ``[K, S, ...]``, from 4 draws a chain.

    Returns:
        ``[...]`` in float64; NaN where a quantity is constant or not finite.

    Raises:
        SettingError: There are fewer than 4 draws a chain.

    Reference:
        Vehtari et al., 2021, Sec. 3.2.
    """
    return effective_size(split_chains(values))


@over_quantities
def ess_bulk(values: Tensor) -> Tensor:
    """The effective sample size in the bulk of a distribution: that of the mean of normal scores of ranks.

    It is defined whatever moments the quantity has. Below about 100 a chain neither it nor R-hat is to be relied upon.

    Args:
        values: ``[K, S, ...]``, from 4 draws a chain.

    Returns:
        ``[...]`` in float64; NaN where a quantity is constant or not finite.

    Raises:
        SettingError: There are fewer than 4 draws a chain.

    Reference:
        Vehtari et al., 2021, Sec. 4.1.
    """
    return effective_size(normal_scores(split_chains(values)))


@over_quantities
def ess_tail(values: Tensor) -> Tensor:
    """The effective sample size in the tails: the smaller one for the probabilities below the 5 and 95 % quantiles.

    Args:
        values: ``[K, S, ...]``, from 4 draws a chain.

    Returns:
        ``[...]`` in float64; NaN where a quantity is constant or not finite.

    Raises:
        SettingError: There are fewer than 4 draws a chain.

    Reference:
        Vehtari et al., 2021, Sec. 4.3.
    """
    ordered = values.flatten(0, 1).sort(0).values
    sizes = []
    for level in TAIL:
        place = level * (len(ordered) - 1)
        low, share = int(place), place - int(place)
        quantile = ordered[low] + share * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])
        sizes.append(effective_size(split_chains((values <= quantile).double())))
    return torch.minimum(*sizes)
