"""Where the posterior of a site starts, checked before any parameter is made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ..priors import SettingError
from ..priors.support import base
from .family import LatentSite, unconstrained


def told(name: str, site: LatentSite, value: Any) -> LatentSite:
    """A site that starts at a given value.

    Args:
        name: The site.
        site: The site, with a value of the right shape, dtype and device.
        value: Where it starts: a number, or numbers of that shape.

    Raises:
        SettingError: The value has another shape, or no unconstrained numbers stand for it: it lies outside the support
            or at one of its ends, or is not finite.
    """
    shape, given = site.value.shape, torch.as_tensor(value).detach()
    if given.shape != shape:
        raise SettingError("init", name, f"a value of shape {tuple(shape)}, not {tuple(given.shape)}")
    start = given.to(site.value, copy=True)
    support = site.prior.support
    if not support.check(start).all() or not unconstrained(name, site).inv(start).isfinite().all():
        raise SettingError("init", name, f"finite values inside the support of its prior, {base(support)}")
    return replace(site, value=start)
