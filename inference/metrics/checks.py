"""What metrics accept, and what they say of the rest."""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = 1e-3
"""How far from 1 probabilities may sum, and how far below 0 a mutual information may round."""


def refuse(name: str, x: Tensor, bad: Tensor, accepted: str) -> None:
    if bad.any():
        raise ValueError(f"{name} of shape {list(x.shape)} holds {x[bad][0].item():.6g}: expected {accepted}")


def real(name: str, x: Tensor, shape: str | torch.Size, infinite: bool = False) -> Tensor:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise ValueError(f"{name} is {x.dtype if isinstance(x, Tensor) else repr(x)}: expected a floating-point tensor")
    expected = shape if isinstance(shape, str) else str(list(shape))
    fits = shape == "[...]" or x.dim() in [part.count(",") + 1 for part in expected.split(" or ")]
    if x.numel() == 0 or not fits or (isinstance(shape, torch.Size) and x.shape != shape):
        raise ValueError(f"{name} has shape {list(x.shape)}: expected {expected}, not empty")
    refuse(name, x, x.isnan() if infinite else ~x.isfinite(), "numbers, not NaN" if infinite else "finite numbers")
    return x.double()


def simplex(name: str, x: Tensor, shape: str, dim: int = -1) -> Tensor:
    p = real(name, x, shape)
    if not -p.dim() <= dim < p.dim():
        raise ValueError(f"dim is {dim}: expected an axis of {name}, which has shape {list(p.shape)}")
    refuse(name, p, p < 0, "probabilities, 0 or more")
    total = p.sum(dim)
    refuse(f"sum of {name} over classes", total, (total - 1).abs() > TOLERANCE, f"1 within {TOLERANCE}")
    return p


def classified(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    p = simplex("probabilities", probabilities, "[N, C]")
    if not isinstance(labels, Tensor) or labels.dtype not in (torch.int64, torch.int32) or labels.shape != p.shape[:1]:
        got = f"{labels.dtype} of shape {list(labels.shape)}" if isinstance(labels, Tensor) else repr(labels)
        raise ValueError(f"labels is {got}: expected int64 or int32 of shape {list(p.shape[:1])}, one for each row")
    refuse("labels", labels, (labels < 0) | (labels >= p.shape[1]), f"0 to {p.shape[1] - 1}")
    return p, labels.long()
