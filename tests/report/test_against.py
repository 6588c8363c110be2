"""Differences from a baseline are those of the same seeds, and are called noise when they may be."""

import math

import pytest
import torch

from pyroformer.report import reading, write_html
from pyroformer.report.against import Difference, differences, standings
from pyroformer.report.plots import difference_lines
from pyroformer.report.svg import figure
from pyroformer.results import Comparison, Result

SEEDS = (0.10, 0.40, 0.90)  # the seeds differ far more than the methods


def compared(gaps, baselines=("base",)):
    """Methods whose test NLL is the baseline's plus a gap by seed; of another set it is minus the gap."""
    values = {"base": (0.0, 0.0, 0.0), **gaps}
    results = [
        Result(method, seed, {}, {"test": {"nll": SEEDS[seed] + gap}, "noisy": {"nll": SEEDS[seed] - gap}}, [], {})
        for method, by_seed in values.items()
        for seed, gap in enumerate(by_seed)
    ]
    return Comparison("", "", results, baselines=tuple(baselines))


def test_seeds_are_paired():
    found = differences(compared({"a": (0.01, 0.02, 0.03)}), "base", "test")
    assert set(found) == {"a"}
    assert found["a"].mean == pytest.approx(0.02) and found["a"].standard_error == pytest.approx(0.01 / math.sqrt(3))
    independent = math.hypot(*(2 * [0.404 / math.sqrt(3)]))  # planted: the error of two independent means
    assert found["a"].standard_error < 0.05 * independent


def test_seeds_that_only_one_of_them_has_are_left_out():
    comparison = compared({"a": (0.01, 0.02, 0.03)})
    results = [result for result in comparison.results if (result.method, result.seed) != ("base", 2)]
    found = differences(Comparison("", "", results), "base", "test")
    assert found["a"].count == 2 and found["a"].mean == pytest.approx(0.015)


@pytest.mark.parametrize(("count", "errors"), [(2, 12.71), (3, 4.30), (5, 2.78), (10, 2.26)])
def test_more_than_noise_depends_on_the_number_of_seeds(count, errors):
    assert Difference(0.0, 1.0, count).half_width == pytest.approx(errors, abs=0.005)
    assert Difference(-errors - 0.01, 1.0, count).told and not Difference(errors - 0.01, 1.0, count).told


def test_five_in_a_hundred_differences_of_nothing_are_told():
    gaps = torch.randn(3000, 3, generator=torch.Generator().manual_seed(0)).double()
    means, errors = gaps.mean(1), gaps.std(1) / 3**0.5
    told = sum(Difference(float(m), float(e), 3).told for m, e in zip(means, errors, strict=True)) / 3000
    noise = (0.05 * 0.95 / 3000) ** 0.5
    assert abs(told - 0.05) < 5 * noise
    assert float((means.abs() > 2 * errors).double().mean()) - 0.05 > 5 * noise  # planted: 2 standard errors


def test_the_bars_are_the_intervals():
    ax = figure(2, 2)[1][0]
    difference_lines(ax, {"near": (0.3, 0.43), "far": (0.5, 0.43)}, "")
    near, far = (line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 1.1)
    assert list(near) == pytest.approx([-0.13, 0.73]) and list(far) == pytest.approx([0.07, 0.93])
    marks = [line.get_markerfacecolor() for line in ax.lines if line.get_marker() == "o"]
    assert marks[0] == "none" and marks[1] != "none"


def test_who_is_lower_higher_and_not_told_apart():
    gaps = {"worse": (0.02, 0.021, 0.022), "same": (0.02, -0.02, 0.01), "better": (-0.02, -0.021, -0.022)}
    test, noisy = standings(compared(gaps))
    assert (list(test.lower), list(test.near), list(test.higher)) == (["better"], ["same"], ["worse"])
    assert (list(noisy.lower), list(noisy.higher)) == (["worse"], ["better"])
    assert list(test.differences) == ["better", "same", "worse"]
    lower, higher, near = test.sentences()
    assert lower == "Lower by more than noise: “better” (−0.021 ± 0.001)."
    assert higher == "Higher by more than noise: “worse” (+0.021 ± 0.001)." and near == "Not told apart: “same”."
    said = "Against “base”, seed by seed, by test NLL: 1 lower by more than noise, 1 higher, 1 not told apart."
    assert said in reading(compared(gaps))


def test_one_seed_stands_nowhere():
    assert standings(compared({"a": (0.5,)})) == []


def test_without_baselines_nothing_is_said(tmp_path):
    comparison = compared({"a": (0.1, 0.1, 0.2)}, baselines=())
    assert standings(comparison) == []
    write_html(comparison, tmp_path / "report.html")
    assert "Against the baselines" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_shows_each_baseline(tmp_path):
    gaps = {"a $x$ <b>": (0.1, 0.11, 0.12), "far": (50.0, 51.0, 52.0)}
    write_html(compared(gaps, ("base", "far")), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>Against the baselines</h2>" in page and "<h3>base</h3>" in page and "<h3>far</h3>" in page
    assert 'aria-label="test NLL less that of base"' in page
    assert "a $x$ &lt;b&gt;" in page and "a $x$ <b>" not in page
