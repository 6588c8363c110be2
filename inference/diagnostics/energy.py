"""Whether fresh momenta lead a chain through all energies of its target."""

from __future__ import annotations

import torch
from torch import Tensor

from ...priors import SettingError


def e_bfmi(energy: Tensor) -> Tensor:
    r"""The energy Bayesian fraction of missing information of each chain.

    .. math:: \frac{\sum_s (E_s - E_{s - 1})^2}{\sum_s (E_s - \bar E)^2}

    About 1 or more for energies that are drawn anew by every transition. Below 0.3 a new momentum changes the energy by
    little of what the target holds: the chain walks slowly through its energies, and may not reach its tails.

    Args:
        energy: Of Hamiltonian chains, ``[K, S]``, from 4 draws a chain.

    Returns:
        ``[K]`` in float64; NaN for chains whose energy is constant or not finite.

    Raises:
        SettingError: There are fewer than 4 draws a chain.

    Reference:
        Betancourt, 2016, "Diagnosing suboptimal cotangent disintegrations in Hamiltonian Monte Carlo", Eq. 6.
    """
    if energy.dim() != 2 or energy.shape[1] < 4:
        raise SettingError("energy", tuple(energy.shape), "[K, S]: chains of at least 4 draws each")
    values = energy.detach().cpu().double()
    found = values.diff(dim=1).square().mean(1) / values.var(1)
    return torch.where(found.isfinite(), found, torch.nan)
