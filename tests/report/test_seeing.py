"""Attention and the parts of the uncertainty in a report."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from pyroformer.report.html import render
from pyroformer.report.plots.attention import attention_map, head_bars
from pyroformer.report.plots.uncertainty import uncertainty_bars
from pyroformer.report.seeing import attention_parts, uncertainty_panels
from pyroformer.results import Comparison
from pyroformer.viewer import Layer, SeenAttention


def seen(inputs=3, layers=2, heads=2, tokens=4):
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(inputs, heads, tokens, tokens, generator=generator).softmax(-1)
    entropy, keys = torch.special.entr(rows).sum(-1), torch.full((inputs, tokens), tokens)
    names = [f"blocks.{index}.attention" for index in range(layers)]
    made = tuple(Layer(name, rows, rows / 3, entropy, keys, True, {"sharpness": (5.0, 9.0)}) for name in names)
    p = torch.rand(inputs, 3, generator=generator).softmax(-1)
    shown = {"kind": "image", "height": 4, "width": 4, "patch": 2}
    parts = torch.rand(3, inputs, generator=generator)
    return SeenAttention(made, torch.rand(inputs, 4, 4), torch.arange(inputs), p, p, p, parts, "entropy", 8, shown)


@pytest.fixture
def comparison(class_result):
    results = []
    for seed in range(2):
        result = class_result("Dirichlet rows, KL weight 0", seed)
        parts = {"data_entropy": 0.3 + seed, "rows_entropy": 0.1, "weights_entropy": 0.2}
        found = {
            name: {**values, **parts} if name in ("test", "noisy") else values
            for name, values in result.metrics.items()
        }
        results.append(replace(result, metrics=found, attention=seen()))
    return Comparison("rows", "", [*results, class_result("ML", 0)])


def test_bars_are_stacked_in_their_order():
    ax = uncertainty_bars(
        Figure().subplots(),
        {"test": {"data": 0.5, "rows": 0.1, "weights": 0.2}, "a_$b": {"data": 1.0, "rows": 0.0, "weights": 0.3}},
    )
    by_part = [[(bar.get_x(), bar.get_width()) for bar in bars] for bars in ax.containers]
    assert np.allclose(by_part, [[(0, 0.5), (0, 1.0)], [(0.5, 0.1), (1.0, 0.0)], [(0.6, 0.2), (1.0, 0.3)]])
    assert [text.get_text() for text in ax.get_yticklabels()] == ["test", "a_$b"]
    assert ax.get_xlim()[1] == pytest.approx(1.3 * 1.02)


def test_maps_reach_to_their_largest_entry():
    values = torch.tensor([[0.1, 0.3], [0.25, 0.0]])
    ax = attention_map(Figure().subplots(), values, kind="sd", title="head 1")
    (image,) = ax.images
    assert np.allclose(image.get_array(), values) and image.get_clim() == (0, pytest.approx(0.3))
    assert ax.get_title() == "head 1 0.3"
    attention_map(Figure().subplots(), torch.zeros(2, 2))  # no spread at all
    bars = head_bars(Figure().subplots(), {"a": (5.0, 9.0), "b": (7.0,)}, "sharpness")
    assert [bar.get_height() for bars in bars.containers for bar in bars] == [5.0, 9.0, 7.0]


def test_parts_are_means_over_seeds(comparison, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "pyroformer.report.seeing.uncertainty_bars", lambda ax, parts, label: drawn.append((parts, label))
    )
    (panel,) = uncertainty_panels(comparison)
    assert panel.method == "Dirichlet rows, KL weight 0"
    ((parts, label),) = drawn
    assert label == "entropy (nats)" and list(parts) == ["test", "noisy"]
    assert parts["test"] == pytest.approx({"data": 0.8, "rows": 0.1, "weights": 0.2})


def test_a_report_shows_them_where_they_are(comparison, class_result):
    (one,) = attention_parts(comparison)
    assert one.method == "Dirichlet rows, KL weight 0" and "seed 0" in one.caption
    assert [panel.method for panel in one.bars] == ["Entropy of drawn rows", "Learned sharpness"]
    assert len(one.maps) == 2
    page = render(comparison)
    assert "What predictions are unsure of" in page and page.count("<iframe") == 1
    assert not re.search(r"https?://", page)
    assert len(re.findall(r'aria-label="(?:mean|sd) of attention', page)) == 2
    bare = render(Comparison("none", "", [class_result("ML", 0)]))
    assert "What predictions are unsure of" not in bare and "<iframe" not in bare and "<h2>Attention" not in bare
