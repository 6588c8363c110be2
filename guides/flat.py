"""What families share whose sites are pieces of one vector of unconstrained numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from ..priors import SettingError
from ..priors.support import base
from .family import Distribution, Family, LatentSite, Message, unconstrained
from .normal_priors import NormalPriors


def is_real(support: constraints.Constraint) -> bool:
    """Whether a support is all real numbers, entry by entry."""
    return base(support) is constraints.real


def counts_once(site: Message) -> bool:
    """Whether a site stands under no scale and no mask."""
    scale = site["scale"]
    return site["mask"] is None and not isinstance(scale, Tensor) and scale == 1


class FlatFamily(Family):
    """A posterior over one vector that holds the unconstrained numbers of all its sites, one site after the other.

    Positive and other constrained sites are mapped to unconstrained numbers, and densities count the change of
    variables.
    """

    _run: tuple[str, ...] = ()  # attributes that a run leaves: they are part of its graph, and no copy takes them

    def setup(self, sites: dict[str, LatentSite]) -> None:
        self.transforms = {name: unconstrained(name, site) for name, site in sites.items()}
        free = {name: self.transforms[name].inv(site.value) for name, site in sites.items()}
        self.shapes = {name: u.shape for name, u in free.items()}
        self.inner = {name: len(site.prior.batch_shape) for name, site in sites.items()}
        self.sizes = [u.numel() for u in free.values()]
        self.real = frozenset(name for name, site in sites.items() if is_real(site.prior.support))
        self.loc = nn.Parameter(torch.cat([u.reshape(-1) for u in free.values()]))
        self._normal: NormalPriors | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**{name: value for name, value in self.__dict__.items() if name not in self._run}, "_normal": None}

    def check_size(self, sites: Mapping[str, LatentSite], most: int) -> None:
        """Refuse more numbers than the setting ``max_size`` allows, before any are made."""
        size = sum(site.value.numel() for site in sites.values())
        if size > most:
            raise SettingError(
                "max_size",
                most,
                f"a max_size of at least {size}, the numbers of its {len(sites)} sites together, or fewer sites: give "
                "it some by globs and the rest to mean_field",
            )

    def flatten(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The vector behind values of all sites.

        Args:
            values: ``[..., *shape]`` by site, with the same leading dimensions.

        Returns:
            ``[..., D]``, and the log-determinant of the map from it to the values, ``[...]``.
        """
        pieces, logs = [], []
        for name, shape in self.shapes.items():
            free = self.transforms[name].inv(values[name])
            lead = free.shape[: free.dim() - len(shape)]
            pieces.append(free.reshape(*lead, shape.numel()))
            if name not in self.real:
                jacobian = self.transforms[name].log_abs_det_jacobian(free, values[name])
                logs.append(jacobian.reshape(*lead, -1).sum(-1))
        flat = torch.cat(pieces, -1)
        return flat, torch.stack(logs).sum(0) if logs else flat.new_zeros(flat.shape[:-1])

    def lead(self, name: str, outer: torch.Size) -> torch.Size:
        """The axes of the plates around the guide, for a site's value.

        They lie to the left of the plates inside the model, which are part of the site's own shape.
        """
        return outer[: len(outer) - self.inner[name]]

    def normal_priors(
        self, covered: frozenset[str], priors: Mapping[str, Distribution], closed: frozenset[str] | None = None
    ) -> NormalPriors:
        """The normal priors of a run, those of the last one where they are the same.

        Args:
            covered: The sites to count.
            priors: By site.
            closed: The sites whose closed form may be used; all where None.
        """
        if self._normal is None or not self._normal.fits(covered, priors):
            self._normal = NormalPriors.of(
                self.loc, self.shapes, covered, covered if closed is None else closed, priors
            )
        return self._normal
