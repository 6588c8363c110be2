"""New inputs for a task that has been learned, from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..inference import DataError
from ..inference.data import first
from ..models import Image, Pair, Tokens
from .base import TaskData
from .idx import ReadFile, parse_idx, read_bytes
from .npz import as_tensor, parse_npy, parse_npz
from .table import read_table

FAR = 20.0
"""No pixel of an image in [0, 1] is so large, not with noise added; bytes are."""
EXPECTED = "expected a .npz file with the array x, a .npy file, a .csv file with the task's columns, or an IDX file"


def read_inputs(path: str | Path, data: TaskData, source: Mapping[str, Any] | None = None) -> Tensor:
    """Inputs as the task's net takes them.

    A ``.npz`` file holds them as ``x`` (or as its only array), a ``.npy`` file as its array. A ``.csv`` file has the
    task's feature columns by name, in any order and beside others, or exactly these columns and no header; they are
    standardised as the training examples were. Any other file is an IDX file of images, whose bytes become [0, 1].

    Args:
        path: The file.
        data: The task's data.
        source: What a run's records say of its data: names and scaling of a table's columns; default that of ``data``.

    Returns:
        ``[N, ...]``.

    Raises:
        DataError: The file is missing or damaged, or its inputs are not of the task's kind or shape.
    """
    if isinstance(data.inputs, Pair):
        raise DataError(f"{path}: the task has two inputs an example, which no file holds: predict from Python")
    file = read_bytes(path, EXPECTED.removeprefix("expected "))
    kind = file.path.suffix.lower()
    if kind == ".csv":
        x = _from_table(file, data.source if source is None else source)
    elif kind == ".npz":
        arrays = parse_npz(file, EXPECTED)
        if "x" not in arrays and len(arrays) != 1:
            raise DataError(f"{path} holds the arrays {', '.join(arrays) or 'none'}: {EXPECTED}")
        x = as_tensor("x", arrays["x"] if "x" in arrays else next(iter(arrays.values())))
    elif kind == ".npy":
        x = as_tensor("x", parse_npy(file, EXPECTED))
    else:
        x = torch.from_numpy(parse_idx(file)).float() / 255
    return _fitting(path, x, data)


def _from_table(file: ReadFile, source: Mapping[str, Any]) -> Tensor:
    names = source.get("features")
    if names is None:
        raise DataError(f"{file.path}: the task was no .csv file: expected a .npz or .npy file")
    table = read_table(file)
    if table.header:
        missing = [name for name in names if name not in table.names]
        if missing:
            raise DataError(f"{file.path} has no column {missing[0]}: expected the columns {', '.join(names)}")
        columns = [table.names.index(name) for name in names]
    elif len(table.names) == len(names):
        columns = list(range(len(names)))
    else:
        raise DataError(f"{file.path} has {len(table.names)} columns and no header: expected {len(names)}")
    rows = [[table.number(row, column) for column in columns] for row in range(len(table.rows))]
    x = torch.tensor(rows, dtype=torch.float32)
    if scaling := source.get("standardized"):
        mean, sd = (torch.tensor(scaling[key], dtype=torch.float64) for key in ("mean", "sd"))
        x = ((x.double() - mean) / sd).float()
    return x


def _fitting(path: str | Path, x: Tensor, data: TaskData) -> Tensor:
    """The inputs in the shape and kind of the training examples."""
    known = first(data.train.x)
    if isinstance(data.inputs, Image) and x.dim() == known.dim() + 1 and x.shape[1] == 1:
        x = x.squeeze(1)
    if x.shape[1:] != known.shape[1:] or not len(x):
        shape = ", ".join(["N", *map(str, known.shape[1:])])
        raise DataError(f"{path} holds inputs of shape {tuple(x.shape)}: expected ({shape}), at least one")
    if known.is_floating_point():
        x = x.to(known.dtype)
    elif x.is_floating_point():
        raise DataError(f"{path} holds real numbers: expected whole numbers")
    low, high = float(known.min()), float(known.max())
    if isinstance(data.inputs, Image) and low >= 0 and high <= 1 and (far := float(x.abs().max())) > FAR:
        raise DataError(
            f"{path} holds pixels up to {far:g}: expected about 0 to 1, as in training (bytes: divide by 255)"
        )
    if isinstance(data.inputs, Tokens) and not 0 <= int(x.min()) <= int(x.max()) < data.inputs.vocabulary:
        raise DataError(
            f"{path} holds tokens from {int(x.min())} to {int(x.max())}: expected 0 to {data.inputs.vocabulary - 1}"
        )
    return x
