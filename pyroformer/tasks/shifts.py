"""Corruptions of images at five severities, to see how predictions fail as inputs move away from the training set."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

ShiftKind = Literal["noise", "blur", "rotation", "contrast", "occlusion"]
SEVERITIES = (1, 2, 3, 4, 5)


def add_noise(x: Tensor, sd: float, generator: torch.Generator) -> Tensor:
    r"""Normal noise on every pixel, :math:`x + s\,\varepsilon`; values may leave [0, 1].

    Args:
        x: Images ``[N, (C,) H, W]``.
        sd: :math:`s`, of a pixel range of 1.
        generator: Of the noise.
    """
    return x + sd * torch.randn(x.shape, generator=generator, dtype=x.dtype)


def blur(x: Tensor, sd: float, generator: torch.Generator | None = None) -> Tensor:
    r"""Gaussian blur, with the kernel integrated over each pixel and the border repeated.

    .. math:: k_i \propto \Phi((i + 1/2) / s) - \Phi((i - 1/2) / s)

    Args:
        x: Images ``[N, (C,) H, W]``.
        sd: :math:`s`, relative to the shorter side.
        generator: Not used.
    """
    if not sd:
        return x
    pixels = sd * min(x.shape[-2:])
    reach = math.ceil(4 * pixels)
    edges = (torch.arange(-reach, reach + 2, dtype=torch.float64) - 0.5) / pixels
    kernel = torch.special.ndtr(edges).diff()
    kernel = (kernel / kernel.sum()).to(x.dtype)
    flat = F.pad(x.reshape(-1, 1, *x.shape[-2:]), (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(flat, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1)).reshape(x.shape)


def rotate(x: Tensor, degrees: Tensor) -> Tensor:
    """Each image turned counter-clockwise about its middle, bilinear, with 0 beyond the border.

    Args:
        x: Images ``[N, (C,) H, W]``.
        degrees: ``[N]``.
    """
    height, width = x.shape[-2:]
    turn = torch.deg2rad(degrees.to(torch.float64))
    cos, sin, none = turn.cos(), turn.sin(), torch.zeros_like(turn)
    rows = [torch.stack([cos, -sin * height / width, none], -1), torch.stack([sin * width / height, cos, none], -1)]
    images = x.reshape(len(x), -1, height, width)
    grid = F.affine_grid(torch.stack(rows, 1).to(x.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False).reshape(x.shape)


def rotate_either_way(x: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """`rotate` by the same angle for all images, each to the left or to the right at random."""
    way = torch.randint(2, (len(x),), generator=generator) * 2 - 1
    return rotate(x, degrees * way) if degrees else x


def reduce_contrast(x: Tensor, factor: float, generator: torch.Generator | None = None) -> Tensor:
    r"""Each image moved towards its mean, :math:`\bar x + f (x - \bar x)`.

    Args:
        x: Images ``[N, (C,) H, W]``.
        factor: :math:`f`, 1 for no change.
        generator: Not used.
    """
    mean = x.flatten(1).mean(1).view(-1, *[1] * (x.dim() - 1))
    return mean + factor * (x - mean) if factor != 1 else x


def occlude(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    r"""A grey rectangle (0.5) of the image's proportions at a random place inside it.

    The rectangle need not end between pixels: a pixel of which it covers the part :math:`c` becomes
    :math:`(1 - c)\,x + c/2`, so the covered area is exact for small images too.

    Args:
        x: Images ``[N, (C,) H, W]``.
        share: Of the area that is covered, from 0 to 1.
        generator: Of the places.
    """
    place = torch.rand(2, len(x), generator=generator, dtype=torch.float64)
    part = math.sqrt(share)

    def covered(side: int, start: Tensor) -> Tensor:
        first = (start * side * (1 - part)).unsqueeze(1)
        pixel = torch.arange(side, dtype=torch.float64)
        return (torch.minimum(pixel + 1, first + part * side) - torch.maximum(pixel, first)).clamp(0, 1)

    rows, columns = covered(x.shape[-2], place[0]), covered(x.shape[-1], place[1])
    cover = (rows.unsqueeze(2) * columns.unsqueeze(1)).to(x.dtype)
    if x.dim() == 4:
        cover = cover.unsqueeze(1)
    return x + cover * (0.5 - x)


@dataclass(frozen=True)
class Corruption:
    """A way to change images, and by how much at each severity.

    Args:
        change: ``(x, amount, generator)`` to images of the same shape.
        unit: Of the amounts.
        amounts: At severities 1 to 5.
    """

    change: Callable[[Tensor, float, torch.Generator], Tensor]
    unit: str
    amounts: tuple[float, float, float, float, float]


CORRUPTIONS: dict[str, Corruption] = {
    "noise": Corruption(add_noise, "sd, of a pixel range of 1", (0.1, 0.2, 0.3, 0.4, 0.5)),
    "blur": Corruption(blur, "sd, relative to the shorter side", (0.03, 0.05, 0.07, 0.1, 0.14)),
    "rotation": Corruption(rotate_either_way, "degrees", (15, 30, 45, 60, 75)),
    "contrast": Corruption(reduce_contrast, "factor", (0.75, 0.5, 0.35, 0.2, 0.1)),
    "occlusion": Corruption(occlude, "share of the area", (0.05, 0.1, 0.2, 0.3, 0.4)),
}


@dataclass(frozen=True)
class Shift:
    """One corruption at one severity: a function of images.

    The kinds are an idea of the reference; the five amounts of each (`CORRUPTIONS`) are our own.

    Args:
        kind: ``noise``, ``blur``, ``rotation``, ``contrast`` or ``occlusion``.
        severity: 1 to 5; 0 changes nothing.

    Reference:
        Hendrycks and Dietterich, 2019, "Benchmarking neural network robustness to common corruptions and
        perturbations", arXiv 1903.12261.
    """

    kind: ShiftKind
    severity: int

    def __post_init__(self) -> None:
        if self.kind not in CORRUPTIONS or self.severity not in (0, *SEVERITIES):
            raise ValueError(f"{self.name}: expected one of {', '.join(CORRUPTIONS)}, and a severity from 0 to 5")

    @property
    def name(self) -> str:
        """As sets are called: ``noise-3``."""
        return f"{self.kind}-{self.severity}"

    @property
    def amount(self) -> float | None:
        """How much is changed, in the corruption's unit; None at severity 0."""
        return CORRUPTIONS[self.kind].amounts[self.severity - 1] if self.severity else None

    def __call__(self, x: Tensor, seed: int = 0) -> Tensor:
        """Images ``[N, (C,) H, W]``, changed; severities of one kind share their random numbers.

        Args:
            x: Images, pixels in [0, 1].
            seed: Of the noise, the ways and the places; the global random state is left alone.
        """
        if self.amount is None:
            return x
        kind = zlib.crc32(self.kind.encode())  # kinds must not share the numbers that severities do
        generator = torch.Generator().manual_seed((kind << 32) + seed)
        return CORRUPTIONS[self.kind].change(x, self.amount, generator)
