"""What was seen of attention, in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..inference.files import read_tensors_and_content, write_tensors
from .data import SeenAttention
from .moments import Layer

OWN = ("mean", "low", "high", "parts")
ROWS = ("mean", "sd", "entropy", "keys")


def write_seen(seen: SeenAttention, path: Path) -> None:
    """Write what was seen as safetensors, rows in half precision."""
    tensors = {"x": seen.x, **{name: getattr(seen, name) for name in OWN}}
    if seen.y is not None:
        tensors["y"] = seen.y
    layers: list[dict[str, Any]] = []
    for index, layer in enumerate(seen.layers):
        layers.append({"name": layer.name, "random": layer.random, "learned": layer.learned})
        for name in ROWS:
            values = getattr(layer, name)
            tensors[f"{index}.{name}"] = values.half() if name in ("mean", "sd") else values
    content = {"measure": seen.measure, "num_samples": seen.num_samples, "shown": seen.shown, "layers": layers}
    write_tensors(path, tensors, content)


def read_seen(path: Path) -> SeenAttention | None:
    """Read what `write_seen` wrote; None where there is no file.

    Raises:
        ValueError: It is damaged.
    """
    if not path.is_file():
        return None
    tensors, content = read_tensors_and_content(path)
    layers = []
    for index, layer in enumerate(content["layers"]):
        found = {name: tensors[f"{index}.{name}"] for name in ROWS}
        found = {name: v.float() if v.dtype == torch.float16 else v for name, v in found.items()}
        learned = layer["learned"] and {name: tuple(values) for name, values in layer["learned"].items()}
        layers.append(Layer(layer["name"], **found, random=layer["random"], learned=learned))
    own: dict[str, Any] = {name: tensors[name] for name in OWN}
    told: dict[str, Any] = {name: content[name] for name in ("measure", "num_samples", "shown")}
    return SeenAttention(tuple(layers), tensors["x"], tensors.get("y"), **own, **told)
