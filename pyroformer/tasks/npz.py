"""Arrays in NumPy's files."""

from __future__ import annotations

import io
import zipfile
import zlib

import numpy as np
import torch
from torch import Tensor

from ..inference import DataError
from ..inference.data import check_finite
from .idx import ReadFile

DAMAGED = (ValueError, OSError, EOFError, SyntaxError, MemoryError)
"""What NumPy raises on headers that are no headers, or that promise more than there is."""


def parse_npz(file: ReadFile, expected: str) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` file by name; objects are never unpickled.

    Args:
        file: Its bytes.
        expected: What was expected, for messages, beginning with that word.

    Raises:
        DataError: It is no such file, or damaged, or holds something else than plain arrays.
    """
    if not zipfile.is_zipfile(io.BytesIO(file.content)):
        raise DataError(f"{file.path} is no .npz file, or only a part of one: {expected}")
    try:
        with np.load(io.BytesIO(file.content), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (*DAMAGED, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{file.path}: {error}: {expected}") from None


def parse_npy(file: ReadFile, expected: str) -> np.ndarray:
    """The array of a ``.npy`` file.

    Raises:
        DataError: It is no such file, or damaged, or holds something else than plain numbers.
    """
    try:
        return np.lib.format.read_array(io.BytesIO(file.content), allow_pickle=False)
    except DAMAGED as error:
        raise DataError(f"{file.path}: {error}: {expected}") from None


def as_tensor(name: str, array: np.ndarray) -> Tensor:
    """Whole numbers for classes and tokens ``[N, T]``, real ones for everything else."""
    if array.dtype.kind not in "iubf":
        raise DataError(f"{name} holds {array.dtype}: expected numbers")
    if not array.ndim:
        raise DataError(f"{name} is a single number: expected one entry an example")
    if array.dtype.kind != "f" and (name.startswith("y") or array.ndim == 2):
        return torch.as_tensor(array.astype(np.int64))
    with np.errstate(over="ignore"):  # what becomes infinite is reported below
        tensor = torch.as_tensor(array.astype(np.float32))
    check_finite(name, tensor)
    return tensor
