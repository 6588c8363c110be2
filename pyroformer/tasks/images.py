"""What tasks of images share: their shifted sets."""

from __future__ import annotations

from dataclasses import dataclass

from ..inference.data import take
from ..priors.settings import check, check_count
from .base import Split, Task, shuffled
from .shifts import CORRUPTIONS, SEVERITIES, Shift, ShiftKind


@dataclass(frozen=True, kw_only=True)
class ImageTask(Task):
    """A task of images, with corruptions of its test images at five severities.

    Args:
        split: Seed of the split and of everything random in it, default 0.
        shifts: Corruptions to measure, among noise, blur, rotation, contrast, occlusion; default all. Each makes the
            five sets ``<kind>-1`` to ``<kind>-5``.
        shift_examples: Test examples in each of these sets at most, default 1000: the same ones in all, drawn by the
            split's seed where the test set holds more.

    Raises:
        SettingError: A setting is out of range.
    """

    split: int = 0
    shifts: tuple[ShiftKind, ...] = ("noise", "blur", "rotation", "contrast", "occlusion")
    shift_examples: int = 1000

    def __post_init__(self) -> None:
        check(self, "split", 0 <= self.split < 2**32, "a whole number from 0 to 4294967295")
        known = not isinstance(self.shifts, str) and all(kind in CORRUPTIONS for kind in self.shifts)
        distinct = known and len(set(self.shifts)) == len(self.shifts)
        check(self, "shifts", distinct, f"a list of some of {', '.join(CORRUPTIONS)}, each once")
        check_count(self, "shift_examples")
        object.__setattr__(self, "shifts", tuple(self.shifts))

    def some(self, split: Split) -> Split:
        """At most `shift_examples` examples, drawn by the split's seed, in their old order."""
        count = len(split.x)
        if count <= self.shift_examples:
            return split
        index = shuffled(count, self.split)[: self.shift_examples].sort().values
        return Split(take(split.x, index), None if split.y is None else split.y[index])

    def shifted_sets(self, test: Split) -> tuple[dict[str, Split], dict[str, Shift]]:
        """The shifted sets, and what each of them is, by name."""
        clean = self.some(test)
        shifts = [Shift(kind, severity) for kind in self.shifts for severity in SEVERITIES]
        sets = {shift.name: Split(shift(clean.x, self.split), clean.y) for shift in shifts}  # type: ignore[arg-type]
        return sets, {shift.name: shift for shift in shifts}
