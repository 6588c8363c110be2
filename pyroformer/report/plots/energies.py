"""Energies of Hamiltonian chains, and what one transition changes of them."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from .style import BAR, COLORS, SMALL, tidy

BINS = 30


def energy_histograms(ax: Axes, energy: Tensor, *, legend: bool = True) -> Axes:
    """Energies around their mean, filled, and their changes from draw to draw, as an outline.

    Where the outline is much narrower, a chain needs many draws to come through its energies.

    Args:
        ax: Where to draw.
        energy: ``[K, S]``.
        legend: Name both inside the axes, default True.

    Reference:
        Betancourt, 2017, "A conceptual introduction to Hamiltonian Monte Carlo", Fig. 23 and 34.
    """
    found = energy.double().cpu().numpy()
    found = found[np.isfinite(found).all(1)]
    around = (found - found.mean(1, keepdims=True)).ravel()
    change = np.diff(found, axis=1).ravel()
    reach = max(np.quantile(np.abs(np.concatenate([around, change])), 0.995), 1e-9) if around.size else 1.0
    edges = np.linspace(-reach, reach, BINS + 1)
    heights = [np.histogram(values, edges, density=True)[0] for values in (around, change)]
    ax.stairs(heights[0], edges, fill=True, color=BAR, alpha=0.8, label="energy")
    ax.stairs(heights[1], edges, color=COLORS[1], linewidth=1.4, label="change")
    tidy(ax, "nats around the mean", "density")
    ax.set(xlim=(-reach, reach), ylim=(0, None), yticks=[])
    if legend:
        ax.legend(frameon=False, fontsize=SMALL, loc="upper right", handlelength=1.2, borderpad=0)
    return ax
