"""Over several seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import real


def mean_and_standard_error(values: Tensor | Sequence[float]) -> tuple[Tensor, Tensor]:
    r"""Mean of independent values, such as one metric over seeds, and its standard error (NaN for one value).

    :Args: values ``[n]``, a tensor or a sequence of numbers.
    :Returns: :math:`\bar v = \frac1n \sum_i v_i` and :math:`\sqrt{\sum_i (v_i - \bar v)^2 / (n (n - 1))}`, both ``[]``.
    :Raises: ValueError for anything but numbers, a wrong shape, NaN or infinities, or no values.
    :Reference: Casella and Berger (2002), Statistical Inference, section 5.2."""
    try:
        v = real("values", torch.as_tensor(values, dtype=torch.float64), "[n]")
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"values is {values!r}: expected a sequence of numbers") from error
    return v.mean(), (v.std() / math.sqrt(len(v)) if len(v) > 1 else v.new_tensor(math.nan))
