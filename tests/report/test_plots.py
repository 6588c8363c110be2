"""Plots draw what the numbers say, on the axes they are given."""

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from pyroformer.inference import metrics
from pyroformer.report import (
    elbo_curves,
    method_styles,
    regression_band,
    reliability_diagram,
    validation_curves,
)


@pytest.fixture
def ax() -> Axes:
    return Figure(figsize=(4, 3)).subplots()


def heights(container):
    return [bar.get_height() for bar in container]


def draw(ax):
    FigureCanvasAgg(ax.figure).draw()


def epochs(values, key="elbo", **labels):
    return [{**labels, "epoch": epoch, key: value} for epoch, value in enumerate(values, 1)]


CONFIDENCE = [0.95, 0.95, 0.9, 0.9, 0.75, 0.75, 0.75, 0.75, 0.55, 0.55]
RIGHT = [1, 1, 1, 1, 1, 0, 0, 0, 1, 1]  # by bin of a tenth: (0.8, 0.9] all, (0.7, 0.8] a quarter, (0.5, 0.6] all


def two_classes():
    top = torch.tensor(CONFIDENCE, dtype=torch.float64)
    return torch.stack([top, 1 - top], -1), 1 - torch.tensor(RIGHT)


def test_reliability_bars_are_the_bins(ax):
    p, y = two_classes()
    assert reliability_diagram(ax, p, y, bins=10) is ax
    accuracy, over, under = ax.containers
    assert heights(accuracy) == [1.0, 0.25, 1.0, 1.0]
    assert [bar.get_x() + bar.get_width() / 2 for bar in accuracy] == pytest.approx([0.55, 0.75, 0.85, 0.95])
    assert heights(over) == pytest.approx([0.5])  # too sure by 0.75 - 0.25
    assert heights(under) == pytest.approx([-0.45, -0.1, -0.05])
    (strip,) = ax.child_axes
    assert heights(strip.containers[0]) == pytest.approx([0.2, 0.4, 0.2, 0.2])
    assert [text.get_text() for text in ax.texts] == ["ECE 32.0 %"]  # 0.4 * 0.5 + 0.2 * (0.45 + 0.1 + 0.05)
    draw(ax)


def test_reliability_agrees_with_the_metric(ax, classification):
    kept = classification.results[0].predictions
    p, y = kept["noisy.probabilities"], kept["noisy.labels"]
    reliability_diagram(ax, p, y, histogram=False)
    by_bin = metrics.reliability(p, y)
    expected = by_bin.accuracy[by_bin.count > 0].tolist()
    assert heights(ax.containers[0]) == expected
    assert ax.child_axes == []
    other = Figure().subplots()
    reliability_diagram(other, p, (y + 1) % 10)  # planted: labels moved by one
    assert heights(other.containers[0]) != expected


def test_reliability_per_token_leaves_out_what_is_not_labelled(ax):
    p, y = two_classes()
    wrong = torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand(10, 2)
    tokens, labels = torch.stack([p, wrong], 1), torch.stack([y, torch.full((10,), -1)], 1)
    reliability_diagram(ax, tokens, labels, bins=10)
    assert heights(ax.containers[0]) == [1.0, 0.25, 1.0, 1.0]


def test_reliability_refuses_what_is_no_prediction(ax):
    p, y = two_classes()
    with pytest.raises(ValueError, match="nan"):
        reliability_diagram(ax, p * torch.nan, y)
    with pytest.raises(ValueError, match="not empty"):
        reliability_diagram(ax, p, torch.full((10,), -1))


def test_elbo_curve_is_the_mean_with_the_range_of_the_runs(ax):
    histories = [epochs([-3.0, -2.0, -1.0]), epochs([-5.0, -2.5, -2.0])]
    assert elbo_curves(ax, histories) is ax
    (line,) = ax.lines
    assert line.get_xydata().tolist() == [[1, -4.0], [2, -2.25], [3, -1.5]]
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices.tolist()
    assert all([x, y] in corners for x, y in [(1, -5.0), (1, -3.0), (3, -2.0), (3, -1.0)])
    draw(ax)


def test_one_run_has_no_band_and_parts_have_their_own_curve(ax):
    elbo_curves(ax, [[{"epoch": 1, "elbo": -9.0, "kl": 4.0}, {"epoch": 2, "elbo": -8.0, "kl": 3.0}]], part="kl")
    assert ax.lines[0].get_ydata().tolist() == [4.0, 3.0]
    assert len(ax.collections) == 0


def test_members_and_chains_are_runs_of_their_own(ax):
    elbo_curves(ax, [epochs([-3.0, -1.0], member=0) + epochs([-5.0, -3.0], member=1)])
    assert ax.lines[0].get_xydata().tolist() == [[1, -4.0], [2, -2.0]]
    other = Figure().subplots()
    draws = [{"draw": 5 + 5 * (i % 3), "stage": "warmup" if i < 3 else "sample", "log_joint": -i} for i in range(6)]
    elbo_curves(other, [draws], part="log_joint")
    assert other.lines[0].get_xdata().tolist() == [5, 10, 15, 20, 25, 30]  # numbers start again after the warm-up
    assert other.get_xlabel() == "draw"


def test_a_huge_start_does_not_hide_the_rest(ax):
    late = [-100.0, -105.0] * 9
    elbo_curves(ax, [epochs([-1e9, *late])])
    assert -106 < ax.get_ylim()[0] < -105 and ax.get_ylim()[1] > -100
    assert [text.get_text() for text in ax.texts] == ["start is below"]
    other = Figure().subplots()
    elbo_curves(other, [epochs(late)])  # the same without the start: nothing to say
    assert len(other.texts) == 0
    third = Figure().subplots()
    elbo_curves(third, [epochs([1e9, *late])])
    assert [text.get_text() for text in third.texts] == ["start is above"] and third.get_ylim()[1] < -70


def test_what_is_not_finite_is_left_out(ax):
    elbo_curves(ax, [epochs([float("nan"), -2.0, None, -1.0]), epochs([-9.0, -4.0, -3.0, -3.0])])
    assert ax.lines[0].get_xydata().tolist() == [[2, -3.0], [4, -2.0]]
    other = Figure().subplots()
    assert elbo_curves(other, [[], epochs([float("nan")])]) is other
    assert len(other.lines) == 0


def test_validation_curves_are_means_before_faint_runs(ax):
    histories = {
        "one": [epochs([0.5, 0.25], "validation_nll")],
        "ensemble": [epochs([1.0, 0.5], "validation_nll", member=0) + epochs([2.0, 1.5], "validation_nll", member=1)],
        "without": [[{"draw": 1, "log_joint": -1.0}]],
    }
    styles = method_styles(histories)
    assert validation_curves(ax, histories) is ax
    strong = [line for line in ax.lines if line.get_alpha() is None]
    faint = [line for line in ax.lines if line.get_alpha() is not None]
    assert [line.get_ydata().tolist() for line in strong] == [[0.5, 0.25], [1.5, 1.0]]
    assert [line.get_ydata().tolist() for line in faint] == [[1.0, 0.5], [2.0, 1.5]]
    assert same_color(strong[1].get_color(), styles["ensemble"]["color"])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "ensemble"]
    draw(ax)


def test_names_are_no_formulas(ax):
    names = ["$\\nonsense{", "_hidden", "50 % & <b>"]
    validation_curves(ax, {name: [epochs([1.0, 0.5], "validation_nll")] for name in names})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == names
    draw(ax)


def test_methods_keep_apart_beyond_the_colours():
    styles = method_styles([str(index) for index in range(20)])
    assert len({tuple(style.values()) for style in styles.values()}) == 20
    assert len({style["color"] for style in styles.values()}) == 7
    assert len(method_styles(map(str, range(100)))) == 100


def test_regression_band_is_sorted_and_holds_the_interval(ax):
    x = torch.tensor([[2.0], [0.0], [1.0]])
    mean, y = 10 * x, 10 * x + 0.5
    apart = torch.tensor([False, True, False])
    assert regression_band(ax, x, mean, mean - 1, mean + 2, y, apart=apart, color="#009e73") is ax
    line, solid, hollow = ax.lines
    assert line.get_xydata().tolist() == [[0, 0], [1, 10], [2, 20]]
    assert solid.get_xydata().tolist() == [[1, 10.5], [2, 20.5]]
    assert hollow.get_xydata().tolist() == [[0, 0.5]] and hollow.get_markerfacecolor() == "none"
    corners = ax.collections[0].get_paths()[0].vertices
    assert {tuple(corner) for corner in corners} >= {(0, -1), (0, 2), (2, 19), (2, 22)}
    assert np.allclose(ax.collections[0].get_facecolor()[0][:3], [0, 0x9E / 255, 0x73 / 255])
    draw(ax)


def test_plots_leave_the_global_state_alone(ax, regression):
    import matplotlib
    import matplotlib.pyplot as plt

    before, open_figures = dict(matplotlib.rcParams), plt.get_fignums()
    validation_curves(ax, {"a": [result.history for result in regression.results]})
    assert dict(matplotlib.rcParams) == before and plt.get_fignums() == open_figures
