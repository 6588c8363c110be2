"""Moments of weights, with errors from net to net."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..inference.metrics import mean_and_standard_error


def excess_kurtosis(x: Tensor) -> float:
    r"""The fourth moment against a normal distribution's: 0 for it, 3 for the Laplace distribution.

    .. math:: \frac{\overline{(x - \bar x)^4}}{\bigl(\overline{(x - \bar x)^2}\bigr)^2} - 3

    Args:
        x: Any shape; 0 where all values are the same.
    """
    centered = x.double() - x.double().mean()
    variance = centered.square().mean()
    return float(centered.pow(4).mean() / variance.square() - 3) if variance > 0 else 0.0


def kurtosis_over_seeds(seeds: Sequence[Tensor]) -> tuple[float, float]:
    """Mean and standard error over seeds of the excess kurtosis."""
    mean, error = mean_and_standard_error([excess_kurtosis(x) for x in seeds])
    return float(mean), float(error)
