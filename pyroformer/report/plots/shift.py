"""Metrics as inputs move away from the training set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from .style import Style, method_styles, name_lines, tidy

Severities = Sequence[float]
"""One value a severity, from 0, the test set, upwards."""


def shift_curves(
    ax: Axes,
    values: Mapping[str, Sequence[Severities]],
    label: str,
    *,
    styles: Mapping[str, Style] | None = None,
    legend: bool = True,
) -> Axes:
    """A metric by the severity of a corruption: for each method the mean over seeds, and its standard error as bars.

    Args:
        ax: Where to draw.
        values: By method, one sequence a seed: the metric at severities 0 (the test set), 1, 2, ...
        label: What the metric is called.
        styles: Of the methods, default `method_styles`.
        legend: Name the methods to the right of the axes, default True.
    """
    styles = styles or method_styles(values)
    handles, names, most = [], [], 0
    for method, seeds in values.items():
        if not len(seeds):
            continue
        table = np.array(seeds, dtype=float)  # [seeds, severities]
        severity, mean = np.arange(table.shape[1]), table.mean(0)
        if len(table) > 1:
            error = table.std(0, ddof=1) / len(table) ** 0.5
            ax.errorbar(severity, mean, error, fmt="none", ecolor=styles[method]["color"], elinewidth=0.8, alpha=0.7)
        handles += ax.plot(severity, mean, **styles[method], linewidth=1.4)  # type: ignore[arg-type]
        names.append(method)
        most = max(most, table.shape[1] - 1)
    tidy(ax, "severity", label)
    ax.set_xticks(range(most + 1))
    if legend:
        name_lines(ax, handles, names)
    return ax
