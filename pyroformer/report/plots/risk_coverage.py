"""Risk by coverage: what it brings to answer only where the prediction is sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from ...inference import metrics
from .reliability import flat_labelled
from .style import Style, method_styles, name_lines, tidy

LEAST = 0.02
"""Share of the examples from which curves are drawn: the first few examples would be a zigzag of whole errors."""


def risk_coverage_curves(
    ax: Axes,
    predictions: Mapping[str, Sequence[tuple[Tensor, Tensor]]],
    *,
    styles: Mapping[str, Style] | None = None,
    legend: bool = True,
) -> Axes:
    r"""The error rate among the surest examples by their share: for each method the mean over seeds.

    .. math:: \mathrm{risk}(k / N) = \tfrac1k \sum_{n \in \text{surest } k} 1[\hat y_n \ne y_n]

    Args:
        ax: Where to draw.
        predictions: By method, one pair a seed: probabilities ``[N, C]`` or ``[N, T, C]``, and labels ``[N]`` or ``[N,
            T]``, of which those below 0 are left out. Sure is what has a large probability of the top label.
        styles: Of the methods, default `method_styles`.
        legend: Name the methods to the right of the axes, default True.

    Raises:
        ValueError: No example is labelled, or the predictions are no probabilities.

    Reference:
        El-Yaniv and Wiener, 2010, "On the foundations of noise-free selective classification".
    """
    styles = styles or method_styles(predictions)
    handles, names, most = [], [], 0.0
    for method, seeds in predictions.items():
        curves = [metrics.risk_coverage(*flat_labelled(p, y)) for p, y in seeds]
        if not curves:
            continue
        coverage = curves[0][0].cpu().numpy()
        risks = [np.interp(coverage, at.cpu().numpy(), risk.cpu().numpy()) for at, risk in curves]
        drawn = coverage >= LEAST
        risk = 100 * np.mean(risks, axis=0)[drawn]
        handles += ax.plot(100 * coverage[drawn], risk, **styles[method], linewidth=1.6)  # type: ignore[arg-type]
        names.append(method)
        most = max(most, float(risk.max()))
    tidy(ax, "coverage (%)", "error rate (%)")
    ax.set(xlim=(0, 100), ylim=(0, 1.05 * most or 1.0))
    if legend:
        name_lines(ax, handles, names)
    return ax
