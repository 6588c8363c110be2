"""Choices in few words: settings with their defaults, and what of a choice differs from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from ..choices import KINDS, Recipe, as_yaml, plain
from ..priors import choice_name, describe
from ..priors.settings import parameters


def defaults(cls: type) -> dict[str, Any]:
    """The default of every setting of a class, by name."""
    found = {name: parameter.default for name, parameter in parameters(cls).items()}
    if is_dataclass(cls):
        made = {f.name: f.default_factory for f in fields(cls) if f.default_factory is not MISSING}
        found |= {name: made[name]() for name in found if name in made}
    return found


def own_first(cls: type) -> list[str]:
    """The names of the settings of a class, those first that it adds or changes itself."""

    def depth(name: str) -> int:
        owners = [i for i, base in enumerate(cls.__mro__) if name in vars(base).get("__annotations__", {})]
        return min(owners, default=0)

    return sorted(parameters(cls), key=depth)


def settings_of(choice: Any, full: bool = True) -> dict[str, Any]:
    """The settings of a choice or of a `Recipe`: all of them, or those that differ from their default."""
    cls = choice.cls if isinstance(choice, Recipe) else type(choice)
    given = choice.settings if isinstance(choice, Recipe) else {n: getattr(choice, n) for n in parameters(cls)}
    standard = defaults(cls)
    return {
        name: given.get(name, default)
        for name, default in ((name, standard[name]) for name in own_first(cls))
        if full or describe(given.get(name, default)) != describe(default)
    }


def is_choice(value: Any) -> bool:
    """Whether a value is a choice of a room, as an object or as a `Recipe`."""
    return isinstance(value, (Recipe, *(base for kind in KINDS.values() for base in kind.bases)))


def short(value: Any) -> Any:
    """A choice as a user would write it in YAML: ``normal``, or ``{normal: {scale: 0.1}}``."""
    if isinstance(value, Mapping):
        return {str(key): short(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [short(each) for each in value]
    if not is_choice(value):
        return value
    name = choice_name(value.cls if isinstance(value, Recipe) else type(value))
    changed = settings_of(value, full=False)
    return {name: short(changed)} if changed else name


def in_words(value: Any, full: bool = False) -> str:
    """A value in one line: ``normal(scale=0.1)``; ``full`` names the settings that have their default too."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(in_words(each) for each in value)}]"
    if isinstance(value, float):
        return repr(value) if len(repr(value)) <= 8 else f"{value:.4g}"
    if value is None or isinstance(value, str | int):
        return as_yaml(value)
    if not is_choice(value):
        (what, where), *_ = plain(value).items()
        return f"{what} {where}"
    name = choice_name(value.cls if isinstance(value, Recipe) else type(value))
    return name + _in_brackets(settings_of(value, full))


def signature(cls: type) -> str:
    """The settings of a class with their defaults, as ``(scale=1.0)``; empty when it has none."""
    return _in_brackets(defaults(cls))


def _in_brackets(settings: Mapping[str, Any]) -> str:
    shown = [f"{name}={in_words(value)}" for name, value in settings.items()]
    return f"({', '.join(shown)})" if shown else ""
