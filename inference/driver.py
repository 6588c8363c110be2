"""What a driver is: it turns a model, a guide and data into a posterior."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pyro import poutine
from torch import Tensor

from ..guides import Family, Guide
from ..models import BayesianModel
from ..models.calling import eval_mode
from ..models.likelihoods import Undrawn
from ..priors import describe
from ..priors.settings import SettingError, check, check_option
from .checkpoint import identity
from .data import Data, DataError, take
from .monitor import Monitor
from .posterior import Posterior, store_as_it_was
from .work import guide_of, model_of, priors_of

Families = Family | Mapping[str, Family] | Guide
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True, kw_only=True)
class Driver(ABC):
    """Inference, with its settings.

    Args:
        device: A torch device, default ``cpu``.
        dtype: ``float32`` (default) or ``float64``, for parameters and data.

    Raises:
        SettingError: A setting is out of range.
    """

    device: str = "cpu"
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        check_option(self, "dtype", DTYPES)
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            check(self, "device", False, f"a torch device of this machine, such as cpu ({reason})")

    @property
    def place(self) -> tuple[torch.device, torch.dtype]:
        """Where parameters and data are, and in which dtype."""
        return torch.device(self.device), DTYPES[self.dtype]

    @property
    def needs_guide(self) -> bool:
        """Whether the driver fits a guide that it is given; others refuse one."""
        return False

    @property
    def treatment(self) -> str:
        """What becomes of a site where no guide is fitted, in a word: ``draws`` (default), ``point``, ..."""
        return "draws"

    @property
    def members(self) -> int:
        """How many posteriors it fits, each with parameters of its own; 1 unless it is an ensemble."""
        return 1

    @property
    def shared(self) -> bool:
        """Whether a `Library` keeps what it finds for others: it is a net that drivers start from."""
        return False

    @property
    def starts_from(self) -> Driver | None:
        """The driver of the nets that it starts from, if it does."""
        return None

    @property
    def moves_centers(self) -> bool:
        """Whether priors around the net's own weights (`Pretrained`) move to those of the net that it starts from."""
        return False

    def refusal(self, model: BayesianModel) -> str | None:
        """Why this driver cannot work with a model, or None when it can; asked before any work is done."""
        return None

    def run(
        self,
        model: BayesianModel,
        guide: Families | None,
        data: Data,
        seed: int = 0,
        monitor: Monitor | None = None,
    ) -> Posterior:
        """Find the posterior.

        Args:
            model: The model; it is copied.
            guide: For drivers that fit one: a `Family`, a map from globs to families (recipes, from which a new guide
                is made), or a `Guide`, which is trained in place. None for the others.
            data: Training and validation data.
            seed: Of everything random; the global random state is left as it was.
            monitor: Receives progress and history; default one that keeps the history. With a `Checkpoint` the driver
                goes on from the state that it finds there, when it is one of the same work.

        Returns:
            The posterior.

        Raises:
            SettingError: The driver cannot work with this model or guide.
            InferenceError: A number became NaN or infinite; the error holds the last good posterior.
        """
        self.check(model, guide)
        device, dtype = self.place
        if not isinstance(guide, Guide):
            model = copy_to(model, device, dtype)
        data = data.to(device, dtype)
        with torch.random.fork_rng(devices=[]), store_as_it_was():
            check_observations(model, data)
            torch.manual_seed(seed)
            monitor = monitor or Monitor()
            if self.shared and monitor.library is not None and not isinstance(guide, Guide):
                work = self.work(model, guide, data, seed)
                return monitor.library.get(work, model, monitor, lambda: self._run(model, guide, data, seed, monitor))
            return self._run(model, guide, data, seed, monitor)

    def resumed(
        self, model: BayesianModel, guide: Families | None, data: Data, seed: int, monitor: Monitor
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The state of this very work in the monitor's checkpoint, or None: there is none, or it is of other work."""
        if monitor.checkpoint is None:
            return None
        return monitor.checkpoint.begin(self.work(model, guide, data, seed))

    def work(self, model: BayesianModel, guide: Families | None, data: Data, seed: int) -> dict[str, Any]:
        """What the result depends on, as plain data: work that differs in any of this is other work."""
        start = {f"model.{name}": value for name, value in model.state_dict().items()}
        if isinstance(guide, Guide):
            start |= {f"guide.{name}": value for name, value in guide.state_dict().items()}
        done = {"guide": guide_of(guide), "model": model_of(model), "priors": self.priors_of(model)}
        return {**identity(describe(self), seed, data, start), **done}

    def priors_of(self, model: BayesianModel) -> dict[str, Any]:
        """The priors that the result depends on, by weight."""
        return priors_of(model)

    def check(self, model: BayesianModel, guide: Families | None) -> None:
        """Raise a `SettingError` when this driver cannot work with this model or guide."""
        name = type(self).__name__
        if self.needs_guide and guide is None:
            raise SettingError("guide", None, f"a guide: {name} fits one")
        if not self.needs_guide and guide is not None:
            raise SettingError("guide", type(guide).__name__, f"none: {name} would ignore it")
        if isinstance(guide, Guide) and guide.model is not model:
            raise SettingError("guide", "Guide", "a guide of this model, or families to make one from")
        if reason := self.refusal(model):
            raise SettingError("driver", name, reason)
        for parameter in guide.parameters() if isinstance(guide, Guide) else ():
            if parameter.dtype != self.place[1]:
                found = str(parameter.dtype).removeprefix("torch.")
                raise SettingError("dtype", self.dtype, f"{found}, which the guide has")

    @abstractmethod
    def _run(self, model: BayesianModel, guide: Families | None, data: Data, seed: int, monitor: Monitor) -> Posterior:
        """`run` with everything checked, seeded, and in its place; ``model`` is a copy of the driver's own."""


def not_all_random(model: BayesianModel, driver: str, verb: str, *, rows: bool = False) -> str | None:
    """Why a driver that needs a prior on every parameter cannot work with a model, or None when it can.

    Args:
        model: The model.
        driver: The driver's name.
        verb: What it does with random sites.
        rows: Whether it does so with attention rows, default False.
    """
    if model.rows and not rows:
        return f"a driver for attention rows, such as svi: {driver} does not {verb} {model.rows[0]}"
    if model.learned:
        name = model.known_as(next(iter(model.learned)))
        return f"priors on all parameters: {driver} cannot learn {name} (fixed would leave it as it is)"
    return None if model.sites else "a model with at least one random site"


def check_place(driver: Driver, key: str) -> None:
    """Raise a `SettingError` when a driver that works where that of its setting ``key`` does asks for another place."""
    inner = getattr(driver, key)
    for name in ("device", "dtype"):
        accepted = (Driver.__dataclass_fields__[name].default, getattr(inner, name))
        check(driver, name, getattr(driver, name) in accepted, f"nothing here: that of {key} is used")


def copy_to(model: BayesianModel, device: torch.device, dtype: torch.dtype) -> BayesianModel:
    """A copy of a model on a device, in a dtype."""
    return copy.deepcopy(model).to(device=device, dtype=dtype)


def check_observations(model: BayesianModel, data: Data) -> None:
    """Raise a `DataError` when observations do not fit what the net returns."""
    for name, x, y in (("train", data.x, data.y), ("validation", data.x_validation, data.y_validation)):
        if x is None or y is None:
            continue
        with torch.no_grad(), poutine.block(), torch.random.fork_rng(devices=[]), eval_mode(model), Undrawn():
            outputs = model(take(x, slice(0, 1)))
        try:
            model.likelihood.check(outputs.expand(len(y), *outputs.shape[1:]), y)
        except ValueError as error:
            raise DataError(f"{name} {error}") from None
