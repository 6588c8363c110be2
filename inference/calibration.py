"""Post-hoc calibration: predictions changed after inference, by what validation data say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..models import BayesianModel
from ..priors import choice_name, settings
from .prediction import Gathering, Prediction


class Calibration(ABC):
    """A map of the net's outputs whose few numbers are fitted on validation data, whatever the posterior."""

    def refusal(self, model: BayesianModel) -> str | None:
        """Why this calibration cannot work with a model, or None when it can; asked before any work is done."""
        return None

    @abstractmethod
    def fit(self, outputs: Tensor, y: Tensor) -> dict[str, float]:
        """The numbers of the map.

        Args:
            outputs: What the net returns for validation inputs, ``[S, N, ...]``, one a draw of the posterior.
            y: Observations ``[N, ...]``.
        """

    @abstractmethod
    def apply(self, outputs: Tensor, fitted: Mapping[str, float]) -> Tensor:
        """Outputs ``[S, N, ...]`` after the map with these numbers."""


@dataclass(frozen=True)
class Calibrated:
    """A calibration and the numbers that were fitted for it.

    Args:
        calibration: The calibration.
        fitted: Its numbers.
        plug_in: Those for predictions with plug-in rows, which are surer; None (default) where no rows are random.
    """

    calibration: Calibration
    fitted: Mapping[str, float]
    plug_in: Mapping[str, float] | None = None

    def of_rows(self, rows: str) -> Calibrated | None:
        """What was fitted for drawn rows (``sample``) or for plug-in ones (``mean``), if it was."""
        if rows == "sample":
            return self
        return None if self.plug_in is None else Calibrated(self.calibration, self.plug_in)

    def describe(self) -> dict[str, Any]:
        """As plain data."""
        name = choice_name(type(self.calibration))
        content = {"name": name, "settings": settings(self.calibration), "fitted": dict(self.fitted)}
        return content if self.plug_in is None else {**content, "plug_in": dict(self.plug_in)}


class CalibratedGathering(Gathering):
    """Gathers outputs that go through a calibration first."""

    def __init__(self, inner: Gathering, calibrated: Calibrated):
        self.inner, self.calibrated = inner, calibrated

    def add(self, where: slice, outputs: Tensor, drawn: dict[str, Tensor]) -> None:
        self.inner.add(where, self.calibrated.calibration.apply(outputs, self.calibrated.fitted), drawn)

    def result(self) -> Prediction:
        return self.inner.result()


def restored_calibration(path: Path, content: Mapping[str, Any]) -> Calibrated:
    """What `Calibrated.describe` gave, again.

    Raises:
        ValueError: There is no calibration of this name, or its numbers are missing.
    """
    kinds = {choice_name(kind): kind for kind in Calibration.__subclasses__()}
    if content.get("name") not in kinds or not {"settings", "fitted"} <= set(content):
        raise ValueError(f"{path}: calibration {content.get('name')!r}: expected one of {', '.join(kinds)}, fitted")
    return Calibrated(kinds[content["name"]](**content["settings"]), content["fitted"], content.get("plug_in"))
