"""A user's own arrays as a task."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..inference import DataError
from ..inference.files import replacing
from ..models import Categorical, Features, Gaussian, Image, Input, Likelihood, Output, Series, Tokens
from ..models.likelihoods import IGNORED
from ..priors.settings import check
from .base import Split, Task, TaskData, shuffled
from .idx import ReadFile, read_bytes
from .npz import as_tensor, parse_npz
from .table import read_table, read_target, same_columns

KEYS = ("x", "y", "x_test", "y_test", "x_validation", "y_validation")


@dataclass(frozen=True)
class Content:
    """Arrays by name, and what is known of them.

    Args:
        arrays: Under the names of `KEYS`.
        inputs, likelihood: A user's own, or None.
        source: For `TaskData`.
        standardize: Whether the inputs are to be standardised by the training examples.
    """

    arrays: dict[str, np.ndarray]
    inputs: Input | None
    likelihood: Likelihood | None
    source: dict[str, Any]
    standardize: bool = False


@dataclass(frozen=True, kw_only=True)
class Arrays(Task):
    """Arrays from a ``.npz`` or ``.csv`` file, or from `Task.from_arrays`.

    A ``.npz`` file holds ``x, y, x_test, y_test`` and perhaps ``x_validation, y_validation``, as `Task.from_arrays`
    takes them.

    A ``.csv`` file holds a column to predict and columns of numbers, which become real features. It is text in UTF-8,
    separated by semicolons if one stands in the first line, else by tabs, else by commas; the first row is a header if
    no cell of it is a number. Words to predict are classes in alphabetical order, whole numbers are classes in their
    order, other numbers are a regression.

    Args:
        file: Path of the file; None only for arrays that are already in memory.
        validation: Share of the training examples that are for validation where the file names none, default 0.1.
        split: Seed of the split, default 0.
        target: For CSV, the column to predict, by name or by number from 1; default the last one.
        test: For CSV, the share of the rows that are for testing, default 0.2.
        test_file: For CSV, another file with the rows to test on, in the same columns, in the place of ``test``.
        regression: For CSV, whether the target is a real number; default by the rule above.
        standardize: For CSV, whether each feature is shifted and scaled to mean 0 and sd 1 over the training rows
            (constant ones are only shifted), default true.

    Raises:
        SettingError: There is no such file, or a setting is out of range or has no meaning for the file.
        DataError: The arrays do not fit together, are empty, or hold NaN or infinity.

    Example:
        task: {arrays: {file: my.csv, target: price}}
    """

    file: str | None = None
    validation: float = 0.1
    split: int = 0
    target: str | int | None = None
    test: float | None = None
    test_file: str | None = None
    regression: bool | None = None
    standardize: bool | None = None

    def __post_init__(self) -> None:
        if self.file is not None:
            check(self, "file", Path(self.file).is_file(), "an existing .npz file or .csv file")
        check(self, "validation", 0 <= self.validation < 1, "a number from 0 to below 1")
        check(self, "split", 0 <= self.split < 2**32, "a whole number from 0 to 4294967295")
        for key in ("target", "test", "test_file", "regression", "standardize"):
            check(self, key, getattr(self, key) is None or self._csv, "null: only for .csv files")
        check(self, "test", self.test is None or 0 < self.test < 1, "a number between 0 and 1")
        if self.test_file is not None:
            check(self, "test_file", Path(self.test_file).is_file(), "an existing .csv file")
            check(self, "test", self.test is None, "null, as test_file names the rows to test on")

    @property
    def _csv(self) -> bool:
        return self.file is not None and Path(self.file).suffix.lower() == ".csv"

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
        arrays = self._content().arrays
        if not self.plain:
            raise ValueError("a task with inputs or a likelihood of its own cannot be written to a file")
        with replacing(path) as new, new.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        return Arrays(file=str(path))

    def same_as(self, path: Path) -> bool:
        """Whether a file holds these very arrays."""
        if not path.is_file():
            return False
        here, there = self._content().arrays, Arrays(file=str(path))._content().arrays
        return here.keys() == there.keys() and all(
            here[name].dtype == there[name].dtype and np.array_equal(here[name], there[name]) for name in here
        )

    def _content(self) -> Content:
        if hasattr(self, "_kept"):
            arrays, inputs, likelihood = self._kept
            source = {"origin": "arrays in memory", "files": {}, "sha256": {n: _hash(a) for n, a in arrays.items()}}
            return Content(arrays, inputs, likelihood, source)
        if self.file is None:
            raise DataError("task.arrays.file: got null; accepted: the path of a .npz file or of a .csv file")
        return self._csv_content() if self._csv else self._npz_content()

    def _npz_content(self) -> Content:
        expected = f"expected a .npz file of plain arrays {', '.join(KEYS)}"
        read = read_bytes(str(self.file), expected.removeprefix("expected "))
        arrays = parse_npz(read, expected)
        return Content(arrays, None, None, _source([read]))

    def _csv_content(self) -> Content:
        files = [read_bytes(path, "a .csv file") for path in (self.file, self.test_file) if path is not None]
        tables = [read_table(file) for file in files]
        if len(tables) == 2:
            same_columns(*tables)
        columns = [table.column(self.target) for table in tables]
        target = read_target(tables, columns, self.regression)
        xs = [table.numbers(column).astype(np.float32) for table, column in zip(tables, columns, strict=True)]
        ys = [y if target.classes else y.astype(np.float32) for y in target.values]
        if len(tables) == 1:
            count = len(xs[0])
            tested = round(count * (0.2 if self.test is None else self.test))
            if not 0 < tested < count:
                raise DataError(f"{self.file} has {count} rows, of which {tested} to test on: expected some of each")
            held, kept = shuffled(count, self.split).numpy()[:tested], shuffled(count, self.split).numpy()[tested:]
            xs, ys = [xs[0][kept], xs[0][held]], [ys[0][kept], ys[0][held]]
        names = [name for place, name in enumerate(tables[0].names) if place != columns[0]]
        source = _source(files) | {"target": target.name, "classes": target.classes, "features": names}
        arrays = {"x": xs[0], "y": ys[0], "x_test": xs[1], "y_test": ys[1]}
        return Content(arrays, None, None, source, self.standardize is not False)

    def load(self) -> TaskData:
        content = self._content()
        arrays, inputs, likelihood = content.arrays, content.inputs, content.likelihood
        source = content.source | {"split": self.split}
        unknown, missing = sorted(set(arrays) - set(KEYS)), [key for key in KEYS[:4] if key not in arrays]
        if unknown or missing:
            raise DataError(
                f"{self.file or 'arrays'}: {'unknown ' + unknown[0] if unknown else 'no ' + missing[0]}: expected "
                f"{', '.join(KEYS[:4])} and perhaps {', '.join(KEYS[4:])}"
            )
        for one, both in (("x_validation", "y_validation"), ("y_validation", "x_validation")):
            if one in arrays and both not in arrays:
                raise DataError(f"{self.file or 'arrays'}: {one} but no {both}: expected both or none")
        tensors = {name: as_tensor(name, array) for name, array in arrays.items()}
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
            order = shuffled(len(tensors["x"]), self.split)
            held, kept = order.tensor_split((int(len(order) * self.validation),))
            if len(held):
                tensors |= {"x_validation": tensors["x"][held], "y_validation": tensors["y"][held]}
                tensors |= {"x": tensors["x"][kept], "y": tensors["y"][kept]}
        if content.standardize:
            mean, sd = tensors["x"].double().mean(0), tensors["x"].double().std(0, correction=0)
            sd = torch.where(sd > 0, sd, 1.0)
            for name in [name for name in tensors if name.startswith("x")]:
                tensors[name] = ((tensors[name].double() - mean) / sd).float()
            source["standardized"] = {"mean": mean.tolist(), "sd": sd.tolist()}
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
            source=source,
        )


def _source(files: list[ReadFile]) -> dict[str, Any]:
    return {"origin": "task.arrays.file", "files": {str(file.path): file.sha256 for file in files}}


def _hash(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


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
