"""One-dimensional regression with a gap in the data."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..models import Features, Gaussian, Likelihood, Output
from ..priors.settings import check, check_count
from .base import Split, Task, TaskData


def curve(x: Tensor) -> Tensor:
    """The function behind the data."""
    return torch.sin(4 * x) + 0.5 * x


@dataclass(frozen=True, kw_only=True)
class ToyRegression(Task):
    r"""A curve seen through noise, with nothing seen in the middle.

    .. math:: y = \sin 4x + x/2 + 0.1\,\varepsilon, \qquad x \in [-2, -0.7] \cup [0.7, 2]

    Shifted set ``gap``: examples from the middle, which a good posterior is unsure of.

    Args:
        train: Training examples, default 100.
        test: Test examples, default 200, and as many in the gap; validation examples are half as many.
        likelihood: Default ``Gaussian(noise="fixed", scale=0.1)``, which is the truth.
        split: Seed of the data, default 0.

    Raises:
        SettingError: A setting is out of range.
    """

    train: int = 100
    test: int = 200
    likelihood: Likelihood = field(default_factory=Gaussian)
    split: int = 0

    def __post_init__(self) -> None:
        check_count(self, "train", "test")
        check(self, "split", 0 <= self.split < 2**32, "a whole number from 0 to 4294967295")

    def load(self) -> TaskData:
        generator = torch.Generator().manual_seed(self.split)

        def observed(x: Tensor) -> Split:
            return Split(x, curve(x) + 0.1 * torch.randn(x.shape, generator=generator))

        def outside(count: int) -> Split:
            x = 0.7 + 1.3 * torch.rand(count, 1, generator=generator)
            side = torch.randint(2, (count, 1), generator=generator) * 2 - 1
            return observed(x * side)

        return TaskData(
            inputs=Features(1),
            outputs=Output(1),
            likelihood=self.likelihood,
            train=outside(self.train),
            validation=outside(max(self.test // 2, 1)),
            test=outside(self.test),
            shifted={"gap": observed(1.4 * torch.rand(self.test, 1, generator=generator) - 0.7)},
            source={"origin": "made from its seed", "files": {}, "split": self.split},
        )
