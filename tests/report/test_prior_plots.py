"""Plots of what a prior believes draw what the numbers say."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from pyroformer.report.plots.prior_predictive import (
    attention_entropies,
    commonest_class,
    function_entropies,
    prior_functions,
    token_sizes,
)


@pytest.fixture
def ax():
    return Figure(figsize=(4, 3)).subplots()


def test_entropies_are_shares_up_to_log_classes(ax):
    entropies = torch.tensor([[0.0, 0.01, math.log(4), math.log(4) + 1e-7]])
    assert function_entropies(ax, entropies, 1.2, classes=4) is ax
    (stairs,) = ax.patches
    values, edges, _ = stairs.get_data()
    assert (values[0], values[-1], values.sum()) == (0.5, 0.5, 1.0)  # what rounding puts beyond log C counts
    assert edges[-1] == pytest.approx(math.log(4))
    assert ax.lines[0].get_xdata()[0] == 1.2 and len(ax.texts) == 1


def test_constant_functions_stand_out(ax):
    commonest_class(ax, torch.tensor([1.0, 0.96, 0.5, 0.2]), classes=10)
    heights = [bar.get_height() for bar in ax.patches]
    assert heights[-1] == 0.5 and sum(heights) == 1.0
    colors = {tuple(np.round(bar.get_facecolor(), 3)) for bar in ax.patches[:-1]}
    assert len(colors) == 1 and tuple(np.round(ax.patches[-1].get_facecolor(), 3)) not in colors
    assert ax.lines[0].get_xdata()[0] == 0.1


def test_functions_are_lines_within_the_band(ax):
    x, functions = torch.linspace(0, 1, 5), torch.arange(100.0)[:, None].expand(100, 5)
    prior_functions(ax, x, functions)
    assert len(ax.lines) == 25 and ax.lines[3].get_ydata().tolist() == [3.0] * 5
    heights = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((4.95, 94.05))


def test_heads_are_grouped_by_layer(ax):
    attention_entropies(ax, {"a": (0.1, 0.9), "b": (0.5, 0.6)})
    assert [bar.get_height() for bar in ax.patches] == [0.1, 0.9, 0.5, 0.6]
    places = [bar.get_x() for bar in ax.patches]
    assert places[2] - places[1] == 2 * (places[1] - places[0])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1"]


def test_sizes_have_bars_from_low_to_high(ax):
    token_sizes(ax, {"embedding": (1.0, 2.0, 4.0), "blocks.0": (10.0, 20.0, 30.0)})
    assert ax.get_yscale() == "log"
    (container,) = ax.containers
    segments = container.lines[2][0].get_segments()
    assert [segment[:, 1].tolist() for segment in segments] == [[1.0, 4.0], [10.0, 30.0]]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["in", "0"]
