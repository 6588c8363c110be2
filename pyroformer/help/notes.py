"""What a user should know of a spec, beyond what it says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..choices import Recipe, is_map
from ..inference import SVI, Driver, Minibatched
from ..inference.chained import Chained
from ..models import BayesianModel
from ..priors import Improper, RandomScale, RowPrior, choice_name
from ..spec import KEYS, Spec
from ..tasks import TaskData, Text
from .wording import in_words, is_choice, settings_of


def choices_of(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every choice in a part of a spec, nested ones too, with its path."""
    if isinstance(value, Mapping) and is_map(value):
        for glob, choice in value.items():
            yield from choices_of(choice, f'{path}."{glob}"')
    elif isinstance(value, list | tuple):
        for index, choice in enumerate(value):
            yield from choices_of(choice, f"{path}.{index}")
    elif is_choice(value):
        path = f"{path}.{choice_name(value.cls if isinstance(value, Recipe) else type(value))}"
        yield path, value
        for name, setting in settings_of(value).items():
            yield from choices_of(setting, f"{path}.{name}")


def notes(spec: Spec, model: BayesianModel, data: TaskData) -> Iterator[str]:
    """What the result is not, and what is not random although it might be."""
    for key in KEYS:
        for path, choice in choices_of(getattr(spec, key), key):
            for setting, said in _remarks(choice, data):
                shown = f"{path}.{setting} = {in_words(getattr(choice, setting))}" if setting else path
                yield f"{shown}: {said}"
    flat = [name for name, prior in model.chosen.items() if isinstance(prior, Improper)]
    if isinstance(spec.driver, Chained) and spec.driver.needs_guide:
        yield "the guide is that of the posterior where chains start: draws replace it"
    elif flat and spec.driver.needs_guide:
        yield f"the prior of {_count(len(flat), 'weight site')} is flat: the bound holds up to a constant"
    if spec.driver.treatment == "point" and not spec.driver.needs_guide:
        if any(isinstance(prior, RandomScale) and prior.centered for prior in model.chosen.values()):
            yield "the density of a centred hierarchical prior is unbounded: this driver finds no maximum of it"
    elif model.learned:
        numbers = sum(value.numel() for value in model.learned.values())
        yield f"{_count(numbers, 'parameter')} learned as numbers: no posterior tells how sure they are"


def _remarks(choice: Any, data: TaskData) -> Iterator[tuple[str, str]]:
    """The settings of one choice that change what the result is, and how."""
    if isinstance(choice, Driver):
        temperature, weight = getattr(choice, "temperature", 1), getattr(choice, "kl_weight", 1)
        if temperature != 1:
            what = "cold" if temperature < 1 else "warm"
            yield "temperature", f"the target is the posterior to the power 1/{temperature:g}, a {what} posterior"
        if weight != 1:
            yield "kl_weight", f"the KL counts {_times(weight)}: no posterior"
        if getattr(choice, "prior_weight", 1) == 0:
            yield "", "priors do not count, except for where they allow values"
        if isinstance(choice, Minibatched) and choice.keep == "best" and data.validation is None:
            yield "keep", "there are no validation data, so the last state is kept"
        if isinstance(choice, SVI) and choice.bound.weighs_draws and choice.batch_size < len(data.data):
            yield "bound", f"minibatches of {choice.batch_size} bias it; with all examples in one it is exact"
    if isinstance(choice, RowPrior) and choice.kl_weight != 1:
        yield "kl_weight", f"the rows' KL counts {_times(choice.kl_weight)}: no posterior"
    if isinstance(choice, RowPrior) and choice.kl_normalization != "none":
        yield "kl_normalization", "the rows' KL is a mean over entries and layers, no sum: no posterior"
    if isinstance(choice, Text) and choice.stride is not None and choice.stride < choice.length:
        yield "stride", f"tokens count up to {-(-choice.length // choice.stride)} times: a cold posterior"


def _times(weight: float) -> str:
    return f"{weight:g} times" if weight else "nothing"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
