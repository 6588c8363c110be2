"""Handwritten digits, 8x8, which scikit-learn ships."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models import Categorical, Image, Output
from ..priors.settings import check, check_count, check_positive
from .base import Split, TaskData, file_hash, noisy, reals, shuffled
from .images import ImageTask
from .shifts import ShiftKind


@cache  # a study loads its task many times, and reading takes longest
def _photographs() -> tuple[Tensor, ...]:
    """Two photographs in grey, at a quarter of their size, ``[H, W]`` in [0, 1]."""
    from sklearn.datasets import load_sample_image

    greys = [reals(load_sample_image(name)).mean(-1) / 255 for name in ("china.jpg", "flower.jpg")]
    return tuple(F.avg_pool2d(grey[None, None], 4)[0, 0] for grey in greys)  # at full size most squares hold one shade


@cache
def _table() -> tuple[Tensor, Tensor]:
    """All digits, ``[1797, 8, 8]`` in [0, 1], and their labels."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return reals(pixels).view(-1, 8, 8) / 16, torch.as_tensor(labels)


def photograph_patches(count: int, seed: int) -> Tensor:
    """Squares of 8x8 pixels from two photographs that scikit-learn ships, in grey, ``[count, 8, 8]`` in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    patches = []
    for grey in _photographs():
        rows = torch.randint(grey.shape[0] - 8, (count,), generator=generator)
        columns = torch.randint(grey.shape[1] - 8, (count,), generator=generator)
        patches += [grey[r : r + 8, c : c + 8] for r, c in zip(rows.tolist(), columns.tolist(), strict=True)]
    return torch.stack(patches)[torch.randperm(2 * count, generator=generator)[:count]]


@dataclass(frozen=True, kw_only=True)
class Digits(ImageTask):
    """1,797 handwritten digits of 8x8 pixels in [0, 1]: 1,200 to train, 100 to validate, 497 to test.

    Shifted set ``noisy``: the test digits with normal noise. Out of distribution, ``photographs``: as many 8x8 squares
    of two photographs. The corruptions of ``shifts`` are not measured unless they are asked for.

    Args:
        train: Training examples, default 1200.
        validation: Validation examples, default 100; the rest are for testing.
        noise: Standard deviation of the noise, default 0.3 (of a pixel range of 1).
        split: Seed of the split, of the noise and of the photographs' squares, default 0.
        shifts: Corruptions to measure, among noise, blur, rotation, contrast, occlusion; default none. Each makes the
            five sets ``<kind>-1`` to ``<kind>-5``.
        shift_examples: See `ImageTask`.

    Raises:
        SettingError: A setting is out of range, or leaves nothing to test on.

    Reference:
        Alpaydin and Kaynak, 1998, "Optical recognition of handwritten digits", UCI repository.
    """

    train: int = 1200
    validation: int = 100
    noise: float = 0.3
    split: int = 0
    shifts: tuple[ShiftKind, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "train")
        check_positive(self, "noise")
        check(self, "validation", self.validation >= 0, "a whole number of at least 0")
        check(
            self, "train", self.train + self.validation < 1797, f"below {1797 - self.validation}, to leave a test set"
        )

    def load(self) -> TaskData:
        import sklearn.datasets  # not above: it takes a second to import

        x, y = _table()
        order = shuffled(len(x), self.split)
        train, validation, test = order.tensor_split((self.train, self.train + self.validation))
        held_out = Split(x[test], y[test])
        shifted, shifts = self.shifted_sets(held_out)
        table = Path(sklearn.datasets.__file__).parent / "data" / "digits.csv.gz"
        return TaskData(
            inputs=Image(8, 8, patch=2),
            outputs=Output(10),
            likelihood=Categorical(),
            train=Split(x[train], y[train]),
            validation=Split(x[validation], y[validation]) if len(validation) else None,
            test=held_out,
            shifted={"noisy": Split(noisy(x[test], self.noise, self.split + 1), y[test])} | shifted,
            shifts=shifts,
            ood={"photographs": Split(photograph_patches(len(test), self.split + 2))},
            source={
                "origin": f"scikit-learn {sklearn.__version__}",
                "files": file_hash(table) if table.is_file() else {},
                "split": self.split,
            },
        )
