"""The parts of a report about attention: what predictions are unsure of, where heads look, and the viewer."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean

import torch
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ..results import Comparison
from ..viewer.data import SeenAttention
from ..viewer.moments import Layer
from ..viewer.page import render
from ..viewer.view import frame
from .columns import is_number, is_severity
from .plots.attention import attention_map, head_bars
from .plots.prior_predictive import attention_entropies
from .plots.style import MUTED
from .plots.uncertainty import PART_COLORS, uncertainty_bars
from .svg import Panel, figure, to_svg

VIEWER_HEIGHT = 900
MEASURES = {"entropy": "entropy (nats)", "variance": "variance"}
MAPS = 1
"""Inputs whose attention is drawn in full."""
MOST_HEADS, MOST_LAYERS = 8, 6


@dataclass(frozen=True)
class Attention:
    """What the report shows of a method's attention: a few bars, the matrices of one input, and the viewer."""

    method: str
    caption: str
    bars: list[Panel]
    maps: list[Panel]
    viewer: Markup


def uncertainty_panels(comparison: Comparison) -> list[Panel]:
    """For each method with random rows, the parts of the mean uncertainty by set, as means over its seeds."""
    panels = []
    for method in comparison.methods:
        for measure, label in MEASURES.items():
            keys = {part: f"{part}_{measure}" for part in PART_COLORS}
            by_set = {}
            for name in comparison.sets():
                found = [result.metrics.get(name) or {} for result in comparison.of(method)]
                whole = [each for each in found if all(is_number(each.get(key)) for key in keys.values())]
                if whole and not is_severity(name):
                    by_set[name] = {part: mean(each[key] for each in whole) for part, key in keys.items()}
            if by_set:
                made, (ax,) = figure(3.1, 0.6 + 0.3 * len(by_set))
                uncertainty_bars(ax, by_set, label)
                panels.append(Panel(method, to_svg(made, f"parts of the {measure} of {method}")))
    return panels


def attention_parts(comparison: Comparison) -> list[Attention]:
    """What was seen of the attention of each method, by its first seed that has it."""
    found = []
    for method in comparison.methods:
        result = next((result for result in comparison.of(method) if result.attention is not None), None)
        if result is None or result.attention is None or not result.attention.layers:
            continue
        seen = result.attention
        caption = f"seed {result.seed}, {len(seen)} test examples, {seen.num_samples} draws"
        page = render(seen, f"Attention: {method}", caption)
        viewer = frame(page, f"Attention of {method}", VIEWER_HEIGHT)
        maps = _maps(seen, method) if any(layer.random for layer in seen.layers) else []  # others: the viewer has them
        found.append(Attention(method, caption, _bars(seen, method), maps, viewer))
    return found


def _bars(seen: SeenAttention, method: str) -> list[Panel]:
    made, (ax,) = figure(3.1, 1.9)
    relative = {layer.name: layer.relative.nan_to_num().tolist() for layer in seen.layers}
    attention_entropies(ax, relative)
    panels = [Panel("Entropy of drawn rows", to_svg(made, f"attention entropy of {method}"))]
    for quantity in dict.fromkeys(name for layer in seen.layers for name in layer.learned or {}):
        values = {layer.name: layer.learned[quantity] for layer in seen.layers if quantity in (layer.learned or {})}  # type: ignore[index]
        made, (ax,) = figure(3.1, 1.9)
        head_bars(ax, values, quantity)
        panels.append(Panel(f"Learned {quantity}", to_svg(made, f"learned {quantity} of {method}")))
    return panels


def _maps(seen: SeenAttention, method: str) -> list[Panel]:
    panels = []
    layers = [layer for layer in seen.layers if layer.mean.shape[-2:] > torch.Size((1, 1))][:MOST_LAYERS]
    for index in range(min(MAPS, len(seen)) if layers else 0):
        for kind, name in (("mean", "Mean attention"), ("sd", "Standard deviation of attention")):
            svg = to_svg(_grid(layers, index, kind), f"{kind} of attention of {method} on input {index}")
            panels.append(Panel(f"{name}, test example {index}, each head up to the entry told above it", svg))
    return panels


def _grid(layers: list[Layer], index: int, kind: str) -> Figure:
    heads = min(MOST_HEADS, max(layer.mean.shape[1] for layer in layers))
    made = Figure(figsize=(0.95 * max(heads, 3), 1.08 * len(layers) + 0.05), layout=ConstrainedLayoutEngine())
    axes = made.subplots(len(layers), heads, squeeze=False)
    for row, layer in zip(axes, layers, strict=True):
        values = getattr(layer, kind)[index]
        for head, ax in enumerate(row):
            if head < len(values):
                attention_map(ax, values[head], kind=kind)
            else:
                ax.set_visible(False)
        row[0].set_ylabel(layer.name.removesuffix(".attention"), fontsize=7.5, color=MUTED, parse_math=False)
    return made
