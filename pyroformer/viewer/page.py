"""The viewer as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import json
from importlib.resources import files
from typing import Any

import torch
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from .data import SeenAttention

LEVELS = 255
MOST_CLASSES = 12
"""How many classes a page keeps of a prediction, the most probable ones; the label is kept besides."""
PADDING = "[padding]"
"""What the viewer calls the padding of a text."""


def packed(values: Tensor) -> dict[str, Any]:
    r"""Numbers of at least 0 as one byte each, finer where they are small: :math:`v = \max(v)\,(b/255)^2`.

    Returns:
        ``most``, and ``bytes`` in base64, in the order of the values.
    """
    most = float(values.max()) if values.numel() else 0.0
    bytes_ = (values / (most or 1.0)).clamp(0, 1).sqrt().mul(LEVELS).round().to(torch.uint8)
    return {"most": most, "bytes": base64.b64encode(bytes_.contiguous().numpy().tobytes()).decode("ascii")}


def page_data(seen: SeenAttention) -> dict[str, Any]:
    """What the page knows, as plain data."""
    return {
        "measure": seen.measure,
        "samples": seen.num_samples,
        "shown": {**{key: value for key, value in seen.shown.items() if key != "words"}, **_inputs(seen)},
        "layers": [
            {
                "name": layer.name,
                "shape": list(layer.mean.shape[1:]),
                "random": layer.random,
                "learned": {name: _rounded(torch.tensor(v)) for name, v in (layer.learned or {}).items()},
                "mean": packed(layer.mean),
                "sd": packed(layer.sd),
                "entropy": _rounded(layer.entropy, 3),
                "mean_entropy": _rounded(layer.mean_entropy, 3),
                "keys": layer.keys.tolist(),
            }
            for layer in seen.layers
        ],
        "truth": None if seen.y is None else _rounded(seen.y),
        "prediction": _prediction(seen),
        "parts": _rounded(seen.parts.movedim(0, -1), 5),
    }


def _prediction(seen: SeenAttention) -> dict[str, Any]:
    """The prediction and its spread; of many classes the most probable ones and the label, and which these are."""
    kept = {name: getattr(seen, name) for name in ("mean", "low", "high")}
    if seen.measure != "entropy" or seen.mean.shape[-1] <= MOST_CLASSES:
        return {name: _rounded(values) for name, values in kept.items()}
    chosen = seen.mean.topk(MOST_CLASSES, -1).indices
    if seen.y is not None:
        label = seen.y.long().clamp(min=0).unsqueeze(-1)
        label = torch.where(seen.y.unsqueeze(-1) < 0, chosen[..., :1], label)
        there = (chosen == label).any(-1, keepdim=True)
        extra = torch.where(there, -1, label)  # no class where the label is among the others
        chosen = torch.cat([chosen, extra], -1)
    found: dict[str, Any] = {name: _rounded(v.gather(-1, chosen.clamp(min=0))) for name, v in kept.items()}
    return {**found, "classes": chosen.tolist()}


def _inputs(seen: SeenAttention) -> dict[str, Any]:
    """The inputs as they are shown: pixels as bytes, words or numbers of tokens, or numbers."""
    kind, x = seen.shown.get("kind"), seen.x
    if kind == "image":
        pixels = x.reshape(len(x), -1, seen.shown["height"], seen.shown["width"]).float()
        pixels = pixels if pixels.shape[1] == 3 else pixels.mean(1, keepdim=True)
        low = pixels.amin((1, 2, 3), keepdim=True)
        span = (pixels.amax((1, 2, 3), keepdim=True) - low).clamp(min=1e-9)
        scaled = ((pixels - low) / span).mul(255).round().to(torch.uint8)
        return {"channels": pixels.shape[1], "pixels": base64.b64encode(scaled.numpy().tobytes()).decode("ascii")}
    if kind == "tokens":
        words = dict(enumerate(seen.shown.get("words") or ()))
        tokens = [[words.get(t, str(t)) for t in example] for example in x.tolist()]
        return {"tokens": tokens, "padding": PADDING}
    return {"values": _rounded(x)} if x.dim() <= 3 else {}


def _rounded(values: Tensor, digits: int = 4) -> Any:
    """Numbers with few digits, as nested lists; what is not finite as null."""
    if not values.is_floating_point():
        return values.tolist()

    def plain(content: Any) -> Any:
        if isinstance(content, list):
            return [plain(each) for each in content]
        return float(f"{content:.{digits}g}") if content - content == 0 else None

    return plain(values.double().tolist())


def render(seen: SeenAttention, title: str = "Attention", note: str = "") -> str:
    """The text of the page.

    Args:
        seen: From `see_attention`.
        title, note: Shown as plain text.
    """
    folder = files(__package__)
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = page.from_string(folder.joinpath("viewer.html.j2").read_text(encoding="utf-8"))
    data = json.dumps(page_data(seen), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return template.render(
        title=title,
        note=note,
        data=Markup(data),
        style=Markup(folder.joinpath("viewer.css").read_text(encoding="utf-8")),
        script=Markup(folder.joinpath("viewer.js").read_text(encoding="utf-8")),
    )
