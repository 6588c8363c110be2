"""Entropy of predictions, in and out of distribution."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from .style import BAR, COLORS, SMALL, tidy

BINS = 24


def entropy_histograms(
    ax: Axes, inside: Tensor, outside: Mapping[str, Tensor], *, classes: int | None = None, legend: bool = True
) -> Axes:
    """How often which predictive entropy occurs: filled on the test set, as outlines on sets from elsewhere.

    Args:
        ax: Where to draw.
        inside: Entropies of the test set, any shape, in nats.
        outside: Entropies of other sets, by name.
        classes: Number of classes ``C``; the axis then ends at ``log C``, the most there can be. Default (None): at the
            largest entropy there is.
        legend: Name the sets inside the axes, default True.
    """
    values = {name: entropies.flatten().double().cpu().numpy() for name, entropies in outside.items()}
    test = inside.flatten().double().cpu().numpy()
    most = math.log(classes) if classes else max([float(test.max()), *(float(v.max()) for v in values.values()), 1e-9])
    edges = np.linspace(0, most, BINS + 1)

    def shares(found: np.ndarray) -> np.ndarray:
        return np.histogram(found.clip(0, most), edges)[0] / len(found)

    ax.stairs(shares(test), edges, fill=True, color=BAR, alpha=0.8, label="test")
    for color, (name, found) in zip(COLORS * (1 + len(values) // len(COLORS)), values.items(), strict=False):
        ax.stairs(shares(found), edges, color=color, linewidth=1.4, label=name)
    tidy(ax, "predictive entropy (nats)", "share of examples")
    ax.set(xlim=(0, most), ylim=(0, None))
    if legend:
        for text in ax.legend(frameon=False, fontsize=SMALL).get_texts():
            text.set_parse_math(False)
    return ax
