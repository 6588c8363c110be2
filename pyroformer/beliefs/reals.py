"""What a prior believes of real functions."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .spread import quantiles, share_over_inputs

STILL = 0.05
"""A function is a constant when its standard deviation over inputs is below this share of that of all values."""


@dataclass(frozen=True, eq=False)
class RealBeliefs:
    """Real functions under the prior.

    Args:
        sd: The standard deviation of a value over functions, root mean square over inputs and outputs.
        observed_sd: That of the observations that the task has for training.
        value_range: Quantiles of 5, 25, 50, 75 and 95 % over functions of the largest less the smallest value.
        constant: The share of functions whose standard deviation over inputs is below 0.05 ``sd``.
        over_inputs: The share of the variance of values that is over inputs; the rest is between functions.
        turns: For one number as input and output, the mean over functions of how often one changes its direction along
            the inputs; else None.
        roughness: For such functions, the squared steps between neighbouring inputs over the squared deviations from
            the mean, averaged over functions (von Neumann's ratio: 2 for noise, near 0 for smooth functions).
        functions: ``[S, N]`` in the order of ``x``, for plots; None where there is no such order.
        x: ``[N]``, sorted.
        values: ``[S, N, D]``.
    """

    sd: float
    observed_sd: float
    value_range: tuple[float, ...]
    constant: float
    over_inputs: float
    turns: float | None
    roughness: float | None
    functions: Tensor | None
    x: Tensor | None
    values: Tensor


def real_beliefs(values: Tensor, observed: Tensor, x: Tensor | None = None) -> RealBeliefs:
    """What functions say of real numbers.

    Args:
        values: ``[S, N, D]``.
        observed: Observations, any shape.
        x: ``[N]``, the inputs where each is one number; None (default) for others.
    """
    values = values.double()
    sd = float(values.var(0).mean().sqrt()) if len(values) > 1 else 0.0
    within = values.var(1, correction=0).mean(-1).sqrt()  # [S]
    lines = turns = roughness = None
    if x is not None and values.shape[-1] == 1 and len(x) > 2:
        order = x.argsort()
        x, lines = x[order].double(), values[:, order, 0]
        steps = lines.diff(dim=1)
        turns = float((steps[:, 1:] * steps[:, :-1] < 0).double().sum(1).mean())
        deviations = (lines - lines.mean(1, keepdim=True)).square().sum(1)
        moving = deviations > 0
        if moving.any():
            roughness = float((steps.square().sum(1)[moving] / deviations[moving]).mean())
    else:
        x = None
    return RealBeliefs(
        sd=sd,
        observed_sd=float(observed.double().std()),
        value_range=quantiles((values.amax(1) - values.amin(1)).amax(-1)),
        constant=float((within < STILL * values.std(correction=0)).double().mean()),
        over_inputs=share_over_inputs(values),
        turns=turns,
        roughness=roughness,
        functions=lines,
        x=x,
        values=values,
    )
