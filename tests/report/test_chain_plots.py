"""Plots of chains draw what the numbers say, and the report has them with the verdict."""

from dataclasses import replace

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pyroformer.inference.diagnostics import Finding, Verdict, autocorrelation
from pyroformer.report import autocorrelation_lines, energy_histograms, rank_lines, trace_lines
from pyroformer.report.chains import chain_parts
from pyroformer.report.html import render
from pyroformer.results import Comparison
from pyroformer.seen_chains import SeenChains


@pytest.fixture
def ax():
    return Figure(figsize=(3.1, 1.9)).subplots()


def draw(ax):
    FigureCanvasAgg(ax.figure).draw()


def chains(memory=0.0, shape=(4, 200)):
    noise = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t in range(1, shape[1]):
        noise[:, t] += memory * noise[:, t - 1]
    return noise


def test_traces_are_the_draws_and_ticks_the_divergences(ax):
    values, divergent = chains(), torch.zeros(4, 200, dtype=torch.bool)
    divergent[1, 4] = divergent[3, 4] = divergent[0, 90] = True
    assert trace_lines(ax, values, "nats", divergent=divergent) is ax
    assert [line.get_ydata().tolist() for line in ax.lines] == values.tolist()
    (ticks,) = ax.collections
    assert [segment[0][0] for segment in ticks.get_segments()] == [5, 91]
    assert ax.get_ylim()[0] < float(values.min())
    draw(ax)


def test_ranks_are_flat_where_chains_agree_and_slope_where_they_do_not(ax):
    values = chains()
    assert rank_lines(ax, values) is ax
    heights = [patch.get_data().values for patch in ax.patches if hasattr(patch, "get_data")]
    assert len(heights) == 4 and all(h.mean() == pytest.approx(1.0) for h in heights)
    assert max(abs(h - 1).max() for h in heights) < 0.6
    apart = values.clone()
    apart[2] += 3
    other = Figure().subplots()
    rank_lines(other, apart)
    third = [patch.get_data().values for patch in other.patches if hasattr(patch, "get_data")][2]
    assert third[0] == 0 and third[-1] > 2.5
    draw(ax)


def test_energies_stand_beside_their_changes(ax):
    assert energy_histograms(ax, 100 + chains(0.95)) is ax
    spread = []
    for patch in ax.patches:
        values, edges, _ = patch.get_data()
        centers = (edges[1:] + edges[:-1]) / 2
        spread.append(((values * centers**2).sum() / values.sum()) ** 0.5)
    assert spread[1] < 0.5 * spread[0]  # slow: a change is little of the spread
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["energy", "change"]
    draw(ax)


def test_correlations_are_those_of_the_chains(ax):
    values = {"a_$": chains(0.9), "b": chains(), "constant": torch.ones(4, 200)}
    assert autocorrelation_lines(ax, values) is ax
    assert ax.lines[0].get_ydata()[:5].tolist() == pytest.approx(autocorrelation(values["a_$"])[:5].tolist())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a_$", "b"]
    assert 10 < ax.get_xlim()[1] <= 100
    draw(ax)


def seen(level="caution"):
    said = Verdict((Finding(level, "divergences", "3 of 800 transitions <diverged>", "a higher target_accept"),))
    divergent = torch.zeros(4, 200, dtype=torch.bool)
    divergent[0, 3] = True
    traces = {"log_likelihood": chains(), "norm[<head>]": chains(0.9)}
    return SeenChains(traces, 100 + chains(0.5), divergent, said.to_dict())


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made but not drawn: that is most of the work of a page."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, file, **settings: file.write("<svg></svg>"))


def test_the_report_has_chains_with_their_verdict(class_result, undrawn):
    whole = class_result("ML", 0, size=40)
    comparison = Comparison("c", "", [whole, replace(whole, method="nuts", chains=seen())])
    (part,) = chain_parts(comparison)
    assert part.method == "nuts" and part.caption == "seed 0, 4 chains of 200 draws"
    names = [panel.method for panel in part.panels]
    assert names == [
        "Trace: log-likelihood",
        "Ranks: log-likelihood",
        "Trace: norm[<head>]",
        "Ranks: norm[<head>]",
        "Energy",
        "Autocorrelation",
    ]
    page = render(comparison)
    assert "<h2>Chains</h2>" in page and "These chains are to be used with care: 3 of 800" in page
    assert "transitions &lt;diverged&gt;" in page and "<diverged>" not in page and "norm[<head>]" not in page
    assert "<h2>Chains</h2>" not in render(Comparison("c", "", [whole]))


def test_chains_without_a_finite_draw_break_nothing(class_result, undrawn):
    broken = replace(seen("bad"), traces={"log_likelihood": chains() * torch.nan}, energy=chains() * torch.nan)
    whole = replace(class_result("ML", 0, size=40), chains=broken)
    assert "not to be relied upon" in render(Comparison("c", "", [whole]))
    bare = replace(whole, chains=SeenChains({}, None, None, Verdict(()).to_dict()))
    assert "Nothing speaks against these chains." in render(Comparison("c", "", [bare]))
