"""How draws of a chain depend on those before them."""

from __future__ import annotations

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from .chunks import over_quantities


def autocovariance(values: Tensor) -> Tensor:
    r"""The autocovariance ``[S, M]`` of chains ``[K, S, M]`` at all lags, averaged over chains.

    .. math:: \gamma_t = \frac1S \sum_{s} (x_s - \bar x)(x_{s + t} - \bar x)
    """
    draws = values.shape[1]
    size = next_fast_len(2 * draws, real=True)  # padded, so that the end does not meet the beginning
    spectrum = torch.fft.rfft(values - values.mean(1, keepdim=True), n=size, dim=1)
    power = (spectrum.real.square() + spectrum.imag.square()).mean(0)
    return torch.fft.irfft(power, n=size, dim=0)[:draws] / draws


@over_quantities
def autocorrelation(values: Tensor) -> Tensor:
    r"""The correlation of draws with those some steps before, within chains, averaged over them.

    .. math:: \rho_t = \gamma_t / \gamma_0

    Args:
        values: ``[K, S, ...]``, from 4 draws a chain.

    Returns:
        ``[S, ...]`` in float64, from lag 0; NaN where a quantity is constant or not finite.

    Raises:
        SettingError: There are fewer than 4 draws a chain.

    Reference:
        Geyer, 1992, "Practical Markov chain Monte Carlo", Sec. 3.1.
    """
    found = autocovariance(values)
    return found / found[0]
