"""Maximum likelihood of the families that weight priors come in, around the centre that a prior has."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor

from ..priors import Cauchy, GeneralizedNormal, Laplace, Mixture, Normal, Prior, StudentT

LEAST = 1e-12
"""The smallest scale that is fitted: weights that never moved have none."""
MOST_POWER = 8.0
"""The power of the generalised normal at most: beyond, it is a wall whose gradients no training survives."""
MOST_DF = 200.0
"""Degrees of freedom at most: beyond, the family is the normal one."""


def normal(x: Tensor) -> Normal:
    r"""The normal distribution: :math:`s^2 = \overline{x^2}`."""
    return Normal(scale=max(float(x.square().mean().sqrt()), LEAST))


def laplace(x: Tensor) -> Laplace:
    r"""The Laplace distribution: :math:`s = \overline{|x|}`."""
    return Laplace(scale=max(float(x.abs().mean()), LEAST))


def cauchy(x: Tensor) -> Cauchy:
    """The Cauchy distribution, by its scale."""
    unit = _unit(x)
    z = x / unit
    (log_scale,) = _maximized(lambda t: _student(z, z.new_tensor(1.0), t[0].exp()), [math.log(0.5)], [(-12, 5)])
    return Cauchy(scale=unit * math.exp(log_scale))


def student_t(x: Tensor) -> StudentT:
    """The Student-t distribution, by its degrees of freedom (0.2 to 200) and its scale."""
    unit = _unit(x)
    z = x / unit
    bounds = [(math.log(0.2), math.log(MOST_DF)), (-12.0, 5.0)]
    log_df, log_scale = _maximized(lambda t: _student(z, t[0].exp(), t[1].exp()), [math.log(5.0), -0.3], bounds)
    return StudentT(scale=unit * math.exp(log_scale), df=math.exp(log_df))


def generalized_normal(x: Tensor) -> GeneralizedNormal:
    r"""The generalised normal distribution, by its power (0.2 to 8): :math:`s^\beta = \beta\,\overline{|x|^\beta}`."""
    size = x.abs()
    most = max(float(size.max()), LEAST)
    ratio = size / most

    def scale(power: float) -> float:
        return most * (power * max(float((ratio**power).mean()), 1e-300)) ** (1 / power)

    def loss(log_power: float) -> float:
        power = math.exp(log_power)
        return math.log(scale(power)) + math.lgamma(1 / power) - math.log(power) + 1 / power

    found = minimize_scalar(
        loss, bounds=(math.log(0.2), math.log(MOST_POWER)), method="bounded", options={"xatol": 1e-4}
    )
    power = math.exp(float(found.x))
    return GeneralizedNormal(scale=max(scale(power), LEAST), power=power)


def mixture(x: Tensor) -> Mixture:
    """Two normal distributions with one centre, by their scales and weights: a spike and a slab."""
    unit = _unit(x)
    z = x / unit

    def log_likelihood(t: Tensor) -> Tensor:
        logs = torch.stack([torch.nn.functional.logsigmoid(sign * t[2]) for sign in (1, -1)])
        each = logs - t[:2] - 0.5 * (z.unsqueeze(-1) * (-t[:2]).exp()).square()
        return each.logsumexp(-1).mean()

    bounds = [(-12.0, 5.0), (-12.0, 5.0), (-7.0, 7.0)]
    low, high, logit = _maximized(log_likelihood, [math.log(0.5), math.log(1.5), 0.0], bounds)
    weight = 1 / (1 + math.exp(-logit))
    parts = sorted(((unit * math.exp(low), weight), (unit * math.exp(high), 1 - weight)), reverse=True)
    components = tuple(Normal(scale=scale) for scale, _ in parts)
    return Mixture(components=components, weights=tuple(share for _, share in parts))


FAMILIES: dict[str, tuple[Callable[[Tensor], Prior], int]] = {
    "normal": (normal, 1),
    "laplace": (laplace, 1),
    "cauchy": (cauchy, 1),
    "student_t": (student_t, 2),
    "generalized_normal": (generalized_normal, 2),
    "mixture": (mixture, 3),
}
"""How each family is fitted to deviations from the centre, and how many numbers it has."""


def log_likelihood(prior: Prior, x: Tensor) -> float:
    """The mean log-density, in nats a weight, of deviations from the centre."""
    return float(prior("", x.flatten()).log_prob(x.flatten())) / x.numel()


def _unit(x: Tensor) -> float:
    """A scale in which values are near 1."""
    return max(float(x.square().mean().sqrt()), LEAST)


def _student(z: Tensor, df: Tensor, scale: Tensor) -> Tensor:
    constant = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - 0.5 * (df * math.pi).log() - scale.log()
    return constant - (df + 1) / 2 * torch.log1p((z / scale).square() / df).mean()


def _maximized(
    function: Callable[[Tensor], Tensor], start: Sequence[float], bounds: Sequence[tuple[float, float]]
) -> list[float]:
    """Where a function of a few numbers is largest, by L-BFGS."""

    def loss(at: Sequence[float]) -> tuple[float, Any]:
        t = torch.tensor(at, dtype=torch.float64, requires_grad=True)
        value = -function(t)
        (gradient,) = torch.autograd.grad(value, t)
        return float(value.detach()), gradient.numpy()

    return [float(v) for v in minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x]
