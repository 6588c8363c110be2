"""Scores of real predictions and of mixtures of normal distributions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .checks import real, refuse


def rmse(mean: Tensor, y: Tensor) -> Tensor:
    r"""Root of the mean squared error, over examples and outputs together, in the units of y.

    :Args: mean, the prediction, and y, both ``[N]`` or both ``[N, D]``: nothing is broadcast.
    :Returns: :math:`\sqrt{\frac1{ND} \sum_{nd} (\mu_{nd} - y_{nd})^2}`, ``[]``.
    :Raises: ValueError for a wrong type, unequal shapes, NaN or infinities, or no examples.
    :Reference: Hyndman and Koehler (2006), Another look at measures of forecast accuracy, section 2.1."""
    mean = real("mean", mean, "[N] or [N, D]")
    return (mean - real("y", y, mean.shape)).square().mean().sqrt()


def mixture_log_density(y: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    r"""Log density of an equal-weight Gaussian mixture, one component a sample, outputs independent within a sample.

    :Args: y ``[N, D]``; loc ``[S, N, D]``; scale, standard deviations that broadcast to loc (``[S, 1, 1]``, ``[D]``).
    :Returns: :math:`\log \frac1S \sum_s \prod_d N(y_{nd}; \mu_{snd}, \sigma_{snd}^2)`, ``[N]``.
    :Raises: ValueError for a wrong type or shape, a scale at or below 0, NaN or infinities, or an empty tensor.
    :Reference: Lakshminarayanan et al. (2017), arXiv:1612.01474, section 2.4 (the mixture itself, not its moments)."""
    loc, scale = components(loc, scale)
    log_prob = torch.distributions.Normal(loc, scale, validate_args=False).log_prob(real("y", y, loc.shape[1:]))
    return log_prob.sum(-1).logsumexp(0) - math.log(len(loc))


def mixture_quantile(level: float, loc: Tensor, scale: Tensor) -> Tensor:
    r"""Quantile of each marginal of an equal-weight Gaussian mixture, by bisection to 1e-6 of its smallest scale.

    :Args: level, inside (0, 1); loc ``[S, N, D]``; scale, standard deviations that broadcast to loc.
    :Returns: :math:`\inf \{x : \frac1S \sum_s \Phi((x - \mu_{snd}) / \sigma_{snd}) \ge \mathrm{level}\}`, ``[N, D]``.
    :Raises: ValueError for a wrong type or shape, a level or scale out of range, NaN or infinities, or an empty tensor.
    :Reference: Press et al. (2007), Numerical Recipes, section 9.1 (bisection)."""
    loc, scale = components(loc, scale)
    if not isinstance(level, float) or not 0 < level < 1:
        raise ValueError(f"level is {level!r}: expected a float strictly between 0 and 1")
    component = loc + scale * torch.special.ndtri(loc.new_tensor(level))
    low, high = component.amin(0), component.amax(0)  # a mixture's quantile lies among those of its components
    upper, tolerance = level > 0.5, 1e-6 * scale.amin(0)  # upper: the smaller tail has the digits
    while True:
        middle = low + (high - low) / 2
        if not ((high - low > tolerance) & (middle > low) & (middle < high)).any():  # or no float is left between
            return middle
        z = (middle - loc if upper else loc - middle) / scale
        tail = 0.5 * torch.erfc(z * math.sqrt(0.5)).mean(0)  # torch.special.ndtr is 0 from -9 on
        below = tail > 1 - level if upper else tail < level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)


def interval_coverage(y: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    r"""Fraction of observations inside their closed intervals, over examples and outputs together.

    :Args: y, lower and upper, all ``[N]`` or all ``[N, D]``; bounds may be infinite.
    :Returns: :math:`\frac1{ND} \sum_{nd} 1[l_{nd} \le y_{nd} \le u_{nd}]`, ``[]``, in [0, 1].
    :Raises: ValueError for a wrong type, unequal shapes, NaN, a lower above its upper, or no examples.
    :Reference: Gneiting, Balabdaoui and Raftery (2007), Probabilistic forecasts, calibration and sharpness."""
    y = real("y", y, "[N] or [N, D]")
    lower, upper = (real(k, x, y.shape, infinite=True) for k, x in (("lower", lower), ("upper", upper)))
    refuse("lower", lower, lower > upper, "at most upper")
    return ((lower <= y) & (y <= upper)).double().mean()


def components(loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    loc, scale = real("loc", loc, "[S, N, D]"), real("scale", scale, "[...]")
    refuse("scale", scale, scale <= 0, "standard deviations above 0")
    try:
        return loc, scale.broadcast_to(loc.shape)
    except RuntimeError as error:
        raise ValueError(f"scale has shape {list(scale.shape)}: expected to broadcast to {list(loc.shape)}") from error
