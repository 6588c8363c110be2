"""Drivers that go on from a trained net."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from ..models import BayesianModel
from ..priors.settings import check
from .data import Data
from .driver import Driver, check_place
from .monitor import Monitor
from .point import MAP, ML


def trained(
    start: Driver, model: BayesianModel, data: Data, seed: int, monitor: Monitor
) -> tuple[BayesianModel, dict[str, Any]]:
    """A model that starts where a point estimate ends, and what the estimate has to say of itself.

    Attention rows that the model draws are computed by softmax in the estimate, in which they are no weights.

    Args:
        start: The driver of the point estimate.
        model: The model; it is copied.
        data: What is learnt from.
        seed: Of the training.
        monitor: Its records are marked with the part ``start``; with a `Library` a net that is there is not trained
            again.

    Returns:
        The model, whose ``initial_values()`` are the estimate and whose learned parameters are the trained ones, and
        the ``info`` of the estimate.
    """
    bare = model.without_rows()
    if isinstance(start, ML):  # which sees no prior, so that one net serves all of them
        bare = bare.without_centers()
    with monitor.labelled(part="start"):
        found = start.run(bare, None, data, seed, monitor)
    started = found.model if bare is model else model.with_numbers_of(found.model)
    started.set_initial_values({name: value[0] for name, value in found.draw(1).items()})
    return started, dict(found.info)


def check_start(driver: Driver) -> None:
    """Raise a `SettingError` unless the setting ``start`` is a point estimate, or None, in the driver's own place."""
    start = driver.starts_from
    if start is not None:
        check(driver, "start", isinstance(start, MAP), "a point estimate: map or ml")
        check(driver, "start", start.place == driver.place, "a driver with the same device and dtype")


class Started(Driver):
    """A driver that may begin anew from a trained net: from that of its setting ``start``, where it is not None."""

    start: Driver | None

    @property
    def starts_from(self) -> Driver | None:
        return self.start

    @property
    def moves_centers(self) -> bool:
        return self.start is not None

    def begun(
        self, model: BayesianModel, data: Data, seed: int, monitor: Monitor
    ) -> tuple[BayesianModel, dict[str, Any]]:
        """What `trained` gives, with priors around the net's own weights (`Pretrained`) moved to the trained net.

        What goes on from an estimate keeps the prior that this had; here inference begins anew.
        """
        assert self.start is not None
        model, info = trained(self.start, model, data, seed, monitor)
        start = {name: value.unsqueeze(0) for name, value in model.initial_values().items()}
        return model.centered_on({name: value[0] for name, value in model.weights(start).items()}), info


@dataclass(frozen=True, kw_only=True)
class PostHoc(Driver):
    """A driver that turns a trained net into a posterior.

    Args:
        start: How the net is trained: ``map`` (default) or ``ml``, with their settings. Its ``device`` and ``dtype``
            are used.
        device, dtype: Those of ``start`` are used; these must be left at their defaults.

    Raises:
        SettingError: A setting is out of range, or ``start`` is no point estimate.
    """

    start: Driver = field(default_factory=MAP)

    def __post_init__(self) -> None:
        check(self, "start", isinstance(self.start, MAP), "a point estimate: map or ml")
        super().__post_init__()
        check_place(self, "start")

    @property
    def place(self) -> tuple[torch.device, torch.dtype]:
        return self.start.place

    @property
    def starts_from(self) -> Driver:
        return self.start

    def refusal(self, model: BayesianModel) -> str | None:
        return self.start.refusal(model)
