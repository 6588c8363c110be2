"""The specification of a run: task, model, prior, guide, driver and seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from . import yamlfile
from .choices import DEFAULTS, KINDS, TASKS, Recipe, SpecError, build, plain
from .guides import Family, Guide, MeanField, default_rows
from .inference import Calibration, Driver
from .models import BayesianModel
from .priors import SettingError, choice_name
from .priors.globs import near_misses
from .tasks import Task, TaskData

KEYS = ("task", "model", "prior", "guide", "driver", "calibration", "seed")


class Spec(BaseModel):
    """What a run does, each part a choice: ``name``, ``{name: {setting: value}}`` or an object.

    Args:
        task: The data; the only part without a default.
        model: The net, default ``transformer``; from Python also any `torch.nn.Module`.
        prior: A prior, or a map from globs over parameter names to priors, default ``normal``.
        guide: A guide family or a map of them; default ``mean_field`` for weights and ``dirichlet_rows`` for attention
            rows where the driver fits a guide, else none.
        driver: Default ``svi``.
        calibration: What to fit on the validation examples after the driver's run, such as ``temperature_scaling``;
            default none.
        seed: Of the net's start, of training and of the draws, default 0.

    Raises:
        SpecError: A part is not acceptable.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", frozen=True)

    task: Any
    model: Any = "transformer"
    prior: Any = "normal"
    guide: Any = None
    driver: Any = "svi"
    calibration: Any = None
    seed: int = 0

    def __init__(self, **given: Any):
        super().__init__(**given)

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, given: Any) -> dict[str, Any]:
        if not isinstance(given, Mapping):
            raise SpecError("spec", given, "a mapping with the keys " + ", ".join(KEYS))
        for key in given:
            if key not in KEYS:
                accepted = "the keys " + ", ".join(KEYS) + near_misses(str(key), KEYS)
                raise SpecError(str(key), given[key], accepted)
        if given.get("task") is None:
            raise SpecError("task", None, f"a task among {', '.join(TASKS.classes())}")
        seed = given.get("seed", 0)
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
            raise SpecError("seed", seed, "a whole number from 0 to 4294967295")
        resolved: dict[str, Any] = {"seed": seed}
        for key in KEYS[:-1]:
            value = given.get(key)
            value = DEFAULTS.get(key) if value is None else value
            resolved[key] = None if value is None else build(KINDS[key], value, key)
        driver: Driver = resolved["driver"]
        if resolved["guide"] is not None and not driver.needs_guide:
            name = next(iter(plain(driver)))
            raise SpecError("guide", given["guide"], f"no guide: the driver {name} would ignore it")
        return resolved

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain data with every setting, from which it can be built again."""
        return {key: plain(getattr(self, key)) for key in KEYS if getattr(self, key) is not None}

    def to_yaml(self) -> str:
        """The spec as YAML text with every setting."""
        return yamlfile.dump(self.to_dict())

    @classmethod
    def from_file(cls, path: str | Path, assignments: Iterable[str] = ()) -> Spec:
        """Read a spec from a YAML file and make assignments ``path=value`` in it."""
        content = yamlfile.read(path)
        for assignment in assignments:
            content = yamlfile.assign(content, assignment)
        return cls(**{str(key): value for key, value in content.items()})

    def build_model(self, data: TaskData) -> BayesianModel:
        """The Pyro model for a task's data, its net started from the spec's seed.

        Raises:
            SpecError: The net does not fit the task, the prior does not fit the net, or the calibration fits neither.
        """
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = self.model.make(data.inputs, data.outputs) if isinstance(self.model, Recipe) else self.model
            try:
                model = BayesianModel(net, self.prior, data.likelihood)
            except SettingError as error:
                raise SpecError("prior", error.value, error.expected) from None
        if self.calibration is not None:
            reason = self.calibration.refusal(model)
            if data.validation is None:
                reason = "none: the task has no validation examples to fit it on"
            if reason:
                raise SpecError("calibration", plain_name(self.calibration), reason)
        return model

    def build_guide(self, model: BayesianModel, data: TaskData) -> Any:
        """The guide's recipe, or None where the driver needs none; it is tried on two examples.

        Raises:
            SpecError: The guide does not fit the model, or the driver cannot work with the model.
        """
        guide = self.guide
        if guide is None and self.driver.needs_guide:
            families: dict[str, Family] = {}
            if model.rows:
                families |= default_rows(model.row_priors)
            if model.initial_values():
                families["*"] = MeanField()
            guide = families
        try:
            self.driver.check(model, guide)
        except SettingError as error:
            value = choice_name(type(self.driver)) if error.key == "driver" else plain_name(error.value)
            raise SpecError(error.key, value, error.expected) from None
        if guide is not None:
            try:
                Guide(model, guide, data.data.example())
            except SettingError as error:
                raise SpecError("guide", error.value, error.expected) from None
            except ValueError as error:
                raise SpecError("guide", ", ".join(plain(guide)), f"families that fit the model: {error}") from None
        return guide


def plain_name(value: Any) -> Any:
    """A value for a message: the name of a class is enough."""
    return choice_name(type(value)) if isinstance(value, Family | Task | Driver | Calibration) else value
