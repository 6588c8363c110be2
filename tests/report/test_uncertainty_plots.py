"""Plots of risk, entropy, shift, and of prior against posterior draw what the numbers say."""

import math

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from pyroformer.inference import metrics
from pyroformer.report import (
    entropy_histograms,
    figures,
    method_styles,
    prior_posterior,
    risk_coverage_curves,
    shift_curves,
)
from pyroformer.report.figures import _observed
from pyroformer.results import Comparison, Result


@pytest.fixture
def ax() -> Axes:
    return Figure(figsize=(4, 3)).subplots()


def draw(ax):
    FigureCanvasAgg(ax.figure).draw()


def steps(patch):
    """The heights of a stairs patch and its edges."""
    data = patch.get_data()
    return data.values, data.edges


def pair(n=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    p = (2 * torch.randn(n, 3, generator=generator)).softmax(-1)
    return p, torch.randint(3, (n,), generator=generator)


def test_risk_curves_are_the_metric_averaged_over_seeds(ax):
    pairs = [pair(seed=0), pair(seed=1)]
    assert risk_coverage_curves(ax, {"a": pairs, "b": [pair(seed=2)]}) is ax
    risks = [metrics.risk_coverage(*one)[1] for one in pairs]
    expected = 100 * torch.stack(risks).mean(0)[1:]  # from 2 % of the examples: the second of 60
    assert ax.lines[0].get_ydata().tolist() == pytest.approx(expected.tolist())
    assert ax.lines[0].get_xdata().tolist() == pytest.approx([100 * k / 60 for k in range(2, 61)])
    other = [1 - float(metrics.accuracy(*one)) for one in pairs]
    assert ax.lines[0].get_ydata()[-1] == pytest.approx(100 * np.mean(other))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    assert same_color(ax.lines[1].get_color(), method_styles(["a", "b"])["b"]["color"])
    draw(ax)


def test_risk_leaves_out_tokens_without_a_label(ax):
    p, y = pair(40)
    tokens = torch.stack([p, p.flip(-1)], 1)
    labels = torch.stack([y, torch.full_like(y, -100)], 1)
    risk_coverage_curves(ax, {"tokens": [(tokens, labels)], "nothing": []}, legend=False)
    (line,) = ax.lines
    assert line.get_ydata().tolist() == pytest.approx((100 * metrics.risk_coverage(p, y)[1]).tolist())
    assert ax.get_legend() is None
    with pytest.raises(ValueError, match="not empty"):
        risk_coverage_curves(ax, {"none": [(p, torch.full_like(y, -1))]})


def test_entropy_histograms_are_shares(ax):
    inside, outside = torch.tensor([0.0, 0.01, 0.02, 1.0]), torch.tensor([[1.0, 1.09], [1.05, 1.0986]])
    assert entropy_histograms(ax, inside, {"far": outside, "$x{": inside}, classes=3) is ax
    test, far, third = ax.patches
    assert test.get_fill() and not far.get_fill()
    for patch, values in ((test, inside), (far, outside)):
        heights, edges = steps(patch)
        assert edges[0] == 0 and edges[-1] == pytest.approx(math.log(3))
        assert heights.sum() == pytest.approx(1)
        assert heights.tolist() == (np.histogram(values.numpy().ravel(), edges)[0] / values.numel()).tolist()
    assert steps(test)[0][0] == 0.75 and steps(far)[0][0] == 0  # planted: the sides are not exchanged
    assert not same_color(far.get_edgecolor(), third.get_edgecolor())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["test", "far", "$x{"]
    draw(ax)


def test_an_entropy_rounded_above_its_bound_is_counted(ax):
    entropy_histograms(ax, torch.tensor([math.log(2) + 1e-6]), {}, classes=2)
    assert steps(ax.patches[0])[0][-1] == 1
    other = Figure().subplots()
    entropy_histograms(other, torch.tensor([0.5, 2.0]), {}, legend=False)
    assert steps(other.patches[0])[1][-1] == 2.0
    zero = Figure().subplots()
    entropy_histograms(zero, torch.zeros(3), {"far": torch.zeros(2)})
    draw(zero)


def test_shift_curves_have_means_and_errors(ax):
    values = {"a": [[0.9, 0.5], [0.7, 0.1]], "one seed": [[0.8, 0.8]], "none": []}
    assert shift_curves(ax, values, "accuracy") is ax
    lines = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_linestyle() != "None"]
    assert [line.get_xydata().tolist() for line in lines] == [[[0, 0.8], [1, pytest.approx(0.3)]], [[0, 0.8], [1, 0.8]]]
    (bars,) = [container for container in ax.containers]
    segments = bars.lines[2][0].get_segments()
    error = np.std([0.5, 0.1], ddof=1) / 2**0.5
    assert segments[1][:, 1].tolist() == pytest.approx([0.3 - error, 0.3 + error])
    assert [tick for tick in ax.get_xticks()] == [0, 1]
    assert ax.get_ylabel() == "accuracy" and ax.get_xlabel() == "severity"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "one seed"]
    draw(ax)


def test_prior_and_posterior_are_densities(ax):
    generator = torch.Generator().manual_seed(0)
    after, before = 0.5 + 0.3 * torch.randn(4000, generator=generator), torch.randn(4000, generator=generator)
    assert prior_posterior(ax, after, before, color="#009e73") is ax
    filled, outline = ax.patches
    assert filled.get_fill() and not outline.get_fill()
    low = ax.get_xlim()[0]
    assert low == pytest.approx(float(before.quantile(0.01)), rel=1e-5)
    for patch, mean, sd in ((filled, 0.5, 0.3), (outline, 0.0, 1.0)):
        heights, edges = steps(patch)
        width, middle = edges[1] - edges[0], (edges[1:] + edges[:-1]) / 2
        expected = np.exp(-0.5 * ((middle - mean) / sd) ** 2) / (sd * (2 * math.pi) ** 0.5)
        # the standard error of a share of 4,000 draws, and the curvature within a bin
        error = np.sqrt(expected * width / 4000) / width + expected * (width / sd) ** 2 / 20 + 1e-9
        assert (np.abs(heights - expected) < 5 * error + 0.01).all()
        shifted = np.exp(-0.5 * ((middle - mean - sd / 2) / sd) ** 2) / (sd * (2 * math.pi) ** 0.5)
        assert (np.abs(heights - shifted) > 5 * error + 0.01).any()  # planted: half an sd off
    draw(ax)


def test_a_heavy_tailed_prior_does_not_squeeze_the_posterior(ax):
    generator = torch.Generator().manual_seed(0)
    after, before = 0.1 * torch.randn(1000, generator=generator), torch.randn(1000).cauchy_(generator=generator) * 100
    prior_posterior(ax, after, before)
    low, high = ax.get_xlim()
    assert high - low < 10.5 * float(after.quantile(0.99) - after.quantile(0.01))
    assert steps(ax.patches[0])[0].max() * (high - low) > 5  # several bins wide, not one


def test_a_flat_prior_is_not_drawn_and_a_point_has_a_place(ax):
    prior_posterior(ax, torch.randn(100))
    assert len(ax.patches) == 1
    other = Figure().subplots()
    prior_posterior(other, torch.full((10,), 2.0))
    low, high = other.get_xlim()
    assert low < 2 < high and high - low < 0.1
    draw(other)


@pytest.mark.parametrize("value", [0.1, 3e4])
def test_the_prior_of_a_point_estimate_stays_in_view(ax, value):
    before = value * torch.randn(1000, generator=torch.Generator().manual_seed(0)).exp()
    prior_posterior(ax, torch.full((128,), value), before)
    low, high = ax.get_xlim()
    assert low < value < high
    inside = ((before > low) & (before < high)).double().mean()
    assert inside > 0.05 and steps(ax.patches[1])[0].max() > 0
    draw(ax)


def test_padded_tokens_are_in_no_histogram():
    """A test set whose observed tokens are sure and whose padding is not: only the sure ones are drawn."""
    sure, unsure = torch.tensor([0.99, 0.005, 0.005]), torch.full((3,), 1 / 3)
    p = torch.stack([sure, sure, unsure, unsure]).expand(5, 4, 3)
    y = torch.tensor([0, 0, -100, -100]).expand(5, 4)
    predictions = {"test.probabilities": p, "test.labels": y, "far.probabilities": p}
    result = Result("a", 0, {}, {"test": {}, "far": {}}, [], predictions)
    assert _observed(result, "test").shape == (10, 3) and (_observed(result, "test") == sure).all()
    assert _observed(result, "far").shape == (20, 3)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "entropy_histograms", lambda ax, inside, outside, **_: seen.append((inside, outside)))
        figures.entropy_panels(Comparison("", "", [result]))
    ((inside, outside),) = seen
    assert len(inside) == 10 and float(inside.max()) < 0.1 < float(outside["far"].max())
