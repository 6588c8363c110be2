"""Plots of trained weights draw what the numbers say."""

import pytest
import torch
from matplotlib.figure import Figure

from pyroformer.report.plots.weights import correlations_against, quantiles_against


@pytest.fixture
def ax():
    return Figure(figsize=(4, 3)).subplots()


def test_the_right_family_is_on_the_diagonal(ax):
    torch.manual_seed(0)
    x = torch.distributions.Laplace(0.0, 0.1).sample((20000,))
    assert quantiles_against(ax, x, {"normal": (0.1414, 0), "laplace": (0.1, 0), "student_t": (0.09, 4.0)}) is ax
    _, normal, laplace, _ = ax.lines
    inside = slice(8, 52)  # without the few points of each tail

    def distance(line):
        return abs(line.get_xdata()[inside] - line.get_ydata()[inside]).mean()

    assert distance(laplace) < 0.1 < 0.3 < distance(normal)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["normal", "Laplace", "Student-t"]
    assert (laplace.get_ydata() == normal.get_ydata()).all()
    with pytest.raises(ValueError, match="at least one"):
        quantiles_against(ax, torch.empty(0), {})


def test_correlations_have_their_null_behind_them(ax):
    correlations_against(ax, {"query": (0.3, 0.1, 0.01), "key": (0.12, 0.11, 0.02)})
    bars = [(bar.get_x(), bar.get_width()) for bar in ax.patches]
    assert bars == [pytest.approx((0.08, 0.04)), pytest.approx((0.07, 0.08))]
    assert ax.lines[1].get_xdata().tolist() == [0.3, 0.12]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["query", "key"]
    assert ax.lines[1].get_ydata().tolist() == [1, 0]  # the first one on top
