"""Which entries of a weight share a scale."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .base import Site

Sharing = Literal["site", "input", "unit", "entry"]
"""One scale for the whole weight, for each of its inputs, for each of its output units, or for each entry.

The inputs of a matrix are its columns, those of a table its rows, for a token meets one row. A vector belongs to one
input, the constant 1, and has one entry a unit.
"""


def _axes(site: Site, per: Sharing) -> tuple[int, ...]:
    """The axes of the weight along which the scales differ."""
    axes = tuple(range(site.value.dim()))
    if per == "site":
        return ()
    if per == "entry":
        return axes
    if len(axes) < 2:
        return axes if per == "unit" else ()
    return (site.input_axis if per == "input" else 1 - site.input_axis,)


def scales_like(site: Site, per: Sharing) -> Tensor:
    """Zeros in the shape of the scales, on the device and in the dtype of the weight: ``[]``, ``[D]`` or ``[*W]``."""
    return site.value.new_zeros([site.value.shape[axis] for axis in _axes(site, per)])


def spread(scales: Tensor, site: Site, per: Sharing) -> Tensor:
    """Scales ``[..., *scales]`` with axes of length 1 where entries share one, broadcastable to ``[..., *W]``."""
    axes = _axes(site, per)
    lead = scales.shape[: scales.dim() - len(axes)]
    return scales.reshape(lead + torch.Size(n if axis in axes else 1 for axis, n in enumerate(site.value.shape)))
