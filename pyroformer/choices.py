"""Choices: from plain data to objects, by the exports of each room.

A choice is written ``name``, ``{name: {setting: value}}``, or is an object already. The names are the snake_case names
of the classes that a room exports, the settings their keyword-only arguments; nothing is registered anywhere.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from torch import nn

from . import guides, inference, models, priors, tasks
from .guides import Family
from .inference import Bound, Calibration, Driver, StepSchedule
from .models import Backbone, Likelihood
from .priors import (
    HierarchicalPrior,
    Hyperprior,
    PointEstimate,
    Prior,
    RowCenter,
    RowPrior,
    SettingError,
    choice_name,
    describe,
)
from .priors.globs import near_misses
from .priors.settings import parameters
from .tasks import Task


class SpecError(Exception):
    """A user's mistake in a specification.

    Args:
        path: Where, as ``prior.normal.scale``.
        value: What was given.
        accepted: What would be accepted, in words.
    """

    def __init__(self, path: str, value: Any, accepted: str):
        self.path, self.value, self.accepted = path, value, accepted
        super().__init__(path, value, accepted)

    def __str__(self) -> str:
        return f"{self.path}: got {_short(self.value)}; accepted: {self.accepted}"


def check_file_to_write(path: Path, endings: tuple[str, ...] = ()) -> None:
    """Raise a `SpecError` unless ``--out`` names a file, with one of the endings if there are any."""
    if path.is_dir():
        raise SpecError("--out", str(path), "a file; this is a folder")
    if endings and path.suffix.lower() not in endings:
        raise SpecError("--out", str(path), f"a file that ends in {' or '.join(endings)}")


def as_yaml(value: Any) -> str:
    """A value as a user of YAML would write it."""
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    return value if isinstance(value, str) and value else repr(value)


def _short(value: Any, most: int = 200) -> str:
    if isinstance(value, tuple(base for kind in KINDS.values() for base in kind.bases)):
        value = choice_name(type(value))
    text = value if isinstance(value, str) and value else " ".join(as_yaml(value).split())
    return text if len(text) <= most else text[: most - 3] + "..."


@dataclass(frozen=True)
class Kind:
    """A kind of choice: the base classes of its objects and the room that exports them.

    Args:
        name: What it is called, for messages and ``pyroformer list``.
        bases: Base classes.
        room: The package whose exports are enumerated.
        mapped: Whether a glob map of choices is accepted in the place of one choice.
    """

    name: str
    bases: tuple[type, ...]
    room: types.ModuleType
    mapped: bool = False

    def classes(self) -> dict[str, type]:
        """The classes that may be chosen, by name, in alphabetical order."""
        exported = [getattr(self.room, name) for name in self.room.__all__]
        found = [
            cls
            for cls in exported
            if isinstance(cls, type)
            and issubclass(cls, self.bases)
            and not inspect.isabstract(cls)
            and cls not in self.bases
        ]
        return {choice_name(cls): cls for cls in sorted(found, key=choice_name)}


TASKS = Kind("task", (Task,), tasks)
MODELS = Kind("model", (Backbone,), models)
PRIORS = Kind("prior", (Prior, HierarchicalPrior, PointEstimate, RowPrior), priors, mapped=True)
HYPERPRIORS = Kind("hyperprior", (Hyperprior,), priors)
CENTERS = Kind("center", (RowCenter,), priors)
GUIDES = Kind("guide", (Family,), guides, mapped=True)
DRIVERS = Kind("driver", (Driver,), inference)
LIKELIHOODS = Kind("likelihood", (Likelihood,), models)
CALIBRATIONS = Kind("calibration", (Calibration,), inference)
BOUNDS = Kind("bound", (Bound,), inference)
SCHEDULES = Kind("schedule", (StepSchedule,), inference)
DEFAULTS = {"model": "transformer", "prior": "normal", "driver": "svi"}
"""What a spec means where it does not name a choice."""

KINDS = {
    kind.name: kind
    for kind in (
        TASKS,
        MODELS,
        PRIORS,
        HYPERPRIORS,
        CENTERS,
        GUIDES,
        DRIVERS,
        BOUNDS,
        SCHEDULES,
        LIKELIHOODS,
        CALIBRATIONS,
    )
}
RENAMED = {
    "flat_rows": "{dirichlet_rows: {center: flat, concentration: 1, floor: 0}}",
    "matched_uniform_rows": "{dirichlet_rows: {center: matched_uniform, concentration: 30, floor: 0}}",
    "contextual_rows": "{dirichlet_rows: {center: contextual}}",
    "softmax_rows": "{dirichlet_rows: {center: softmax}}",
}
"""How what had a name of its own is written now."""


@dataclass(frozen=True)
class Recipe:
    """A choice whose object waits for more: a net waits for the shapes of its task."""

    cls: type
    settings: dict[str, Any]
    path: str

    def make(self, *arguments: Any) -> Any:
        """Build the object."""
        return construct(self.cls, arguments, self.settings, self.path)

    def describe(self) -> dict[str, Any]:
        """As plain data with every setting."""
        full = {name: p.default for name, p in parameters(self.cls).items()} | self.settings
        return {choice_name(self.cls): {name: describe(value) for name, value in full.items()}}


def construct(cls: type, arguments: tuple[Any, ...], settings: dict[str, Any], path: str) -> Any:
    """Call a constructor and tell where in the specification a refused setting stands."""
    try:
        return cls(*arguments, **settings)
    except SettingError as error:
        raise SpecError(f"{path}.{error.key}" if error.key else path, error.value, error.expected) from None


def is_map(value: Any) -> bool:
    """Whether a mapping is a glob map: several keys, or one with ``* ? [ .`` in it."""
    return isinstance(value, Mapping) and (len(value) != 1 or any(c in str(key) for key in value for c in "*?[."))


def build(kind: Kind, value: Any, path: str) -> Any:
    """The object that a choice, or a glob map of choices, stands for.

    Args:
        kind: What is chosen.
        value: Plain data, an object, or a mapping of these.
        path: Where it stands, for messages.

    Raises:
        SpecError: The choice or one of its settings is not acceptable.
    """
    if kind.mapped and is_map(value):
        if not value:
            raise SpecError(path, value, f"a {kind.name} or a map from globs to {kind.name}s")
        if any(str(key) in kind.classes() for key in value):
            raise SpecError(
                path,
                ", ".join(map(str, value)),
                f"one {kind.name} and its settings, or a map from globs over names to {kind.name}s",
            )
        return {str(glob): _one(kind, choice, f'{path}."{glob}"') for glob, choice in value.items()}
    return _one(kind, value, path)


def _one(kind: Kind, value: Any, path: str) -> Any:
    classes = kind.classes()
    accepted = f"a {kind.name} among {', '.join(classes)}"
    if isinstance(value, (*kind.bases, Recipe)):
        return value
    if kind is PRIORS and callable(value) and not isinstance(value, type):
        return value
    if kind is MODELS and isinstance(value, nn.Module):
        return value
    if isinstance(value, str):
        value = {value: {}}
    if not isinstance(value, Mapping):
        raise SpecError(path, value, f"{accepted}, as `name` or `{{name: {{setting: value}}}}`")
    if len(value) != 1:
        raise SpecError(path, ", ".join(map(str, value)) or value, f"one name and its settings: {accepted}")
    name, given = next(iter(value.items()))
    if name not in classes:
        now = f"; {name} is now written {RENAMED[name]}" if kind is PRIORS and name in RENAMED else ""
        raise SpecError(path, name, accepted + (now or near_misses(str(name), classes)))
    return _choice(classes[name], {} if given is None else given, f"{path}.{name}")


def _choice(cls: type, given: Any, path: str) -> Any:
    known = parameters(cls)
    accepted = f"the settings {', '.join(known)}" if known else "no settings"
    if not isinstance(given, Mapping):
        raise SpecError(path, given, f"a mapping of {accepted}")
    unknown = [key for key in given if key not in known]
    if unknown:
        raise SpecError(f"{path}.{unknown[0]}", given[unknown[0]], accepted + near_misses(str(unknown[0]), known))
    hints = hints_of(cls)
    settings = {key: convert(hints.get(key, Any), value, f"{path}.{key}") for key, value in given.items()}
    needed = [p for p in inspect.signature(cls).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if needed:
        return Recipe(cls, settings, path)
    return construct(cls, (), settings, path)


def hints_of(cls: type) -> dict[str, Any]:
    """The types of a constructor's arguments, by name."""
    scope: dict[str, Any] = {}  # the names that hints of the bases may use too: dataclass fields are inherited
    for base in reversed(cls.__mro__):
        scope |= vars(inspect.getmodule(base) or types)
    constructor = next(vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base))
    return get_type_hints(constructor, None, scope)


def kind_of(hint: Any) -> Kind | None:
    """The kind of a setting that is a choice, a word or None: of the hinted class where that is narrower."""
    if get_origin(hint) in (Union, types.UnionType):
        parts = [part for part in get_args(hint) if part is not type(None) and get_origin(part) is not Literal]
        return kind_of(parts[0]) if len(parts) == 1 else None
    found = (kind for kind in KINDS.values() if isinstance(hint, type) and issubclass(hint, kind.bases))
    return next((replace(kind, bases=(hint,), mapped=False) for kind in found), None)


def words_of(hint: Any) -> tuple[str, ...]:
    """The words that may stand in the place of a choice."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()
    return tuple(word for part in parts if get_origin(part) is Literal for word in get_args(part))


def items_of(hint: Any) -> Any:
    """The type of the items of ``tuple[item, ...]``, or of that or None; None for other types."""
    if get_origin(hint) in (Union, types.UnionType):
        return next((item for part in get_args(hint) if (item := items_of(part)) is not None), None)
    return get_args(hint)[0] if get_origin(hint) is tuple else None


def convert(hint: Any, value: Any, path: str) -> Any:
    """A setting's value in the type that its owner declares; a nested choice becomes an object.

    Raises:
        SpecError: The value does not fit the type.
    """
    optional = type(None) in get_args(hint)
    kind = kind_of(hint)
    if kind is not None:
        words = words_of(hint)
        if (value is None and optional) or (isinstance(value, str) and value in words):
            return value
        try:
            return build(kind, value, path)
        except SpecError as error:
            if words and error.path == path:
                raise SpecError(path, error.value, f"{', '.join(words)}, or {error.accepted}") from None
            raise
    items = None if value is None and optional else items_of(hint)
    if items is not None and not (isinstance(value, str) and str in get_args(hint)):
        if not isinstance(value, list | tuple):
            raise SpecError(path, value, type_name(hint))
        return tuple(convert(items, item, f"{path}.{index}") for index, item in enumerate(value))
    if isinstance(value, bool) and bool not in (get_args(hint) or (hint,)):
        raise SpecError(path, value, type_name(hint))
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError:
        raise SpecError(path, value, type_name(hint)) from None


def type_name(hint: Any) -> str:
    """A type in words that a user of YAML knows."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(type_name(part) for part in get_args(hint))
    if get_origin(hint) is tuple:
        item = type_name(get_args(hint)[0])
        return f"a list of {item.removeprefix('a ')}s" if item.startswith("a ") else f"a list, each {item}"
    if (kind := kind_of(hint)) is not None:
        return f"a {kind.name}"
    if get_args(hint):
        words = ", ".join(map(str, get_args(hint)))
        return words if len(get_args(hint)) == 1 else f"one of {words}"
    plain: dict[Any, str] = {
        float: "a number",
        int: "a whole number",
        bool: "true or false",
        str: "a text",
        type(None): "null",
    }
    return plain.get(hint, getattr(hint, "__name__", str(hint)))


def plain(choice: Any) -> Any:
    """A choice, a map of choices, or a recipe as plain data."""
    if isinstance(choice, Recipe):
        return choice.describe()
    if isinstance(choice, Mapping):
        return {str(key): plain(value) for key, value in choice.items()}
    if isinstance(choice, nn.Module) and not isinstance(choice, Family | Likelihood | Backbone):
        return {"module": f"{type(choice).__module__}.{type(choice).__qualname__}"}
    if inspect.isfunction(choice) or (isinstance(choice, Callable) and not isinstance(choice, Prior | nn.Module)):  # type: ignore[arg-type]
        return {"function": f"{choice.__module__}.{choice.__qualname__}"}
    return describe(choice)
