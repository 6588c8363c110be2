"""What all drivers that take steps on minibatches have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..priors.settings import check, check_count, check_option, check_positive
from .driver import Driver


@dataclass(frozen=True, kw_only=True)
class Minibatched(Driver):
    """A driver that takes steps on minibatches.

    Args:
        epochs: Passes over the data, default 60.
        batch_size: Examples a step, default 128.
        learning_rate: Its largest value, above 0, default 1e-3 (3e-3 for SVI).
        schedule: ``cosine`` (default; to zero at the end), ``linear`` or ``constant``.
        warmup: Share of the steps during which the learning rate grows from zero, 0 to 1, default 0.05.
        validate_every: Epochs between looks at the validation data, default 1.
        validation_samples: Draws for that look, default 8; a point estimate takes one.
        keep: ``best`` (default): the state with the lowest validation NLL; ``last``: the final one. Without validation
            data the final one is kept.
        device, dtype: See `Driver`.
    """

    epochs: int = 60
    batch_size: int = 128
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = 0.05
    validate_every: int = 1
    validation_samples: int = 8
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "epochs", "batch_size", "validate_every", "validation_samples")
        check_positive(self, "learning_rate")
        check_option(self, "schedule", ("cosine", "linear", "constant"))
        check_option(self, "keep", ("best", "last"))
        check(self, "warmup", 0 <= self.warmup < 1, "a share of the steps, at least 0 and below 1")

    def rate(self, progress: float) -> float:
        """The learning rate's factor when a share ``progress`` of the steps is done."""
        if progress < self.warmup:
            return progress / self.warmup
        done = (progress - self.warmup) / (1 - self.warmup)
        return {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}[self.schedule]
