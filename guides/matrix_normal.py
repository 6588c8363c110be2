"""Matrix normal posterior: one covariance over the rows of a weight and one over its columns."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..priors import SettingError
from ..priors.settings import check_count, check_option, check_positive
from .family import LatentSite
from .joint import JointFamily
from .normal_priors import HALF_LOG_2PI
from .triangular import count_below, unit_lower


class MatrixNormal(JointFamily):
    r"""A matrix normal distribution for each site, independent of the other sites.

    .. math:: q(W) = \mathcal{MN}(W \mid M, U, V), \qquad
              \mathrm{cov}(W_{ij}, W_{kl}) = U_{ik} V_{jl}, \qquad U = A A^\top, \; V = B B^\top

    :math:`A` is :math:`n \times n` and :math:`B` is :math:`p \times p` for a weight of :math:`n` rows (outputs) and
    :math:`p` columns (inputs). Entropy and KL to normal and flat priors are closed forms:

    .. math:: H = p \ln |A| + n \ln |B| + \tfrac{np}{2} \ln 2\pi e

    A vector is one row, so with full factors it has a full covariance; what has more than two axes is read as a matrix
    with the first one for rows.

    Args:
        structure: ``full`` (default): :math:`A` and :math:`B` are lower triangles; ``diagonal``: they are diagonal, as
            in the source.
        init_scale: The standard deviation of every entry at the start, above 0, default 1e-2; :math:`M` starts at the
            model's own values.
        max_size: The largest side that may have a full factor, a whole number of at least 1, default 2000.

    Raises:
        SettingError: A setting is out of range, or a side is larger than ``max_size``.

    Reference:
        Louizos and Welling, 2016, "Structured and efficient variational deep learning with matrix Gaussian
        posteriors"; full factors are our own.
    """

    def __init__(
        self, *, structure: Literal["full", "diagonal"] = "full", init_scale: float = 1e-2, max_size: int = 2000
    ):
        super().__init__()
        self.structure, self.init_scale, self.max_size = structure, init_scale, max_size
        check_option(self, "structure", ("full", "diagonal"))
        check_positive(self, "init_scale")
        check_count(self, "max_size")

    def setup(self, sites: dict[str, LatentSite]) -> None:
        full = self.structure == "full"
        for name, site in sites.items():
            side = max(_sides(site.value.shape))
            if full and side > self.max_size:
                raise SettingError(
                    "max_size",
                    self.max_size,
                    f"a max_size of at least {side}, the longer side of {name}; or structure diagonal for this site",
                )
        super().setup(sites)
        self.sides = [_sides(shape) for shape in self.shapes.values()]
        # a side of one has nothing to say that the other does not, unless both have
        sides = [[n if n > 1 else 0, p if p > 1 or n == 1 else 0] for n, p in self.sides]
        shares = [0.5 if n and p else 1.0 for n, p in sides]
        logs = [
            self.loc.new_full((size,), share * math.log(self.init_scale))
            for pair, share in zip(sides, shares, strict=True)
            for size in pair
        ]
        self._log_sizes = [len(each) for each in logs]
        self._below_sizes = [count_below(size) if full else 0 for pair in sides for size in pair]
        self.log_scales = nn.Parameter(torch.cat(logs))
        if full:
            self.below = nn.Parameter(self.loc.new_zeros(sum(self._below_sizes)))

    def _factors(self) -> list[tuple[Tensor, Tensor, Tensor | None, Tensor | None]]:
        """By site: the logarithms of the scales of rows and columns, ``[n, 1]`` and ``[p]``, and the unit triangles."""
        logs = self.log_scales.split(self._log_sizes)
        below = self.below.split(self._below_sizes) if self.structure == "full" else [None] * len(logs)
        found = []
        for i in range(len(self.sides)):
            sides: list[Any] = []
            for log, packed in zip(logs[2 * i : 2 * i + 2], below[2 * i : 2 * i + 2], strict=True):
                sides.append(unit_lower(packed, len(log)) if packed is not None and len(packed) else None)
            rows, columns = (log if len(log) else log.new_zeros(1) for log in logs[2 * i : 2 * i + 2])
            found.append((rows.unsqueeze(-1), columns, sides[0], sides[1]))
        return found

    def _matrices(self, flat: Tensor) -> list[Tensor]:
        """Vectors ``[..., D]`` as matrices ``[..., n, p]`` by site."""
        pieces = flat.split(self.sizes, -1)
        return [piece.unflatten(-1, sides) for piece, sides in zip(pieces, self.sides, strict=True)]

    def sample(self, num_samples: int) -> Tensor:
        noise = self.loc.new_empty(num_samples, len(self.loc)).normal_()
        pieces = []
        for value, (rows, columns, a, b) in zip(self._matrices(noise), self._factors(), strict=True):
            value = value if a is None else a @ value
            value = value if b is None else value @ b.mT
            pieces.append((value * (rows + columns).exp()).flatten(1))
        return self.loc + torch.cat(pieces, -1)

    def log_density(self, flat: Tensor) -> Tensor:
        squares: Tensor | float = 0.0
        for value, (rows, columns, a, b) in zip(self._matrices(flat - self.loc), self._factors(), strict=True):
            value = value * (-rows - columns).exp()
            if a is not None:
                value = torch.linalg.solve_triangular(a, value, upper=False, unitriangular=True)
            if b is not None:
                value = torch.linalg.solve_triangular(b.mT, value, upper=True, left=False, unitriangular=True)
            squares = squares + value.square().sum((-2, -1))
        return -0.5 * squares - self._log_volume() - len(self.loc) * HALF_LOG_2PI

    def _log_volume(self) -> Tensor:
        """:math:`p \\ln |A| + n \\ln |B|`, summed over sites."""
        weights = [size for n, p in self.sides for size in (p, n)]
        logs = zip(self.log_scales.split(self._log_sizes), weights, strict=True)
        return torch.stack([log.sum() * weight for log, weight in logs]).sum()

    def moments(self) -> tuple[Tensor, Tensor]:
        variances = []
        for (n, p), (rows, columns, a, b) in zip(self.sides, self._factors(), strict=True):
            variance = (2 * (rows + columns)).exp()
            variance = variance if a is None else variance * a.square().sum(-1, keepdim=True)
            variance = variance if b is None else variance * b.square().sum(-1)
            variances.append(variance.expand(n, p).reshape(-1))
        return self.loc, torch.cat(variances)

    def entropy(self) -> Tensor:
        return self._log_volume() + len(self.loc) * (HALF_LOG_2PI + 0.5)

    @torch.no_grad()
    def covariances(self) -> dict[str, tuple[Tensor, Tensor]]:
        """:math:`U` and :math:`V` by site; a factor may move from one to the other."""
        found = {}
        for name, sides, (rows, columns, a, b) in zip(self.shapes, self.sides, self._factors(), strict=True):
            roots = []
            for size, log, unit in zip(sides, (rows.squeeze(-1), columns), (a, b), strict=True):
                eye = torch.eye(size, dtype=log.dtype, device=log.device)
                roots.append(log.exp().expand(size).unsqueeze(-1) * (eye if unit is None else unit))
            found[name] = (roots[0] @ roots[0].mT, roots[1] @ roots[1].mT)
        return found

    @torch.no_grad()
    def summary(self) -> dict[str, Any]:
        scale = self.moments()[1].sqrt()
        return {"scale": {"median": float(scale.median()), "min": float(scale.min()), "max": float(scale.max())}}


def _sides(shape: torch.Size) -> tuple[int, int]:
    """Rows and columns of a site."""
    return (1, shape.numel()) if len(shape) < 2 else (shape[0], shape[1:].numel())
