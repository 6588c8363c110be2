"""A user's own arrays as a task."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..inference import DataError
from ..inference.data import check_finite
from ..inference.files import replacing
from ..models import Categorical, Features, Gaussian, Image, Input, Likelihood, Output, Series, Tokens
from ..models.likelihoods import IGNORED
from ..priors.settings import check
from .base import Split, Task, TaskData, shuffled

KEYS = ("x", "y", "x_test", "y_test", "x_validation", "y_validation")


@dataclass(frozen=True, kw_only=True)
class Arrays(Task):
    """Arrays from a ``.npz`` file, or from `Task.from_arrays`.

    The file holds ``x, y, x_test, y_test`` and perhaps ``x_validation, y_validation``, as `Task.from_arrays` takes
    them.

    Args:
        file: Path of the file; None only for arrays that are already in memory.

    Raises:
        SettingError: There is no such file.
        DataError: The arrays do not fit together, are empty, or hold NaN or infinity.
    """

    file: str | None = None

    def __post_init__(self) -> None:
        if self.file is not None:
            check(self, "file", Path(self.file).is_file(), "an existing .npz file")

    def keep(self, arrays: dict[str, np.ndarray], inputs: Input | None, likelihood: Likelihood | None) -> None:
        """Hold arrays in memory in the place of a file."""
        object.__setattr__(self, "_kept", (arrays, inputs, likelihood))

    @property
    def plain(self) -> bool:
        """Whether the arrays say everything: inputs or a likelihood of one's own are not written to files."""
        _, inputs, likelihood = getattr(self, "_kept", (None, None, None))
        return inputs is None and likelihood is None

    def write(self, path: Path) -> Arrays:
        """Write the arrays to a file, and return the task that reads them from there."""
        arrays, _, _ = self._content()
        if not self.plain:
            raise ValueError("a task with inputs or a likelihood of its own cannot be written to a file")
        with replacing(path) as new, new.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        return Arrays(file=str(path))

    def same_as(self, path: Path) -> bool:
        """Whether a file holds these very arrays."""
        if not path.is_file():
            return False
        here, there = self._content()[0], Arrays(file=str(path))._content()[0]
        return here.keys() == there.keys() and all(
            here[name].dtype == there[name].dtype and np.array_equal(here[name], there[name]) for name in here
        )

    def _content(self) -> tuple[dict[str, np.ndarray], Input | None, Likelihood | None]:
        if hasattr(self, "_kept"):
            return self._kept
        if self.file is None:
            raise DataError("task.arrays.file: got null; accepted: the path of a .npz file")
        expected = f"expected a .npz file of plain arrays {', '.join(KEYS)}"
        try:
            with open(self.file, "rb") as file:
                if not zipfile.is_zipfile(file):
                    raise DataError(f"{self.file} is no .npz file, or only a part of one: {expected}")
                with np.load(file, allow_pickle=False) as stored:
                    arrays = {name: stored[name] for name in stored.files}
        except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{self.file}: {error}: {expected}") from None
        return arrays, None, None

    def load(self) -> TaskData:
        arrays, inputs, likelihood = self._content()
        unknown, missing = sorted(set(arrays) - set(KEYS)), [key for key in KEYS[:4] if key not in arrays]
        if unknown or missing:
            raise DataError(
                f"{self.file or 'arrays'}: {'unknown ' + unknown[0] if unknown else 'no ' + missing[0]}: expected "
                f"{', '.join(KEYS[:4])} and perhaps {', '.join(KEYS[4:])}"
            )
        for one, both in (("x_validation", "y_validation"), ("y_validation", "x_validation")):
            if one in arrays and both not in arrays:
                raise DataError(f"{self.file or 'arrays'}: {one} but no {both}: expected both or none")
        tensors = {name: _tensor(name, array) for name, array in arrays.items()}
        for name in [name for name in tensors if name.startswith("x")]:
            other = tensors["y" + name[1:]]
            if len(other) != len(tensors[name]) or not len(other):
                raise DataError(
                    f"{name} has {len(tensors[name])} examples and y{name[1:]} {len(other)}: expected as many, not 0"
                )
        _agree([name for name in tensors if name.startswith("x")], tensors)
        _agree([name for name in tensors if name.startswith("y")], tensors)
        for name in [name for name in tensors if name.startswith("y") and tensors[name].is_floating_point()]:
            tensors[name] = tensors[name].flatten(1) if tensors[name].dim() > 1 else tensors[name].unsqueeze(1)
        if "x_validation" not in tensors:
            order = shuffled(len(tensors["x"]), 0)
            held, kept = order.split((len(order) // 10, len(order) - len(order) // 10))
            if len(held):
                tensors |= {"x_validation": tensors["x"][held], "y_validation": tensors["y"][held]}
                tensors |= {"x": tensors["x"][kept], "y": tensors["y"][kept]}
        inputs = inputs or _inputs([t for name, t in tensors.items() if name.startswith("x")])
        outputs, default = _outputs([t for name, t in tensors.items() if name.startswith("y")], tensors["y"], inputs)
        validation = None
        if "x_validation" in tensors:
            validation = Split(tensors["x_validation"], tensors["y_validation"])
        return TaskData(
            inputs=inputs,
            outputs=outputs,
            likelihood=likelihood or default,
            train=Split(tensors["x"], tensors["y"]),
            validation=validation,
            test=Split(tensors["x_test"], tensors["y_test"]),
        )


def plain_array(name: str, values: Any) -> np.ndarray:
    """A user's numbers, in NumPy, torch or lists, as a NumPy array.

    Raises:
        DataError: They are lists of different lengths.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
    try:
        return np.asarray(values)
    except ValueError:
        raise DataError(f"{name} holds lists of different lengths: expected an array of numbers") from None


def _tensor(name: str, array: np.ndarray) -> Tensor:
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


def _agree(names: list[str], tensors: dict[str, Tensor]) -> None:
    """Make the arrays of one side real where the training array is."""
    first = names[0]
    for name in names[1:]:
        if tensors[first].is_floating_point():
            tensors[name] = tensors[name].to(tensors[first].dtype)
        elif tensors[name].is_floating_point():
            raise DataError(f"{name} holds real numbers and {first} whole ones: expected the same kind")


def _inputs(xs: list[Tensor]) -> Input:
    shape = tuple(xs[0].shape[1:])
    if any(tuple(x.shape[1:]) != shape for x in xs):
        raise DataError(f"x has shapes {', '.join(str(tuple(x.shape)) for x in xs)}: expected one shape of an example")
    if 0 in shape:
        raise DataError(f"x has shape {tuple(xs[0].shape)}: expected at least one number an example")
    if not xs[0].is_floating_point() and (least := min(int(x.min()) for x in xs)) < 0:
        raise DataError(f"x holds the token {least}: expected tokens counted from 0 (features are real numbers)")
    if not xs[0].is_floating_point() and len(shape) == 1:
        return Tokens(int(max(x.max() for x in xs)) + 1, shape[0])
    if len(shape) == 1:
        return Features(shape[0])
    if len(shape) == 2:
        return Series(shape[0], shape[1])
    if len(shape) == 3:
        sides = [side for side in (4, 2, 1) if shape[1] % side == 0 and shape[2] % side == 0]
        return Image(shape[1], shape[2], shape[0], sides[0])
    raise DataError(f"x has shape {tuple(xs[0].shape)}: expected 2 to 4 dimensions")


def _outputs(ys: list[Tensor], train: Tensor, inputs: Input) -> tuple[Output, Likelihood]:
    if train.is_floating_point():
        spread = float(train.std(correction=0))
        return Output(train.shape[1]), Gaussian(noise="learned", scale=max(0.5 * spread, 1e-3))
    seen = torch.cat([y.flatten() for y in ys])
    seen = seen[seen != IGNORED]
    if not len(seen) or int(seen.min()) < 0:
        raise DataError(f"y holds {int(seen.min()) if len(seen) else 'no label'}: expected classes counted from 0")
    if int(seen.max()) >= max(1000, len(seen)):
        raise DataError(f"y holds {int(seen.max())}: expected classes counted from 0 (real numbers for a regression)")
    per_token = train.dim() > 1
    if per_token and not isinstance(inputs, Tokens | Series):
        raise DataError(f"y has shape {tuple(train.shape)}: expected ({len(train)},), one class an example")
    return Output(max(int(seen.max()) + 1, 2), per_token), Categorical(per_token=per_token)
