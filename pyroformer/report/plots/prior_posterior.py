"""What a weight was believed to be, and what it became."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from .style import COLORS, MUTED, tidy

BINS = 40
TAIL = 0.01
"""Share of the values that is left out at either end: single values of a heavy tail would squeeze the rest."""


MOST = 10.0
"""Width of the axis at most, in widths of the narrower of the two."""
POINT, LEAST = 1e-6, 0.02
"""What is narrower than this share of the other is a point; as a width it then has that share of the other."""


def prior_posterior(
    ax: Axes, posterior: Tensor, prior: Tensor | None = None, *, color: str = COLORS[0], label: str = "value"
) -> Axes:
    """Density of draws from the posterior, filled, and of draws from the prior, as an outline.

    Args:
        ax: Where to draw.
        posterior: Draws, any shape: of one entry, or of all entries of a weight taken together.
        prior: Draws from the prior, or None where it is flat.
        color: Of the posterior.
        label: Of the horizontal axis.

    The axis holds the central 98 % of the wider of the two, and at most ten times the width of the narrower (of a
    point, a fifth of the width of the other); what lies beyond is counted at neither end.
    """
    found = [values.flatten().double().cpu().numpy() for values in (posterior, prior) if values is not None]
    central = [np.quantile(values, (TAIL, 1 - TAIL)) for values in found]
    low, high = min(c[0] for c in central), max(c[1] for c in central)
    narrow, wide = (choose(central, key=lambda c: c[1] - c[0]) for choose in (min, max))
    width = narrow[1] - narrow[0]
    if width < POINT * max(wide[1] - wide[0], abs(narrow.mean()), 1e-9):
        width = max(LEAST * (wide[1] - wide[0]), 1e-3 * abs(narrow.mean()), 1e-9)
    middle, reach = narrow.mean(), MOST / 2 * width
    low, high = max(low, middle - reach), min(high, middle + reach)
    if high - low < width / 2:
        low, high = middle - width, middle + width
    edges = np.linspace(low, high, BINS + 1)

    def density(values: np.ndarray) -> np.ndarray:
        return np.histogram(values, edges)[0] / (len(values) * (edges[1] - edges[0]))

    ax.stairs(density(found[0]), edges, fill=True, color=color, alpha=0.45, label="posterior")
    if prior is not None:
        ax.stairs(density(found[1]), edges, color=MUTED, linewidth=1.2, label="prior")
    tidy(ax, label, "density")
    ax.set(xlim=(low, high), ylim=(0, None))
    return ax
