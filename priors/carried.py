"""Values that carry their logarithms, since small entries of rows fall below the smallest number of their dtype."""

from __future__ import annotations

import torch
from torch import Tensor


def with_logs(value: Tensor, logs: Tensor) -> Tensor:
    """Let a drawn value carry its exact logarithms; a copy, slice or cast of it does not.

    Args:
        value: Above 0, or 0 where it is too small for its dtype.
        logs: Its logarithms, in its shape.

    Returns:
        ``value`` itself.
    """
    value.carried_logs = logs  # type: ignore[attr-defined]
    return value


def logs_of(value: Tensor) -> Tensor:
    """The logarithms that a value carries, else those of its entries, of which none counts as less than the smallest
    number of the dtype."""
    carried: Tensor | None = getattr(value, "carried_logs", None)
    return value.clamp(min=torch.finfo(value.dtype).tiny).log() if carried is None else carried


def moved(value: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A value on a device and in a dtype, with the logarithms that it carries."""
    carried: Tensor | None = getattr(value, "carried_logs", None)
    found = value.to(device, dtype)
    return found if carried is None or found is value else with_logs(found, carried.to(device, dtype))
